"""What an outcome does to the rows, and in how many statements: each row is written once, or is not touched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from desk import Office, jobs, tasks
from sqlalchemy import select

from app.services import collect
from app.store.tables import Event, table

LINE = """
tasks:
  - {name: a, action: core.shell, delegate_to: web-1, input: {command: ['true']}, on_success: b}
  - {name: b, action: core.shell, delegate_to: web-2, input: {command: ['true']}, on_success: c}
  - {name: c, action: core.shell, delegate_to: web-1, input: {command: ['true']}}
"""
BLOCK = """
tasks:
  - name: all
    type: parallel
    on_success: z
    tasks:
      - {name: a, action: core.shell, delegate_to: web-1, input: {command: ['true']}}
      - {name: b, action: core.echo, delegate_to: web-2, input: {message: hello}}
  - {name: z, action: core.shell, delegate_to: web-1, input: {command: ['true']}}
"""
RETRIED = """
tasks:
  - {name: a, action: core.shell, delegate_to: web-1, input: {command: ['false']}, retry: {count: 1, delay: 0}}
"""
UNTELLABLE_AT_ONCE = """
parameters: {big: {type: string, required: true}}
tasks:
  - name: a
    action: core.shell
    delegate_to: web-1
    input: {command: ['true'], env: {ONE: "{{ parameters.big }}", TWO: "{{ parameters.big }}"}}
"""

UNTELLABLE = """
parameters: {big: {type: string, required: true}}
tasks:
  - {name: a, action: core.shell, delegate_to: web-1, input: {command: ['true']}, on_success: b}
  - {name: b, action: core.shell, delegate_to: web-2, input: {command: ['true'], env: {BIG: "{{ parameters.big }}"}}}
"""
FANOUT = """
tasks:
  - {name: f, type: distributed_shell, input: {nodes: [web-1, web-2], command: ['true'], batch: 1}}
"""


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    made = Office(tmp_path, ["web-1", "web-2"])
    yield made
    made.store.close()


def test_a_step_of_a_line_writes_each_row_once(office: Office) -> None:
    execution = office.submit(LINE)
    (first,) = office.sent
    with office.statements() as said:
        second = office.take_in(first)
    assert said == {
        "SELECT jobs": 1,
        "UPDATE jobs SET": 1,
        "SELECT tasks": 1,
        "SELECT nodes": 1,
        "UPDATE tasks SET": 2,
        "INSERT INTO jobs": 1,
        "INSERT INTO events": 1,
        "UPDATE executions SET": 1,
    }
    assert second.token
    assert office.statuses(jobs, execution) == {"a.0": "succeeded", "b.0": "dispatched"}
    assert office.statuses(tasks, execution) == {"a": "succeeded", "b": "running", "c": "pending"}
    born = office.job(f"{execution}.b.0.1")
    assert "" not in (born.digest, born.canvas_digest, born.epoch)
    assert (born.dispatched_at, born.created_at, born.give_up_at) == (
        office.clock.now,
        office.clock.now,
        None,
    )
    assert office.job(f"{execution}.a.0.1").settled


def test_a_line_goes_on_to_its_end(office: Office) -> None:
    execution = office.submit(LINE)
    step = office.take_in(office.take_in(office.sent[0]))
    end = office.take_in(step)
    assert not end.token
    assert office.execution(execution).status == "completed"
    assert set(office.statuses(jobs, execution).values()) == {"succeeded"}
    events = table(Event)
    with office.store.read() as connection:
        seen = connection.execute(
            select(events.c.seq).where(events.c.execution == execution).order_by(events.c.seq)
        )
        assert list(seen.scalars()) == list(range(1, office.execution(execution).event_seq + 1))


def test_a_duplicate_sends_nothing_and_a_redelivery_the_same_job(office: Office) -> None:
    execution = office.submit(LINE)
    assert office.take_in(office.sent[0]).token
    assert not office.take_in(office.sent[0]).token
    again = office.take_in(office.sent[0], redelivered=True)
    assert office.take_in(again).token
    assert office.statuses(jobs, execution) == {"a.0": "succeeded", "b.0": "succeeded", "c.0": "dispatched"}
    assert not office.take_in(office.sent[0], redelivered=True).token


def test_the_next_job_of_a_node_that_is_away_waits_and_says_so(office: Office) -> None:
    execution = office.submit(LINE)
    office.hear("web-2", last_seen=office.clock.now - 3600)
    assert not office.take_in(office.sent.pop()).token
    waiting = office.job(f"{execution}.b.0.1")
    assert (waiting.status, waiting.give_up_at) == ("queued", office.clock.now + waiting.queue_timeout)
    assert office.statuses(tasks, execution)["b"] == office.execution(execution).status == "waiting"
    office.hear("web-2", last_seen=office.clock.now)
    collect.make_room(office.desk, "web-2")
    collect.settle(office.desk, execution)
    assert office.statuses(tasks, execution)["b"] == "running"
    (line,) = office.sent
    assert office.take_in(line).token


def test_a_job_that_finds_its_node_full_follows_the_next_outcome_of_that_node(office: Office) -> None:
    office.hear("web-2", slots=0)
    execution = office.submit(LINE)
    assert not office.take_in(office.sent.pop()).token
    waiting = office.job(f"{execution}.b.0.1")
    assert (waiting.status, waiting.give_up_at) == ("queued", None)
    office.hear("web-2", slots=1)
    other = office.submit("tasks:\n  - {name: x, delegate_to: web-2, action: core.echo, input: {message: m}}")
    (line,) = [sent for sent in office.sent if sent[0].job.startswith(other)]
    office.take_in(line)
    assert office.job(f"{execution}.b.0.1").status == "dispatched"


def test_a_member_touches_its_own_row_only(office: Office) -> None:
    execution = office.submit(BLOCK)
    before = office.execution(execution)
    first, second = office.sent
    with office.statements() as said:
        step = office.take_in(first)
    assert said == {"SELECT jobs": 1, "UPDATE jobs SET": 1}
    assert step.collected is not None
    assert (step.collected.counts, step.collected.settle) == (True, set())
    assert office.execution(execution) == before
    office.sent.clear()
    office.take_in(second)
    assert office.job(f"{execution}.b.0.1").result["message"] == "hello"
    collect.settle(office.desk, execution)
    assert office.statuses(tasks, execution) == {
        "all": "succeeded",
        "a": "succeeded",
        "b": "succeeded",
        "z": "running",
    }
    (line,) = office.sent
    assert not office.take_in(line).token
    assert office.execution(execution).status == "completed"


def test_a_member_that_fails_nudges_at_once(office: Office) -> None:
    execution = office.submit(BLOCK)
    step = office.take_in(office.sent[0], "failed")
    assert step.collected is not None
    assert step.collected.settle == {execution}


def test_a_second_attempt_is_born_dispatched(office: Office) -> None:
    execution = office.submit(RETRIED)
    office.take_in(office.sent.pop(), "failed")
    second = office.job(f"{execution}.a.0.2")
    assert (second.status, bool(second.canvas_digest)) == ("dispatched", True)
    assert office.execution(execution).status == "running"
    office.take_in(office.sent.pop(), "failed")
    assert office.execution(execution).status == "failed"


def test_a_job_that_no_order_can_carry_fails_where_it_is_born(office: Office) -> None:
    execution = office.submit(UNTELLABLE, big="x" * 1_000_000)
    assert not office.take_in(office.sent[0]).token
    assert office.job(f"{execution}.b.0.1").error["type"] == "too_large"
    assert office.execution(execution).status == "failed"


def test_a_job_that_no_order_can_carry_is_not_handed_over_by_room_on_its_node(office: Office) -> None:
    """Once it is `dispatched` every tick would try to send it, and break off there."""
    execution = office.hand_in(UNTELLABLE_AT_ONCE, big="x" * 600_000)
    collect.make_room(office.desk, "web-1")
    assert office.job(f"{execution}.a.0.1").status == "queued"
    collect.settle(office.desk, execution)
    assert office.job(f"{execution}.a.0.1").error["type"] == "too_large"
    assert office.execution(execution).status == "failed"


def test_an_unknown_outcome_waits_and_a_late_one_counts(office: Office) -> None:
    execution = office.submit(LINE)
    assert not office.take_in(office.sent[0], "unknown").token
    assert office.job(f"{execution}.a.0.1").status == "unknown"
    assert office.statuses(tasks, execution)["a"] == "waiting"
    assert office.take_in(office.sent[0]).token
    assert office.statuses(tasks, execution) == {"a": "succeeded", "b": "running", "c": "pending"}


def test_a_batch_follows_the_one_before(office: Office) -> None:
    execution = office.submit(FANOUT)
    office.take_in(office.sent.pop())
    assert office.statuses(jobs, execution) == {"f.0": "succeeded", "f.1": "dispatched"}
    office.take_in(office.sent.pop())
    assert office.execution(execution).status == "completed"
