"""One time of a schedule: it fires, waits or is skipped, in one transaction with the schedule's step to the next time.

The schedule's row moves by compare-and-set, and whoever moves it holds it until the row of the tick is written, and
the execution with it. Who comes second finds that it has moved, and changes nothing; who dies in between has done
nothing, and the time is still due.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, select, update

from app.engine.status import EXECUTION_OVER, EXECUTION_STATUSES, SCHEDULING
from app.errors import Conflict, FeatureOff, InvalidInput, MusterError, NotAllowed, NotFound, TooLarge
from app.logs import scope
from app.services import audit, cancel, features, notify, roles
from app.services.control import Control
from app.services.measures import SCHEDULE_ALARMS, SCHEDULE_LAG, SCHEDULE_TICKS
from app.services.misfires import Tick
from app.services.schedule_targets import submission, target_of
from app.services.submit import submit
from app.store.statements import insert_into
from app.store.tables import Execution, Schedule, ScheduleTick, User, table

log = logging.getLogger(__name__)
schedules, ticks = table(Schedule), table(ScheduleTick)
executions, users = table(Execution), table(User)

FIRED: Final = "fired"
QUEUED: Final = "queued"
SKIPPED: Final = "skipped"
MISSED: Final = "missed"

OVERLAP: Final = "overlap"
FEATURE_OFF: Final = "feature-off"
"""Reasons of skipped ticks that are no codes of errors."""

ALARM_AFTER: Final = 3
"""Skipped ticks in a row after which people are told."""
MOST_CANCELLED: Final = 20
"""Executions that one tick cancels: there is more than one only where they were allowed to overlap before."""
LONGEST_DETAIL: Final = 1000

_OPEN = sorted(set(EXECUTION_STATUSES) - EXECUTION_OVER)
_REFUSALS = (InvalidInput, NotFound, NotAllowed, Conflict, TooLarge, FeatureOff)


class Overtaken(Exception):
    """Somebody else has seen to this tick, or changed the schedule: nothing of ours is kept."""


class _Held(Exception):
    """An execution of the schedule is not over, and it does not overlap."""


class _Known(Exception):
    """The tick has its row already: the clock was set back behind a time that was seen to."""


@dataclass(frozen=True, slots=True)
class Due:
    """One time of a schedule (its row as it was read) that is to be seen to at `now`, in Unix seconds.

    `following` is where the schedule goes on; a tick that `waited` for an execution's end has gone on already.
    """

    schedule: Any
    tick: Tick
    following: Tick | None
    now: float
    waited: bool = False


def see_to(control: Control, due: Due) -> None:
    """Fire a tick, let it wait, or skip it and say why. Raises Overtaken."""
    try:
        _fire(control, due)
    except _Held:
        if not due.waited:
            _hold(control, due)
    except _Known:
        with control.store.write() as connection:
            move(connection, due)
    except _REFUSALS as error:
        _refuse(control, due, error)


def _fire(control: Control, due: Due) -> None:
    """Raises as `submit` does for what the owner may not, or cannot, start any more."""
    row = due.schedule
    cancelled: list[str] = []

    def claim(connection: Connection, execution: str) -> None:
        told = {"last_execution": execution, "last_status": SCHEDULING, "seen": SCHEDULING, "last_reason": ""}
        move(connection, due, **told, last_run=due.now, skips=0)
        cancelled.extend(_make_way(control, connection, row))
        _write(connection, due, FIRED, execution=execution)

    features.need(control.settings, features.SCHEDULE)
    with control.store.read() as connection:
        _check_owner(connection, row.owner)
    wanted = submission(control, target_of(row), row.owner, row.id, row.written_by)
    accepted = submit(control, wanted, claim)
    control.nudge(cancelled)
    control.tally.count(SCHEDULE_TICKS, FIRED)
    if not due.waited:
        control.tally.observe(SCHEDULE_LAG, due.now - due.tick.due_at)
    log.info("schedule fired", extra=scope.facts(schedule=row.name, execution=accepted.execution))


def _check_owner(connection: Connection, login: str) -> None:
    """Raises NotAllowed unless the owner may still start executions."""
    query = select(users.c.role, users.c.grants, users.c.enabled).where(users.c.login == login)
    row = connection.execute(query).first()
    if row is None or not row.enabled:
        raise NotAllowed(f"{login}, who owns the schedule, is disabled", code="owner-disabled")
    if not roles.may(roles.kept(row.role, row.grants), "operator"):
        raise NotAllowed(f"{login}, who owns the schedule, may run nothing by now", code="owner-not-allowed")


def move(connection: Connection, due: Due, **columns: Any) -> None:
    """Move the schedule on from this time, with more of its columns. Raises Overtaken where it is not there any more.

    Whoever gets through holds the row until the transaction ends: there are no two at one schedule.
    """
    row = due.schedule
    to = due.following
    if due.waited:
        there = schedules.c.waiting == row.waiting
        columns["waiting"] = None
    else:
        there = schedules.c.next_run == due.tick.fire_time
        columns |= {"next_run": to and to.fire_time, "due_at": to and to.due_at}
    mine = (schedules.c.id == row.id, schedules.c.enabled.is_(True), schedules.c.revision == row.revision)
    if connection.execute(update(schedules).where(there, *mine).values(columns)).rowcount != 1:
        raise Overtaken


def _write(connection: Connection, due: Due, status: str, **columns: Any) -> None:
    """The row of the tick, which is there already if it waited. Raises _Known where it should not be."""
    row, fire_time = due.schedule, due.tick.fire_time
    if due.waited:
        mine = (ticks.c.schedule == row.id, ticks.c.fire_time == fire_time)
        connection.execute(update(ticks).where(*mine).values(status=status, at=due.now, **columns))
    elif not write_tick(connection, row.id, fire_time, status, due.now, **columns):
        raise _Known


def write_tick(
    connection: Connection, schedule: str, fire_time: float, status: str, now: float, **columns: Any
) -> bool:
    """A new row of a tick. False where it has one: then nothing is written."""
    values = {"reason": "", "detail": "", "execution": None, **columns}
    values |= {"schedule": schedule, "fire_time": fire_time, "status": status, "at": now}
    query = insert_into(connection, ticks).values(values).on_conflict_do_nothing().returning(ticks.c.schedule)
    return connection.execute(query).first() is not None


# overlap


def open_executions(connection: Connection, schedule: str) -> list[str]:
    """Executions of a schedule that are not over: those that wait for a person or for a lost node as well."""
    query = select(executions.c.id).where(executions.c.schedule == schedule, executions.c.status.in_(_OPEN))
    return list(connection.execute(query.order_by(executions.c.id).limit(MOST_CANCELLED)).scalars())


def _make_way(control: Control, connection: Connection, row: Any) -> list[str]:
    """What is cancelled for a new execution. Raises _Held where it may not start beside those that are not over."""
    if row.overlap == "allow":
        return []
    found = open_executions(connection, row.id)
    if found and row.overlap != "cancel":
        raise _Held
    cancelled = []
    for execution in found:
        try:
            cancel.ask(control, connection, execution, row.owner, reason=f"schedule {row.name} starts anew")
        except Conflict:  # it has just ended
            continue
        cancelled.append(execution)
    return cancelled


def _hold(control: Control, due: Due) -> None:
    """The execution before is not over: the tick waits for its end where that is wanted and none waits yet."""
    row = due.schedule
    if row.overlap != "queue":
        _skip(control, due, OVERLAP, "the execution before is not over")
        return
    with control.store.write() as connection:
        move(connection, due)
        mine = schedules.c.id == row.id
        waits = connection.execute(select(schedules.c.waiting).where(mine)).scalar() is not None
        if not waits:
            told = {"waiting": due.tick.fire_time, "last_status": QUEUED, "last_reason": OVERLAP}
            connection.execute(update(schedules).where(mine).values(told))
            write_tick(connection, row.id, due.tick.fire_time, QUEUED, due.now, reason=OVERLAP)
        else:
            _note_skip(connection, control, due, OVERLAP, "another tick waits for its end already")
    control.tally.count(SCHEDULE_TICKS, SKIPPED if waits else QUEUED)


# skipped


def _refuse(control: Control, due: Due, error: MusterError) -> None:
    reason = FEATURE_OFF if isinstance(error, FeatureOff) else error.code
    _skip(control, due, reason, error.message)
    if not isinstance(error, FeatureOff):
        row = due.schedule
        audit.refuse(control, row.owner, "schedule.fire", row.id, error, {"fire_time": due.tick.fire_time})


def _skip(control: Control, due: Due, reason: str, detail: str) -> None:
    with control.store.write() as connection:
        move(connection, due)
        _note_skip(connection, control, due, reason, detail)
    control.tally.count(SCHEDULE_TICKS, SKIPPED)


def _note_skip(connection: Connection, control: Control, due: Due, reason: str, detail: str) -> None:
    """Write that a tick was skipped, and tell people of one too many in a row. The caller holds the schedule."""
    row = due.schedule
    reason, detail = reason[:64], detail[:LONGEST_DETAIL]
    if due.waited:
        _write(connection, due, SKIPPED, reason=reason, detail=detail)
    else:
        write_tick(connection, row.id, due.tick.fire_time, SKIPPED, due.now, reason=reason, detail=detail)
    told = {"last_status": SKIPPED, "last_reason": reason, "skips": schedules.c.skips + 1}
    counted = update(schedules).where(schedules.c.id == row.id).values(told).returning(schedules.c.skips)
    skips = connection.execute(counted).scalar_one()
    log.info("schedule skipped a time", extra=scope.facts(schedule=row.name, reason=reason))
    if skips == ALARM_AFTER:
        about = {"name": row.name, "skips": skips, "reason": reason, "detail": detail}
        audit.record(connection, row.owner, "schedule.alarm", row.id, audit.REFUSED, about, at=due.now)
        notify.tell(connection, notify.HELD_UP, row.id, {**about, "owner": row.owner}, due.now)
        log.warning("schedule %s has skipped %d times in a row: %s", row.name, skips, reason)
        control.tally.count(SCHEDULE_ALARMS)
