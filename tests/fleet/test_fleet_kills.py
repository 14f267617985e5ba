"""Processes are killed in the middle of things: every execution ends or says `unknown`, no job runs twice."""

from __future__ import annotations

import os
import signal
from collections import Counter

import pytest
from fleet import Fleet
from fleet_items import shell
from fleet_mixed import JOBS, MIXED, all_ran_once, until_ran
from fleet_processes import after, processes_with
from fleet_proxy import Proxy
from fleet_queues import purge
from rabbit import redis_broker_only
from waiting import wait_until

from app.services.resolve import resolve

pytestmark = pytest.mark.fleet

GATED = """\
echo $MUSTER_JOB >> {{ parameters.effects }}
n=0
while [ ! -e {{ parameters.gate }} ] && [ $n -lt 1200 ]; do sleep 0.05; n=$((n + 1)); done
echo through
"""


@pytest.fixture(autouse=True)
def _whole(rough: Fleet) -> None:
    """Every test finds a fleet that is up."""
    for name in rough.keeper.parts:
        rough.keeper.bring_up(name)
    rough.wait_ready()


def test_control_is_killed_in_mid_flight(rough: Fleet) -> None:
    ids = [rough.submit(MIXED) for _ in range(8)]
    for done in (5, 25, 45):
        until_ran(rough, ids, done)
        rough.kill("control")
    assert Counter(rough.wait_all(ids).values()) == {"completed": 8}
    all_ran_once(rough, ids)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_node_worker_ends_in_mid_script_and_the_script_goes_on(rough: Fleet, number: int) -> None:
    gate = rough.directory / f"gate-node-{number}"
    execution = rough.submit(shell(GATED), gate=str(gate))
    job = rough.job_is(execution, "a", "running").id
    before = list(processes_with(f"MUSTER_COOKIE={job}"))
    rough.keeper.take_down("web-1", number)
    assert before[0] in list(processes_with(f"MUSTER_COOKIE={job}"))
    rough.keeper.bring_up("web-1")
    rough.wait_ready()
    # Its worker may have been away for long enough to be doubted.
    rough.job_is(execution, "a", "running")
    gate.touch()
    assert rough.wait_for(execution).status == "completed"
    assert rough.tasks(execution)["a"].result["stdout"] == "through"
    all_ran_once(rough, [execution], 1)


def test_a_script_that_ends_while_its_worker_is_down(rough: Fleet) -> None:
    gate = rough.directory / "gate-ended"
    execution = rough.submit(shell(GATED), gate=str(gate))
    job = rough.job_is(execution, "a", "running").id
    rough.keeper.take_down("web-1")
    gate.touch()
    wait_until(lambda: not list(processes_with(f"MUSTER_COOKIE={job}")), "the end of the script")
    rough.keeper.bring_up("web-1")
    assert rough.wait_for(execution).status == "completed"
    all_ran_once(rough, [execution], 1)


@pytest.mark.parametrize(
    ("outcome", "status", "ran"),
    [
        ("succeeded", "completed", 1),
        pytest.param("failed", "failed", 1, marks=pytest.mark.long),
        ("again", "completed", 2),
    ],
)
def test_a_runner_is_killed_and_a_person_decides(rough: Fleet, outcome: str, status: str, ran: int) -> None:
    """Nobody can know what the script had done by then, so nothing is started again by itself."""
    gate = rough.directory / f"gate-runner-{outcome}"
    execution = rough.submit(shell(GATED), gate=str(gate))
    job = rough.job_is(execution, "a", "running").id
    rough.kill_runner("web-1")
    row = rough.job_is(execution, "a", "unknown")
    assert rough.execution(execution).status == "waiting"
    task = rough.tasks(execution)["a"]
    assert (task.status, task.wait_reason) == ("waiting", "unknown")
    wait_until(lambda: not list(processes_with(f"MUSTER_COOKIE={job}")), "the end of the orphan")
    gate.touch()
    resolve(rough.control, execution, "a", row.unit, outcome, "I looked", "ada")
    assert rough.wait_for(execution).status == status, rough.story(execution)
    all_ran_once(rough, [execution], ran)


def test_worker_and_runner_are_killed_together(rough: Fleet) -> None:
    """As when a machine loses power: idempotent work is tried again, other work is unknown."""
    gate = rough.directory / "gate-both"
    wait, again = (
        rough.submit(shell(GATED, **more), gate=str(gate))
        for more in ({}, {"idempotent": "true", "retry": "{count: 2, delay: 0.1}"})
    )
    for execution in (wait, again):
        rough.job_is(execution, "a", "running")
    rough.keeper.take_down("web-1")
    rough.kill_runner("web-1")
    gate.touch()
    rough.keeper.bring_up("web-1")
    rough.job_is(wait, "a", "unknown")
    assert rough.tasks(wait)["a"].wait_reason == "unknown"
    resolve(rough.control, wait, "a", 0, "failed", "power cut", "ada")
    assert rough.wait_for(wait).status == "failed"
    assert rough.wait_for(again).status == "completed", rough.story(again)
    all_ran_once(rough, [wait], 1)
    all_ran_once(rough, [again], 2)


@pytest.mark.long
def test_redis_is_killed_and_comes_back_with_its_log(rough: Fleet) -> None:
    ids = [rough.submit(MIXED) for _ in range(6)]
    for done in (6, 30):
        until_ran(rough, ids, done)
        rough.kill("redis")
        wait_until(rough.broker.answers, "Redis")
    assert Counter(rough.wait_all(ids).values()) == {"completed": 6}
    all_ran_once(rough, ids)


def test_everything_in_redis_is_wiped_under_twenty_executions(rough: Fleet) -> None:
    ids = [rough.submit(MIXED) for _ in range(20)]
    for done in (15, 60, 110):
        until_ran(rough, ids, done)
        rough.broker.client.flushall()
    assert Counter(rough.wait_all(ids).values()) == {"completed": 20}
    all_ran_once(rough, ids)


@pytest.mark.long
def test_redis_stands_still_and_then_is_full(rough: Fleet) -> None:
    """No answer for some seconds, then an error to every write: all waits as rows and in journals."""
    client = rough.broker.client
    ids = [rough.submit(MIXED) for _ in range(4)]
    until_ran(rough, ids, 4)
    rough.keeper.send("redis", signal.SIGSTOP)
    ids += [rough.submit_quietly(MIXED) for _ in range(2)]
    wait_until(after(3.0))
    rough.keeper.send("redis", signal.SIGCONT)
    until_ran(rough, ids, 12)
    client.config_set("maxmemory", "1")
    ids += [rough.submit_quietly(MIXED) for _ in range(2)]
    wait_until(after(3.0))
    client.config_set("maxmemory", "0")
    assert Counter(rough.wait_all(ids).values()) == {"completed": 8}
    all_ran_once(rough, ids)


@pytest.mark.long
def test_a_node_is_gone_for_longer_than_lost_after(rough: Fleet) -> None:
    """Its jobs are unknown; when it is back with the truth, that counts, and what was idempotent ran again."""
    gate = rough.directory / "gate-gone"
    held = rough.submit(shell(GATED, "web-2"), gate=str(gate))
    ended = rough.submit(shell(GATED, "web-2"), gate=str(gate))
    again = rough.submit(
        shell(GATED, "web-2", idempotent="true", retry="{count: 1, delay: 0}"), gate=str(gate)
    )
    for execution in (held, ended, again):
        rough.job_is(execution, "a", "running")
    rough.keeper.take_down("web-2")
    for execution in (held, ended):
        rough.job_is(execution, "a", "unknown")
        assert rough.execution(execution).status == "waiting"
    wait_until(lambda: rough.job(again, "a").attempt == 2, lambda: rough.story(again))
    assert rough.jobs(again)[0].error["type"] == "lost"
    rough.keeper.bring_up("web-2")
    wait_until(lambda: rough.execution(held).status == "running", lambda: rough.story(held))
    task = rough.tasks(held)["a"]
    assert (task.status, task.wait_reason, rough.job(held, "a").status) == ("running", "", "running")
    gate.touch()
    for execution in (held, ended, again):
        assert rough.wait_for(execution).status == "completed", rough.story(execution)
    all_ran_once(rough, [held, ended], 1)
    all_ran_once(rough, [again], 2)


@pytest.mark.long
def test_one_of_two_control_workers_is_gone_for_good(rough: Fleet) -> None:
    """What it had taken and not acknowledged lies under its name; the rows do without."""
    rough.second_control()
    try:
        ids = [rough.submit(MIXED) for _ in range(6)]
        until_ran(rough, ids, 10)
        rough.keeper.take_down("control")
        assert Counter(rough.wait_all(ids).values()) == {"completed": 6}
        all_ran_once(rough, ids)
    finally:
        rough.keeper.bring_up("control")
        rough.keeper.take_down("control-2")
        del rough.keeper.parts["control-2"]


@pytest.mark.long
def test_a_node_stands_still_and_goes_on(rough: Fleet) -> None:
    """SIGSTOP for longer than `offline_after`: suspect, then the truth; nothing is started anew elsewhere."""
    gate = rough.directory / "gate-still"
    held = rough.submit(shell(GATED, "web-2"), gate=str(gate))
    rough.job_is(held, "a", "running")
    rough.keeper.send("web-2", signal.SIGSTOP)
    late = rough.submit(MIXED)
    rough.job_is(held, "a", "suspect")
    gate.touch()
    rough.keeper.send("web-2", signal.SIGCONT)
    assert rough.wait_for(held).status == "completed"
    assert rough.wait_for(late).status == "completed"
    all_ran_once(rough, [held], 1)
    all_ran_once(rough, [late])


@pytest.mark.long
def test_a_node_that_is_away_gets_its_work_when_it_is_back(rough: Fleet) -> None:
    rough.keeper.take_down("web-3")
    ids = [rough.submit(MIXED) for _ in range(3)]
    wait_until(
        lambda: all(rough.tasks(one)["f"].status == "running" for one in ids), lambda: rough.story(ids[0])
    )
    single = rough.submit(shell("echo $MUSTER_JOB >> {{ parameters.effects }}", "web-3"))
    wait_until(lambda: "web-3" in rough.offline(), "web-3 is offline")
    queued = rough.submit(shell("echo $MUSTER_JOB >> {{ parameters.effects }}", "web-3"))
    wait_until(lambda: rough.tasks(queued)["a"].wait_reason == "node", lambda: rough.story(queued))
    assert rough.job(queued, "a").status == "queued"
    assert rough.execution(queued).status == "waiting"
    rough.keeper.bring_up("web-3")
    assert set(rough.wait_all([*ids, single, queued]).values()) == {"completed"}
    all_ran_once(rough, ids)
    all_ran_once(rough, [single, queued], 1)


def test_a_cancel_of_a_job_whose_order_was_lost(rough: Fleet) -> None:
    """The node never saw the job and never will: the cancel has to end all the same."""
    rough.keeper.take_down("web-3")
    lost = rough.submit(shell("echo $MUSTER_JOB >> {{ parameters.effects }}", "web-3"))
    wait_until(lambda: purge(rough, "node.web-3"), lambda: rough.story(lost))
    rough.cancel(lost)
    rough.keeper.bring_up("web-3")
    assert rough.wait_for(lost).status == "cancelled"
    assert rough.ran_tasks(lost) == []


def test_a_cancel_while_its_node_is_away(rough: Fleet) -> None:
    """The script goes on behind a dead worker; the worker ends it when it is back."""
    execution = rough.submit(shell(GATED, "web-3"))
    job = rough.job_is(execution, "a", "running").id
    rough.keeper.take_down("web-3")
    rough.cancel(execution)
    assert list(processes_with(f"MUSTER_COOKIE={job}"))
    rough.keeper.bring_up("web-3")
    assert rough.wait_for(execution).status == "cancelled"
    wait_until(lambda: not list(processes_with(f"MUSTER_COOKIE={job}")), "the end of the script")
    assert rough.job(execution, "a").effect_unknown is False


def test_a_lost_journal_is_a_new_epoch_and_unknown_jobs(rough: Fleet) -> None:
    gate = rough.directory / "gate-journal"
    execution = rough.submit(shell(GATED, "web-3"), gate=str(gate))
    rough.job_is(execution, "a", "running")
    rough.keeper.take_down("web-3")
    for path in (rough.directory / "nodes" / "web-3").glob("journal.db*"):
        os.unlink(path)
    rough.keeper.bring_up("web-3")
    rough.job_is(execution, "a", "unknown")
    gate.touch()
    resolve(rough.control, execution, "a", 0, "succeeded", "it said through", "ada")
    assert rough.wait_for(execution).status == "completed"
    after = rough.submit(shell("echo $MUSTER_JOB >> {{ parameters.effects }}", "web-3"))
    assert rough.wait_for(after).status == "completed"
    all_ran_once(rough, [execution, after], 1)


@redis_broker_only("the copies are made between the workers and Redis, of its commands")
@pytest.mark.long
def test_every_order_and_every_outcome_comes_three_times() -> None:
    made: list[Proxy] = []
    fleet = Fleet()

    def between(directory: object) -> str:
        path = fleet.directory / "p.sock"
        chosen = ("results", *(f"node.{name}" for name in fleet.names))
        made.append(Proxy(path, fleet.broker.socket, fleet.broker.client, lambda key: key in chosen))
        return f"redis+socket://{path}"

    fleet.redis_url = between
    try:
        with fleet:
            ids = [fleet.submit(MIXED) for _ in range(6)]
            assert Counter(fleet.wait_all(ids).values()) == {"completed": 6}
            client = fleet.broker.client
            wait_until(lambda: not client.llen("results"), "the last copies")
            all_ran_once(fleet, ids)
            assert made[0].copies > 2 * 2 * 6 * JOBS
            refused = [row.reason for row in fleet.letters()]
            assert set(refused) <= {"other-canvas"}, refused
    finally:
        for proxy in made:
            proxy.close()
