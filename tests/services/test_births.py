"""An execution is written once, as its first step leaves it: what its submission tells of it is what is there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from desk import BOTH, Office, jobs, office_on, tasks

from app.compiler.build import build
from app.language.parse import load_or_raise
from app.services import queries, replay
from app.services.submit import Accepted, Submission, submit
from app.store import types

ONE = """
tasks:
  - {name: one, action: core.shell, delegate_to: web-1, input: {command: ['true']}, retry: {count: 2}}
"""
AT_ONCE = """
vars: {greeting: "hello {{ parameters.name }}", all: [1, 2.5, null]}
parameters: {name: {type: string, default: world}}
tasks:
  - {name: a, action: core.noop, publish: [{greeting: "{{ vars.greeting }}!"}], on_success: [b]}
  - {name: b, action: core.noop, on_failure: [c]}
  - {name: c, action: core.noop}
output_map: {said: "{{ vars.greeting }}"}
"""
BAD_VARS = """
vars: {wrong: "{{ 1 / parameters.none }}"}
parameters: {none: {type: integer, default: 0}}
tasks:
  - {name: a, action: core.noop}
  - {name: b, action: core.noop}
"""
FAILS = """
tasks:
  - {name: a, action: core.shell, delegate_to: nowhere, input: {command: ['true']}, on_success: [b]}
  - {name: b, action: core.noop}
finally:
  - {name: last, action: core.noop}
"""
SPREAD = """
tasks:
  - {name: a, type: distributed_shell, input: {command: ['true'], nodes: [web-1, web-2, web-3], batch: [2]}}
  - {name: b, action: core.sleep, input: {seconds: 60}}
  - {name: c, action: core.noop, delay: 30}
  - {name: d, action: core.echo, with_items: [x, y], delegate_to: web-1, input: {message: "{{ item }}"}}
  - name: e
    type: parallel
    tasks:
      - {name: f, action: core.shell, delegate_to: web-2, input: {command: ['true']}}
      - {name: g, action: core.noop}
"""
ASKS = """
tasks:
  - {name: ask, action: core.approval, input: {prompt: go on?}, on_success: [b]}
  - {name: b, action: core.noop}
"""
ALL = {
    "one": ONE,
    "at once": AT_ONCE,
    "bad vars": BAD_VARS,
    "fails": FAILS,
    "spread": SPREAD,
    "asks": ASKS,
}


@pytest.fixture(params=BOTH)
def office(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Office]:
    with office_on(request.param, tmp_path, ["web-1", "web-2", "web-3"]) as made:
        yield made


def asked(office: Office, source: str, **more: Any) -> Accepted:
    plan = build(load_or_raise(source, "test.yaml"))
    return submit(office.control, Submission(plan, source, "ada", {}, **more))


def read(office: Office, execution: str) -> dict[str, Any]:
    with office.store.read() as connection:
        return queries.execution(connection, execution)


def as_kept(told: dict[str, Any]) -> dict[str, Any]:
    """With moments in the microseconds that a database keeps."""
    moments = {name: told[name] for name in ("created_at", "started_at", "ended_at")}
    return {**told, **{name: one and types.as_kept(one) for name, one in moments.items()}}


@pytest.mark.parametrize("name", ALL)
def test_what_is_told_of_it_is_what_is_there(office: Office, name: str) -> None:
    office.clock.now += 0.123456789
    accepted = asked(office, ALL[name])
    assert accepted.run is not None
    assert as_kept(queries.just_made(accepted.run)) == read(office, accepted.execution)


@pytest.mark.parametrize("name", ALL)
def test_its_rows_are_those_that_its_first_event_makes(office: Office, name: str) -> None:
    execution = asked(office, ALL[name]).execution
    with office.store.read() as connection:
        assert not replay.replayed(connection, execution).differences


def test_a_task_that_was_never_reached_ended_with_its_execution(office: Office) -> None:
    execution = asked(office, BAD_VARS).execution
    found = read(office, execution)
    assert (found["status"], found["ended_badly"]) == ("failed", "template")
    with office.store.read() as connection:
        ended = connection.execute(tasks.select().where(tasks.c.execution == execution)).mappings().all()
    assert {(one["name"], one["status"], one["ended_at"]) for one in ended} == {
        ("a", "not_reached", office.clock.now),
        ("b", "not_reached", office.clock.now),
    }


def test_one_that_is_put_off_is_told_as_it_waits(office: Office) -> None:
    accepted = asked(office, ONE, is_put_off=True)
    assert accepted.run is not None
    told = as_kept(queries.just_made(accepted.run))
    assert (told["status"], told["started_at"], told["current_tasks"]) == ("scheduling", None, [])
    assert told == read(office, accepted.execution)
    assert office.statuses(jobs, accepted.execution) == {}


def test_each_row_is_written_by_one_statement(office: Office) -> None:
    asked(office, ONE)
    with office.statements() as counted:
        asked(office, ONE)
    written = {sql: count for sql, count in counted.items() if sql.startswith(("INSERT", "UPDATE"))}
    assert sorted(written.values()) == [1] * 5, written
    assert all(sql.startswith("INSERT") for sql in written), written
