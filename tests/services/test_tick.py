"""Time passes for every execution, whatever has become of the rows of one."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from desk import BOTH, Office, Step, jobs, office_on, tasks
from sqlalchemy import event, insert, update

from app.services import cancel, collect, hold, lost, tick, tick_looks
from app.services.run import Run
from app.store.tables import Node, Timer, table

timers = table(Timer)

NAP = """
tasks:
  - {name: nap, action: core.sleep, input: {seconds: 5}}
"""
RUNS = """
tasks:
  - {name: a, action: core.shell, delegate_to: web-1, input: {command: ['true']}}
"""


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    made = Office(tmp_path, ["web-1"])
    yield made
    made.store.close()


def test_an_execution_that_cannot_go_on_stops_time_for_no_other(
    office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    broken, sound, silent = office.submit(NAP), office.submit(NAP), office.submit(RUNS)
    with office.store.write() as connection:
        connection.execute(
            insert(timers).values(
                execution=broken, task="gone", unit=0, kind="delay", due_at=office.clock.now
            )
        )
        connection.execute(update(jobs).where(jobs.c.execution == silent).values(status="running"))
    office.clock.now += 60
    assert tick.tick(office.desk, "control-1")
    assert office.statuses(tasks, sound) == {"nap": "succeeded"}
    assert office.execution(sound).status == "completed"
    # A later part of the tick: its node is away for long enough.
    assert office.job(f"{silent}.a.0.1").status == "suspect"
    assert broken in caplog.text
    assert office.execution(broken).status not in ("completed", "failed")


def test_a_second_worker_does_not_tick(office: Office) -> None:
    assert tick.tick(office.desk, "control-1")
    assert not tick.tick(office.desk, "control-2")


@pytest.fixture(params=BOTH)
def small(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Office]:
    """Its node has one slot, and so room for two orders."""
    with office_on(request.param, tmp_path, ["web-1"], slots=1) as made:
        yield made


def time_passes(office: Office, seconds: float, *, online: bool = True) -> None:
    """So many seconds, with a tick in each few of them."""
    end = office.clock.now + seconds
    while office.clock.now < end:
        office.clock.now = min(end, office.clock.now + 9)
        if online:
            office.hear("web-1", last_seen=office.clock.now)
        assert tick.tick(office.desk, "here")


SOON = RUNS.replace("input:", "queue_timeout: 60, input:")


def test_a_job_whose_node_goes_while_it_waits_for_room_is_given_up(small: Office) -> None:
    for _ in range(2):
        small.submit(RUNS)
    third = small.submit(SOON)
    time_passes(small, 120)
    assert small.statuses(jobs, third) == {"a.0": "queued"}
    time_passes(small, 120, online=False)
    job = small.job(f"{third}.a.0.1")
    assert job.status == "failed"
    assert job.error == {
        "type": "node_offline",
        "message": "node web-1 was offline for as long as queue_timeout allows",
    }


def test_the_time_that_a_job_may_wait_ends_with_the_nodes_return(small: Office) -> None:
    small.hear("web-1", last_seen=None)
    waits = small.submit(SOON)
    time_passes(small, 45, online=False)
    assert small.job(f"{waits}.a.0.1").give_up_at is not None
    small.hear("web-1", last_seen=small.clock.now, slots=0)
    time_passes(small, 600)
    assert small.statuses(jobs, waits) == {"a.0": "queued"}
    assert small.statuses(tasks, waits) == {"a": "running"}
    small.hear("web-1", slots=1)
    time_passes(small, 9)
    assert small.statuses(jobs, waits) == {"a.0": "dispatched"}


def test_of_many_that_waited_for_a_node_none_is_given_up_once_it_is_back(
    small: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tick notes the return of some jobs at a time; the others wait no longer either."""
    monkeypatch.setattr(tick_looks.HELD_UP, "most", 3)
    small.hear("web-1", last_seen=None)
    waiting = [small.submit(SOON) for _ in range(10)]
    small.clock.now += 55
    small.hear("web-1", last_seen=small.clock.now, slots=0)
    small.clock.now += 6
    small.hear("web-1", last_seen=small.clock.now)
    assert tick.tick(small.desk, "here")
    assert [small.statuses(jobs, one) for one in waiting] == [{"a.0": "queued"}] * 10


def test_a_node_that_comes_back_while_its_jobs_are_lost_keeps_the_others(
    small: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = [small.submit(RUNS) for _ in range(2)]
    small.clock.now += small.control.settings.lost_after + 60
    lose = lost.lose

    def and_is_heard(run: Run, job: str) -> None:
        lose(run, job)
        seen = update(Node).values(last_seen=small.clock.now)
        run.connection.execute(seen)

    monkeypatch.setattr(lost, "lose", and_is_heard)
    assert tick.tick(small.desk, "here")
    assert sorted(small.statuses(jobs, one)["a.0"] for one in both) == ["dispatched", "unknown"]


def test_a_drained_node_is_not_called_offline(small: Office) -> None:
    small.hear("web-1", state="draining")
    waits = small.submit(SOON)
    time_passes(small, 90)
    message = "node web-1 was draining for as long as queue_timeout allows"
    assert small.job(f"{waits}.a.0.1").error == {"type": "node_offline", "message": message}


def test_a_paused_execution_is_not_settled_in_each_tick(small: Office) -> None:
    for _ in range(2):
        small.submit(RUNS)
    third = small.submit(SOON)
    hold.pause(small.control, third, "ada")
    time_passes(small, 300, online=False)
    assert small.statuses(jobs, third) == {"a.0": "queued"}
    hold.resume(small.control, third, "ada")
    time_passes(small, 90, online=False)
    assert small.statuses(jobs, third) == {"a.0": "failed"}


DEADLINE = RUNS.replace("input:", "timeout: 20, idempotent: true, retry: {count: 1}, input:")


def running(office: Office) -> str:
    """An execution whose job runs, with a timeout, on a node that is well."""
    assert tick.tick(office.desk, "here")
    execution = office.submit(DEADLINE)
    with office.store.write() as connection:
        columns = {"status": "running", "backstop_at": office.clock.now + 60}
        connection.execute(update(jobs).where(jobs.c.execution == execution).values(columns))
    return execution


def test_what_came_while_nobody_listened_is_heard_before_anything_is_given_up(small: Office) -> None:
    execution = running(small)
    member, order = small.sent[0]
    answer = small.answer("web-1", order, "succeeded")
    # No control worker for an hour. What the node said in the meantime waits in the queues.
    small.clock.now += 3600
    assert tick.tick(small.desk, "here")
    assert small.statuses(jobs, execution) == {"a.0": "running"}
    small.hear_of(Step(member, 0, order), answer)
    assert small.execution(execution).status == "completed"


BLOCK = """
tasks:
  - name: both
    type: parallel
    timeout: 20
    tasks:
      - {name: a, action: core.shell, delegate_to: web-1, input: {command: ['true']}}
"""


@pytest.mark.parametrize("answers", [True, False])
def test_a_blocks_timeout_waits_for_what_was_said_meanwhile(small: Office, answers: bool) -> None:
    assert tick.tick(small.desk, "here")
    nap = small.submit(NAP)
    execution = small.submit(BLOCK)
    with small.store.write() as connection:
        connection.execute(update(jobs).where(jobs.c.execution == execution).values(status="running"))
    member, order = small.sent[0]
    answer = small.answer("web-1", order, "succeeded")
    small.clock.now += 3600
    assert tick.tick(small.desk, "here")
    assert small.job(f"{execution}.a.0.1").stop_asked_at is None
    assert small.execution(nap).status == "completed", "what hangs on no node goes on at once"
    if answers:
        small.hear_of(Step(member, 0, order), answer)
        assert small.execution(execution).status == "completed"
    else:
        time_passes(small, 36)
        assert small.job(f"{execution}.a.0.1").stop_asked_at is not None


def test_a_timeout_that_comes_in_time_waits_for_nothing(small: Office) -> None:
    assert tick.tick(small.desk, "here")
    execution = small.submit(BLOCK)
    time_passes(small, 27)
    assert small.job(f"{execution}.a.0.1").stop_asked_at is not None


@pytest.mark.parametrize("asked", [False, True])
def test_a_node_that_stays_silent_is_given_up_later(small: Office, asked: bool) -> None:
    execution = running(small)
    small.clock.now += 3600
    if asked:
        cancel.cancel(small.control, execution, "ada")
        collect.settle(small.desk, execution)
    time_passes(small, 25, online=False)
    assert small.statuses(jobs, execution) == {"a.0": "running"}
    time_passes(small, 36, online=False)
    ended = small.job(f"{execution}.a.0.1")
    assert ended.status == ("cancelled" if asked else "failed")


SMALL = {"installation", "audit_chain", "schedules", "nodes"}
"""Tables that may be read from end to end: they do not grow with what was ever done."""


def test_what_a_tick_looks_for_begins_with_what_is_open(office: Office) -> None:
    """Every table of what was done is entered by an index, in every statement: the tick comes every second."""
    said: list[str] = []

    @event.listens_for(office.store.engine, "checkout")
    def _checked_out(connection: Any, *_: Any) -> None:
        connection.set_trace_callback(said.append)

    # The first looks at everything, as it does once an hour. What is open is looked for over connections that are kept.
    assert tick.tick(office.desk, "control-1")
    office.store.close()
    said.clear()
    office.clock.now += 1
    assert tick.tick(office.desk, "control-1")
    asked = {one for one in said if one.startswith("SELECT")}
    with closing(sqlite3.connect(office.store.url.database or "")) as database:
        plans = {one: database.execute(f"EXPLAIN QUERY PLAN {one}").fetchall() for one in asked}
    assert sum("FROM jobs" in one for one in asked) >= 15, "the parts that follow from silence too"
    read_whole = {
        (one, step)
        for one, steps in plans.items()
        for *_, step in steps
        if step.startswith("SCAN") and step.split()[1] not in SMALL and "ix_outputs_unverified" not in step
    }
    assert read_whole == set()
