"""The executor protocol of flows: the same cases by GNU Parallel, by asyncssh and by the `ssh` program."""

from __future__ import annotations

import json
import logging
import math
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from site_of_flows import WAYS, WORKFLOW, Site, programs
from sshd import Sshd
from waiting import PATIENCE, wait_until

from app.flows.model import Result, Watch

pytestmark = pytest.mark.parametrize(
    "way", [WAYS[0], *(pytest.param(way, marks=pytest.mark.long) for way in WAYS[1:])]
)


@pytest.fixture(autouse=True)
def _has_parallel(way: str, request: pytest.FixtureRequest) -> None:
    if way == "parallel":
        request.getfixturevalue("gnu_parallel_program")


def error(result: Result) -> dict[str, object]:
    assert result.error is not None
    return dict(result.error)


def test_flows_in_order_on_their_hosts_in_directories_of_their_own(
    way: str, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    flows = [site.flow(number, sleep=0.3 if number == 0 else 0) for number in range(4)]
    told: list[int] = []
    (site.workdir / "of somebody else").mkdir(parents=True)

    results = site.run(way, flows, Watch(tell=lambda flow, _: told.append(flow.number)))

    assert sorted(told) == [0, 1, 2, 3]
    said = "GNU Parallel" if way == "parallel" else "SSH"
    assert f"4 flows go by {said}: the workflow says so" in caplog.text
    assert "system Linux" in caplog.text
    states = [result.state or {} for result in results]
    assert [state["vars"]["n"] for state in states] == [0, 1, 2, 3]
    seen = [state["task"][f"t{number}"]["result"] for number, state in enumerate(states)]
    assert [one["address"] for one in seen] == [["127.0.0.2"], ["127.0.0.3"]] * 2
    assert len({one["cwd"] for one in seen}) == 4
    assert all(one["workflow"] == WORKFLOW for one in seen), "the whole text, never a part"
    words = seen[1]["words"]
    assert (words[0], Path(words[1]).name) == ("run", "workflow.yaml")
    assert words[2:6] == ["--entry-point", "t1", "--exit-point", "after"]
    assert (words[6], words[8]) == ("--input", "--output")
    assert site.left() == ["of somebody else"], "each removes what is its own, and nothing else"


def test_a_bad_flow_is_an_error_result_and_the_others_live(way: str, site: Site) -> None:
    flows = [
        site.flow(0, exit=3, say="it hurts"),
        site.flow(1, write="{nonsense"),
        site.flow(2, x=[{"y": math.nan}]),
        site.flow(3),
        site.flow(4, write=json.dumps({"status": "completed"})),
        site.flow(5, write="[" * 5000 + "]" * 5000),
        site.flow(6, write="x" * 200_000),
    ]
    executor = site.executor(way, most=100_000)
    results = executor.execute(flows, site.terms(), Watch())
    remote, garbage, not_json, good, headless, deep, large = results
    assert (error(remote)["type"], error(remote)["exit_code"]) == ("remote", 3)
    assert "it hurts" in str(error(remote)["stderr"])
    assert error(garbage)["type"] == error(headless)["type"] == error(deep)["type"] == "bad_result"
    assert error(not_json)["type"] == "not_json"
    assert "flow t2" in str(error(not_json)["message"])
    assert "parameters.x[0].y" in str(error(not_json)["message"])
    assert error(large) == {
        "type": "bad_result",
        "message": "the result of the flow has 200000 bytes, 100000 are allowed",
    }
    assert good.state is not None
    assert not site.left()


def test_its_time_is_over(way: str, site: Site) -> None:
    seconds = 4 if way == "parallel" else 1.5  # GNU Parallel counts the copying too
    late = site.run(way, [site.flow(0, sleep=120)], timeout=seconds)[0]
    assert error(late) == {"type": "timeout", "message": f"timed out after {seconds:g}s"}
    assert len(site.started()) == 1
    wait_until(lambda: not site.running(), "the tool is gone")
    assert not site.left()


def test_who_is_given_up_is_ended_there(way: str, site: Site) -> None:
    watch = Watch()
    flows = [site.flow(0, sleep=120, ignore=True), site.flow(1)]
    results: list[Result] = []
    thread = threading.Thread(target=lambda: results.extend(site.run(way, flows, watch)))
    thread.start()
    wait_until(lambda: len(site.started()) == 2, "both run")
    watch.given_up.update((0, 1))
    thread.join(PATIENCE)
    assert error(results[0])["type"] == "cancelled"
    assert not site.running()
    assert not site.left()


ALONE = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
from site_of_flows import Site
from sshd import Sshd
sshd = Sshd.__new__(Sshd)
sshd.__dict__.update(port={port}, addresses=("127.0.0.2",), user={user!r}, directory=Path({sshd!r}))
site = Site(Path({directory!r}), sshd)
site.run({way!r}, [site.flow(0, sleep=120)])
"""


def test_our_death_leaves_no_orphan(way: str, site: Site, tmp_path: Path) -> None:
    apart = tmp_path / "apart"
    apart.mkdir()
    text = ALONE.format(
        path=sys.path,
        port=site.sshd.port,
        user=site.sshd.user,
        sshd=str(site.sshd.directory),
        directory=str(apart),
        way=way,
    )
    process = subprocess.Popen([sys.executable, "-c", text])
    pids = apart / "pids"
    wait_until(lambda: pids.exists() and pids.read_text().strip(), "the tool runs")
    process.send_signal(signal.SIGKILL)
    process.wait()
    pid = int(pids.read_text())
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the tool is gone")


def test_what_is_to_stay_stays(way: str, site: Site) -> None:
    site.run(way, [site.flow(0)], cleanup=False)
    left = site.left()
    assert {Path(path).name for path in left} >= {"tool.pyz", "workflow.yaml"}
    assert all(Path(path).parts[0].startswith("01EXEC-t0-1") for path in left)
    assert (site.workdir / left[0]).stat().st_mode & 0o777 == 0o700


def test_a_cleanup_that_fails_is_told_and_changes_nothing(
    way: str, sshd_program: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = programs(tmp_path / "bin", rm='case "$*" in *01EXEC*) exit 1 ;; esac; exec /bin/rm "$@"')
    with Sshd(tmp_path, addresses=("127.0.0.2",), environment={"PATH": path}) as sshd:
        site = Site(tmp_path, sshd)
        (result,) = site.run(way, [site.flow(0)])
    assert result.state is not None
    assert "was not removed from" in caplog.text


def test_a_tool_that_is_a_program(way: str, site: Site) -> None:
    tool = site.tools / "tea"
    script = f"#!{sys.executable} -I\n" + (site.tools / "tool.pyz").read_text()
    tool.write_text(script)
    (result,) = site.run(way, [site.flow(0)], basefile="tea")
    assert result.state is not None, result.error


def test_no_tool(way: str, site: Site) -> None:
    (result,) = site.run(way, [site.flow(0)], basefile="muster.pyz")
    assert error(result)["type"] == "no_basefile"
    assert "make pyz" in str(error(result)["hint"])
    assert not site.started()
