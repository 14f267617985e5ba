"""Nobody approves what they had a hand in: by a schedule that they wrote, by a retry, or above the one that asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from desk import BOTH, Office, executions, office_on
from gate_office import same_when_replayed
from sqlalchemy import insert, select
from timetable import ADA, Timetable, person

from app.errors import NotAllowed
from app.services import again, approvals, collect, families, library, schedules
from app.services.approvals import Word
from app.services.schedule_targets import WORKFLOW, Target
from app.services.schedules import Wanted
from app.store.tables import Approval, User, table

rows, users = table(Approval), table(User)

ASKS = """
ref: demo.asks
parameters: {what: {type: string, default: shop}}
tasks:
  - {name: work, action: core.shell, delegate_to: web-1, input: {command: ['true']}, on_success: ask}
  - {name: ask, action: core.approval, input: {prompt: "Deploy {{ parameters.what }}?"}}
"""
CALLS = """
ref: demo.calls
parameters: {what: {type: string, default: shop}}
tasks:
  - {name: call, type: workflow, action: demo.asks, input: {what: "{{ parameters.what }}"}}
"""
MAL, NAN = person("mal", "admin"), person("nan", "admin")


@pytest.fixture(params=BOTH)
def times(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Timetable]:
    with office_on(request.param, tmp_path, ["web-1"]) as office:
        made = Timetable(office)
        more = [{"login": one, "role": "admin", "created_at": 0.0} for one in ("mal", "nan")]
        with office.store.write() as connection:
            connection.execute(insert(users), more)
        for source in (ASKS, CALLS):
            library.store_workflow(made.control, "demo", source, "ada")
        yield made


def nightly(what: str, ref: str = "demo.asks", description: str = "") -> Wanted:
    target = Target(WORKFLOW, ref, parameters={"what": what})
    return Wanted("nightly", target, "* * * * *", "UTC", description)


def fired(times: Timetable, schedule: str) -> str:
    """What the schedule started at its next time."""
    times.pass_until(times.row(schedule).due_at, step=60)
    return str(times.executions(schedule)[-1].id)


def end(office: Office, execution: str, status: str) -> None:
    """Its only job goes out and ends; the node is still there."""
    office.hear("web-1", last_seen=office.clock.now)
    collect.settle(office.desk, execution)
    office.take_in(office.sent.pop(), status)
    collect.settle(office.desk, execution)


def child_of(office: Office, execution: str) -> str:
    families.align(office.control, execution)
    with office.store.read() as connection:
        query = select(executions.c.id).where(executions.c.parent == execution)
        return str(connection.execute(query).scalar_one())


def question(office: Office, execution: str) -> Any:
    with office.store.read() as connection:
        query = select(rows).where(rows.c.execution == execution, rows.c.status == "pending")
        return connection.execute(query).one()


def only_others_approve(office: Office, execution: str, *barred: str, other: str) -> None:
    asked = question(office, execution).id
    for login in barred:
        with pytest.raises(NotAllowed) as raised:
            approvals.decide(office.control, asked, Word(login, "approve"))
        assert raised.value.code == "own-request", login
    assert approvals.decide(office.control, asked, Word(other, "approve"))["status"] == "approved"
    same_when_replayed(office, execution)


# what a schedule runs


def nothing(times: Timetable, schedule: str) -> None:
    """As it was rewritten."""


def toggle(times: Timetable, schedule: str) -> None:
    schedules.disable(times.control, schedule, NAN)
    schedules.enable(times.control, schedule, NAN)


def describe(times: Timetable, schedule: str) -> None:
    schedules.change(times.control, schedule, nightly("bank", description="the bank"), NAN, expected=None)


@pytest.mark.parametrize("after", [nothing, toggle, describe])
def test_who_rewrote_what_a_schedule_runs_does_not_approve_it(
    times: Timetable, after: Callable[[Timetable, str], None]
) -> None:
    schedule = schedules.create(times.control, nightly("shop"), ADA)
    schedules.change(times.control, schedule, nightly("bank"), MAL, expected=None)
    after(times, schedule)
    execution = fired(times, schedule)
    end(times.office, execution, "succeeded")
    assert question(times.office, execution).requester == "mal"
    only_others_approve(times.office, execution, "ada", "mal", other="nan")


def test_what_becomes_of_the_schedule_later_changes_nothing(times: Timetable) -> None:
    schedule = schedules.create(times.control, nightly("shop"), ADA)
    schedules.change(times.control, schedule, nightly("bank"), MAL, expected=None)
    execution = fired(times, schedule)
    schedules.change(times.control, schedule, nightly("shop"), ADA, expected=None)
    schedules.remove(times.control, schedule, MAL)
    end(times.office, execution, "succeeded")
    only_others_approve(times.office, execution, "ada", "mal", other="nan")


def test_whoever_left_alone_what_it_runs_may_approve(times: Timetable) -> None:
    schedule = schedules.create(times.control, nightly("shop"), ADA)
    schedules.change(times.control, schedule, nightly("shop", description="the shop"), MAL, expected=None)
    execution = fired(times, schedule)
    end(times.office, execution, "succeeded")
    assert question(times.office, execution).requester == "ada"
    only_others_approve(times.office, execution, "ada", other="mal")


def test_what_its_execution_calls_is_no_way_round(times: Timetable) -> None:
    schedule = schedules.create(times.control, nightly("shop", "demo.calls"), ADA)
    schedules.change(times.control, schedule, nightly("bank", "demo.calls"), MAL, expected=None)
    child = child_of(times.office, fired(times, schedule))
    end(times.office, child, "succeeded")
    only_others_approve(times.office, child, "ada", "mal", other="nan")


# retries


def test_none_of_those_who_tried_it_again_approves_what_it_then_asks(times: Timetable) -> None:
    execution = times.office.hand_in(ASKS)
    end(times.office, execution, "failed")
    again.retry(times.control, execution, "mal", again.Wanted())
    end(times.office, execution, "failed")
    again.retry(times.control, execution, "nan", again.Wanted(mark_ok={"work": {}}))
    collect.settle(times.office.desk, execution)
    assert question(times.office, execution).requester == "nan"
    only_others_approve(times.office, execution, "ada", "mal", "nan", other="bob")


def test_a_retry_of_what_calls_it_is_no_way_round(times: Timetable) -> None:
    office = times.office
    execution = office.hand_in(CALLS)
    collect.settle(office.desk, execution)
    child = child_of(office, execution)
    end(office, child, "failed")
    families.align(office.control, execution)
    assert office.execution(execution).status == "failed"
    again.retry(office.control, execution, "mal", again.Wanted())
    assert child_of(office, execution) == child
    end(office, child, "succeeded")
    assert question(office, child).requester == "mal"
    only_others_approve(office, child, "ada", "mal", other="nan")
