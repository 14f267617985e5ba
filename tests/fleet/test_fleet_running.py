"""Output, cancels and queues of a running fleet: what takes more than a workflow and its end to see."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fleet import Fleet
from fleet_items import monitored, shell
from fleet_processes import BIN, ROOT, processes_with
from rabbit import redis_broker_only
from waiting import wait_until

from app.errors import Conflict

pytestmark = pytest.mark.fleet

LIMIT = 1_048_576


def stored(fleet: Fleet, execution: str) -> dict[str, Any]:
    """What is kept of the output of task `a`, once it is complete and fits its signed digest."""
    job = fleet.job(execution, "a").id

    def complete() -> dict[str, Any] | None:
        found = fleet.outputs(job)
        return found if found and all(row.verified for row in found.values()) else None

    found = wait_until(complete, lambda: f"{fleet.outputs(job).keys()} {fleet.story(execution)}")
    assert found is not None
    return found


def test_large_output_is_stored_whole_and_fits_its_signed_digest(fleet: Fleet) -> None:
    produce = "head -c 900000 /dev/zero | tr '\\0' x; echo end; head -c 300000 /dev/zero | tr '\\0' e >&2"
    execution = fleet.submit(shell(produce))
    assert fleet.wait_for(execution).status == "completed"
    found = stored(fleet, execution)
    assert bytes(found["stdout"].content) == b"x" * 900_000 + b"end\n"
    assert bytes(found["stderr"].content) == b"e" * 300_000
    assert [row.truncated for row in found.values()] == [False, False]
    result = fleet.tasks(execution)["a"].result
    assert result["stdout"].startswith("x" * 8192)
    assert "bytes more in the stored output" in result["stdout"]
    assert result["stdout"].endswith("xend")


def test_three_megabytes_are_cut_in_the_middle_and_marked(fleet: Fleet) -> None:
    produce = "echo begin; head -c 3000000 /dev/zero | tr '\\0' y; echo; echo end"
    execution = fleet.submit(shell(produce))
    assert fleet.wait_for(execution).status == "completed"
    row = stored(fleet, execution)["stdout"]
    content = bytes(row.content)
    assert row.bytes == 3_000_000 + len("begin\n\nend\n")
    assert (row.truncated, row.kept) == (True, LIMIT)
    assert hashlib.sha256(content).hexdigest() == row.sha256
    assert content.startswith(b"begin\nyyy")
    assert content.endswith(b"yyy\nend\n")
    assert fleet.tasks(execution)["a"].result["truncated"] is True


def test_binary_output_keeps_every_byte(fleet: Fleet) -> None:
    execution = fleet.submit(shell("printf '\\0\\377\\376text\\200\\n\\n'"))
    assert fleet.wait_for(execution).status == "completed"
    assert bytes(stored(fleet, execution)["stdout"].content) == b"\0\xff\xfetext\x80\n\n"
    assert fleet.tasks(execution)["a"].result["stdout"] == "\\x00\\xff\\xfetext\\x80"


HOLD = """\
echo $MUSTER_JOB >> {{ parameters.effects }}
trap '' TERM
setsid sh -c 'trap "" TERM; while :; do sleep 0.1; done' &
n=0
while [ $n -lt 600 ]; do sleep 0.1; n=$((n + 1)); done
"""


@pytest.fixture
def ended(fleet: Fleet) -> Iterator[list[str]]:
    """Executions that a test leaves behind are cancelled: the fleet is everybody's."""
    ids: list[str] = []
    yield ids
    for execution in ids:
        with suppress(Conflict):
            fleet.cancel(execution, forced=True)
    fleet.wait_all(ids)


def test_a_cancel_ends_what_ignores_it_while_the_pool_is_full(fleet: Fleet, ended: list[str]) -> None:
    """Four scripts fill the slots of the node; each ignores TERM and has a child that left its session."""
    ended += (running := [fleet.submit(shell(HOLD)) for _ in range(4)])
    jobs = [fleet.job_is(execution, "a", "running").id for execution in running]
    ended += (
        waiting := [fleet.submit(shell("echo $MUSTER_JOB >> {{ parameters.effects }}")) for _ in range(10)]
    )

    def states() -> list[str]:
        return sorted(job.status for execution in waiting for job in fleet.jobs(execution))

    # 2 x slots may be outstanding on a node; the rest are rows.
    wait_until(lambda: states() == ["dispatched"] * 4 + ["queued"] * 6, states)
    fleet.cancel(waiting[0])
    for execution in running[1:]:
        fleet.cancel(execution)
    for execution in running[1:]:
        assert fleet.wait_for(execution).status == "cancelled"
    fleet.cancel(running[0])
    assert fleet.wait_for(running[0]).status == "cancelled"
    assert fleet.wait_for(waiting[0]).status == "cancelled"
    assert set(fleet.wait_all(waiting[1:]).values()) == {"completed"}
    for job in jobs:
        assert list(processes_with(f"MUSTER_COOKIE={job}")) == []
    counted = fleet.ran()
    assert [counted[fleet.job(execution, "a").id] for execution in waiting] == [0] + [1] * 9


def test_finally_runs_after_a_cancel_and_not_after_a_forced_one(fleet: Fleet, ended: list[str]) -> None:
    text = shell("echo $MUSTER_JOB >> {{ parameters.effects }}; sleep 30", on_complete="b") + (
        "  - {name: b, action: core.noop}\n"
        "finally:\n"
        "  - name: f\n    action: core.shell\n    delegate_to: web-2\n    input: {command: "
        "'echo $MUSTER_JOB >> {{ parameters.effects }}; while [ ! -e {{ parameters.gate }} ]; do sleep 0.05; done'}\n"
        "  - {name: g, action: core.shell, input: {command: 'echo $MUSTER_JOB >> {{ parameters.effects }}'}}\n"
    )
    gate = fleet.directory / "gate-finally"
    first, second = (fleet.submit(text, gate=str(gate)) for _ in range(2))
    ended += (first, second)
    for execution in (first, second):
        fleet.job_is(execution, "a", "running")
        assert fleet.cancel(execution) == "cancelling"
        fleet.job_is(execution, "f", "running")
    fleet.cancel(second, forced=True)
    assert fleet.wait_for(second).status == "cancelled"
    gate.touch()
    assert fleet.wait_for(first).status == "cancelled"
    assert fleet.ran_tasks(first) == ["a", "f", "g"]
    assert fleet.ran_tasks(second) == ["a", "f"]
    statuses = {name: task.status for name, task in fleet.tasks(second).items()}
    assert statuses == {"a": "cancelled", "b": "not_reached", "f": "cancelled", "g": "not_reached"}


@redis_broker_only("what is seen are commands of Redis; on RabbitMQ the rights of users forbid the same")
def test_a_job_for_one_node_is_never_touched_by_another(fleet: Fleet) -> None:
    text = (
        "parameters: {effects: {type: string, required: true}}\ntasks:\n"
        "  - {name: a, action: core.shell, delegate_to: web-1, on_success: b, input: {command: 'echo secret-one'}}\n"
        "  - {name: b, action: core.shell, delegate_to: web-1, on_success: f, input: {command: 'echo two'}}\n"
        "  - {name: f, type: distributed_shell, input: {nodes: [web-1, web-3], command: 'echo three'}}\n"
    )
    with monitored(fleet) as seen:
        execution = fleet.submit(text)
        assert fleet.wait_for(execution).status == "completed"
        fleet.cancel(second := fleet.submit(shell("sleep 30")))
        fleet.wait_for(second)
        names = {row["addr"]: row["name"] for row in fleet.broker.client.client_list()}
    touched: dict[str, set[str]] = {}
    for address, command in seen:
        who = names.get(address, "")
        found = re.search(r"muster:(?:node|control|sender):([a-z0-9-]+)", who)
        for key in re.findall(
            r"node\.[a-z0-9-]+(?:\.ctl)?", command.split(" ", 2)[1] if " " in command else ""
        ):
            touched.setdefault(found[1] if found else who or "unnamed", set()).add(key)
        if command.startswith("BRPOP"):
            assert found, command
            mine = found[1].removeprefix("node-")
            queues = set(command.split()[1:-1])
            assert queues <= {f"node.{mine}", f"node.{mine}.ctl"} or mine == "control", command
    assert touched.get("node-web-1", set()) <= {"node.web-1", "node.web-1.ctl"}
    assert "node.web-1" in touched["node-web-1"]
    for other in ("node-web-2", "node-local", "node-web-3"):
        assert not {key for key in touched.get(other, ()) if key.startswith("node.web-1")}, touched
    # And nothing of the job stands in Redis in clear, but for the live output.
    assert not [
        command for _, command in seen if "secret-one" in command and "muster:log:web-1:" not in command
    ]


def test_celery_report_works_as_typed(fleet: Fleet) -> None:
    known = fleet.environment(MUSTER_NODE="web-1")
    command = [str(BIN / "celery"), "-A", "workers.node", "report"]
    done = subprocess.run(
        command, env=known, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "software -> celery:5.7" in done.stdout
    assert "node.web-1" in done.stdout


def test_runners_outlive_nothing_that_they_should_not(fleet: Fleet) -> None:
    """One runner a node, and no process of a job that is over."""
    for name in fleet.names:
        os.kill(fleet.runner_pid(name), 0)
    left = [pid for pid in processes_with(f"MUSTER_INPUT={fleet.directory}") if Path(f"/proc/{pid}").exists()]
    assert left == []


def test_a_worker_keeps_nothing_open_of_jobs_that_are_over(fleet: Fleet) -> None:
    """A file for each job would end a node after a thousand of them."""
    for _ in range(3):
        assert fleet.wait_for(fleet.submit(shell("echo out; echo err >&2"))).status == "completed"
    pids = [fleet.keeper.parts[name].pid for name in fleet.names]

    def held() -> list[str]:
        links = [link for pid in pids for link in Path(f"/proc/{pid}/fd").iterdir()]
        return [target for link in links if "/jobs/" in (target := _target(link))]

    wait_until(lambda: not held(), held)


def _target(link: Path) -> str:
    try:
        return os.readlink(link)
    except FileNotFoundError:  # closed meanwhile
        return ""
