"""Files on a fleet whose parts are killed, cut off, cancelled or full: nothing is lost, and nothing is half done."""

from __future__ import annotations

import hashlib
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from fleet_files import Files, write_tree
from fleet_processes import processes_with
from waiting import PATIENCE, wait_until

pytestmark = [pytest.mark.long, pytest.mark.fleet, pytest.mark.timeout(180)]

SIZE = 24_000_000
HELD_AT = 20_000_000
SLACK = 1_000_000
"""Bytes that may travel twice: what a killed process had not taken yet, and all that is no file."""

COMES = """
parameters: {effects: {type: string}}
workspace: sync
tasks:
  - {name: a, action: core.shell, delegate_to: web-1,
     input: {command: "echo $MUSTER_JOB >> {{ parameters.effects }}; sha256sum < large; rm large; printf new > small"}}
output_map: {said: "{{ task.a.result.stdout }}"}
"""
GOES = """
parameters: {effects: {type: string}, gate: {type: string, default: ""}}
workspace: sync
tasks:
  - name: a
    action: core.shell
    delegate_to: web-1
    input:
      command: |
        echo $MUSTER_JOB >> {{ parameters.effects }}
        g={{ parameters.gate }}; while [ -n "$g" ] && [ ! -e "$g" ]; do sleep 0.02; done
        printf new > given; head -c 24000000 /dev/urandom > large; sha256sum < large
output_map: {said: "{{ task.a.result.stdout }}"}
"""


@pytest.fixture(autouse=True)
def _whole(files: Files) -> None:
    """Every test finds a fleet that is up."""
    for name in files.fleet.keeper.parts:
        files.fleet.keeper.bring_up(name)
    files.fleet.wait_ready()


@pytest.fixture
def large(files: Files, tmp_path: Path) -> tuple[str, str]:
    """A snapshot with a large file that no node has yet, and the sha256 of that."""
    place = write_tree(tmp_path / "in", {"given": "g"})
    content = os.urandom(SIZE)
    (place / "large").write_bytes(content)
    return files.upload(place), hashlib.sha256(content).hexdigest()


def size_of(*places: Path) -> Callable[[], int]:
    """The size of the largest file below."""
    return lambda: max(
        (path.stat().st_size for place in places for path in place.rglob("*") if path.is_file()), default=0
    )


def ran(files: Files, execution: str) -> int:
    return len(files.fleet.ran_tasks(execution))


def test_a_worker_is_killed_while_files_come(files: Files, large: tuple[str, str]) -> None:
    """The next one goes on where it stopped; its script starts once, when all is there."""
    fleet, wire = files.fleet, files.wire
    before = wire.down
    with wire.held("down", HELD_AT) as hold:
        execution = files.begin(COMES, large[0])
        assert hold.met.wait(PATIENCE), fleet.story(execution)
        came = size_of(fleet.directory / "nodes" / "web-1" / "workspaces")
        wait_until(lambda: came() > HELD_AT - SLACK / 2, came)
        fleet.kill("web-1")
    assert fleet.execution(execution).workspace == large[0]
    assert fleet.wait_for(execution).output["said"].startswith(large[1]), fleet.story(execution)
    assert SIZE < wire.down - before < SIZE + SLACK
    assert ran(files, execution) == 1
    assert sorted(files.now(execution).files) == ["given", "small"]
    files.wait_nothing_left()


def test_a_worker_is_killed_while_files_go(files: Files, tmp_path: Path) -> None:
    """The old state holds until all that is new has come; what had come does not travel again."""
    fleet, wire = files.fleet, files.wire
    start = files.upload(write_tree(tmp_path / "in", {"given": "g"}))
    before = wire.up
    with wire.held("up", HELD_AT) as hold:
        execution = files.begin(GOES, start)
        assert hold.met.wait(PATIENCE), fleet.story(execution)
        came = size_of(fleet.directory / "blobs" / "parts")
        wait_until(lambda: came() > HELD_AT - SLACK / 2, came)
        fleet.kill("web-1")
        assert fleet.execution(execution).workspace == start
    digest = fleet.wait_for(execution).output["said"].split()[0]
    assert files.now(execution).files["large"].sha256 == digest
    assert SIZE < wire.up - before < SIZE + SLACK
    assert ran(files, execution) == 1
    files.wait_nothing_left()


def test_a_script_ends_while_its_worker_is_down(files: Files, tmp_path: Path) -> None:
    """The next worker gives back what it left."""
    fleet, gate = files.fleet, tmp_path / "gate"
    execution = files.begin(GOES, files.upload(write_tree(tmp_path / "in", {"given": "g"})), gate=str(gate))
    job = fleet.job_is(execution, "a", "running").id
    fleet.keeper.take_down("web-1")
    gate.touch()
    wait_until(lambda: not list(processes_with(f"MUSTER_COOKIE={job}")), "the end of the script")
    fleet.keeper.bring_up("web-1")
    assert fleet.wait_for(execution).status == "completed", fleet.story(execution)
    assert sorted(files.now(execution).files) == ["given", "large"]
    assert ran(files, execution) == 1
    files.wait_nothing_left()


def test_the_api_is_away_when_files_go(files: Files, tmp_path: Path) -> None:
    fleet, wire, gate = files.fleet, files.wire, tmp_path / "gate"
    start = files.upload(write_tree(tmp_path / "in", {"given": "g"}))
    execution = files.begin(GOES, start, gate=str(gate))
    fleet.job_is(execution, "a", "running")
    fleet.keeper.take_down("api", signal.SIGTERM)
    refused = wire.refused
    gate.touch()
    wait_until(lambda: wire.refused > refused + 2, lambda: fleet.story(execution))
    assert (fleet.job(execution, "a").status, fleet.execution(execution).workspace) == ("running", start)
    fleet.keeper.bring_up("api")
    assert fleet.wait_for(execution).status == "completed", fleet.story(execution)
    assert sorted(files.now(execution).files) == ["given", "large"]
    assert ran(files, execution) == 1


@pytest.mark.parametrize("way", ["down", "up"])
def test_a_cancel_ends_a_transfer(files: Files, large: tuple[str, str], way: str) -> None:
    fleet, wire = files.fleet, files.wire
    with wire.held(way, HELD_AT) as hold:
        execution = files.begin(COMES if way == "down" else GOES, large[0])
        assert hold.met.wait(PATIENCE), fleet.story(execution)
        fleet.cancel(execution)
        assert fleet.wait_for(execution).status == "cancelled", fleet.story(execution)
        files.wait_nothing_left()
    assert ran(files, execution) == (way == "up")
    assert fleet.job(execution, "a").status == "cancelled"
    assert fleet.execution(execution).workspace == large[0]


def test_a_disk_that_takes_no_more_is_told(files: Files, large: tuple[str, str]) -> None:
    fleet = files.fleet
    resource.prlimit(fleet.keeper.parts["web-1"].pid, resource.RLIMIT_FSIZE, (SIZE // 2, SIZE // 2))
    try:
        execution = files.begin(COMES, large[0])
        assert fleet.wait_for(execution).status == "failed"
    finally:
        fleet.kill("web-1")
    error = fleet.job(execution, "a").error
    assert error["type"] == "workspace"
    assert error["message"].startswith("the disk of this node: File too large"), error
    assert (ran(files, execution), fleet.execution(execution).workspace) == (0, large[0])
    files.wait_nothing_left()


MANY = """
workspace: sync
tasks:
  - {name: l, action: core.shell, with_items: [web-1, web-2, web-1, web-2, web-1, web-2], concurrency: 3, on_success: s,
     delegate_to: "{{ item }}", input: {command: "printf {{ index }} > {{ 'f' ~ index }}"}}
  - {name: s, action: core.shell, delegate_to: web-2, input: {command: "cat f?"}}
output_map: {all: "{{ task.s.result.stdout }}"}
"""


def test_control_is_killed_while_files_come_together(files: Files) -> None:
    """What each job changed is merged once, whoever was killed in the middle of it."""
    fleet = files.fleet
    execution = files.begin(MANY)

    def over() -> int:
        return sum(job.status == "succeeded" for job in fleet.jobs(execution, "l"))

    for done in (1, 3, 5):
        wait_until(lambda done=done: over() >= done, lambda: fleet.story(execution))
        fleet.kill("control")
    assert fleet.wait_for(execution).output == {"all": "012345"}, fleet.story(execution)
    steps = files.api.get(f"/workflow-executions/{execution}/workspace").data["steps"]
    assert sorted(step["job"] for step in steps) == sorted(job.id for job in fleet.jobs(execution, "l"))
