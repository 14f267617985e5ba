"""Schedules whose time has come. A part of the tick: whoever ticks, and however often, each time leaves one row."""

from __future__ import annotations

import logging
from typing import Any, Final

from sqlalchemy import BindParameter, Connection, bindparam, select, update

from app.logs import scope
from app.services import script_results
from app.services.apart import apart
from app.services.collect import Desk
from app.services.control import Control
from app.services.cron import Cron
from app.services.measures import SCHEDULE_TICKS
from app.services.misfires import Policy, Tick, divided, next_tick, pending
from app.services.schedule_targets import SCRIPT
from app.services.schedule_ticks import MISSED, Due, Overtaken, move, open_executions, see_to, write_tick
from app.store.looks import Look
from app.store.tables import Execution, Schedule, table

log = logging.getLogger(__name__)
schedules, executions = table(Schedule), table(Execution)

AT_ONCE: Final = 500
"""Schedules that one look takes on."""

_now: BindParameter[float] = bindparam("now")
_enabled = select(schedules).where(schedules.c.enabled.is_(True)).order_by(schedules.c.due_at, schedules.c.id)
_WAITING = Look(_enabled.where(schedules.c.waiting.is_not(None)), AT_ONCE)
_DUE = Look(_enabled.where(schedules.c.due_at <= _now), AT_ONCE)
_UNSEEN = Look(
    select(schedules.c.id, schedules.c.kind, schedules.c.last_execution, executions.c.status)
    .join(executions, executions.c.id == schedules.c.last_execution)
    .where(executions.c.status != schedules.c.seen),
    AT_ONCE,
)
"""Schedules whose last executions stand otherwise than it says of them."""


def look(desk: Desk) -> None:
    """One round: ticks that wait, times that have come, and how the executions stand."""
    control = desk.control
    now = control.clock()
    for which, given, what in ((_WAITING, {}, _release), (_DUE, {"now": now}, _take)):
        for row in which.rows(control.store, **given):
            with apart(f"schedule {row.name}"):
                # Each execution has a trace of its own.
                scope.begin()
                try:
                    what(control, row, now)
                except Overtaken:
                    log.info("another has seen to schedule %s, or it was changed", row.name)
    _follow(control)


def _release(control: Control, row: Any, now: float) -> None:
    """The tick that waits fires once no execution of the schedule is open."""
    with control.store.read() as connection:
        if open_executions(connection, row.id):
            return
    see_to(control, Due(row, Tick(row.waiting, row.waiting), None, now, waited=True))


def _take(control: Control, row: Any, now: float) -> None:
    """See to every time of one schedule that is due."""
    times = Cron(row.cron, row.zone)
    first: Tick | None = Tick(row.next_run, row.due_at)
    kept_since = now - control.settings.retention
    if row.next_run < kept_since:
        # Rows as old as that would be deleted at once.
        first = next_tick(row.id, times, kept_since, row.jitter)
    if first is None or first.due_at > now:
        _miss(control, Due(row, Tick(row.next_run, row.due_at), first, now), [])
        return
    found = pending(row.id, times, first, row.jitter, now)
    missed, fires = divided(found, Policy(row.misfire, row.most, row.grace), now)
    rest = [*found.ticks[len(missed) :], found.following]
    if missed or first.fire_time != row.next_run:
        _miss(control, Due(row, Tick(row.next_run, row.due_at), rest[0], now), missed)
    for tick, following in zip(fires, rest[1:], strict=False):
        see_to(control, Due(row, tick, following, now))


def _miss(control: Control, due: Due, missed: list[tuple[Tick, str]]) -> None:
    """Write what was missed, and move on behind it. Raises Overtaken."""
    row = due.schedule
    with control.store.write() as connection:
        move(connection, due)
        for tick, reason in missed:
            write_tick(connection, row.id, tick.fire_time, MISSED, due.now, reason=reason)
    if missed:
        control.tally.count(SCHEDULE_TICKS, MISSED, by=len(missed))
        log.warning("schedule %s missed %d of its times", row.name, len(missed))


def _follow(control: Control) -> None:
    """What schedules say of their last executions, where these stand otherwise by now."""
    found = _UNSEEN.rows(control.store)
    if not found:
        return
    with control.store.read() as connection:
        words = {row.id: _word(connection, row) for row in found}
    with control.store.write() as connection:
        for row in found:
            told = {"last_status": words[row.id], "last_reason": "", "seen": row.status}
            mine = (schedules.c.id == row.id, schedules.c.last_execution == row.last_execution)
            connection.execute(update(schedules).where(*mine).values(told))


def _word(connection: Connection, row: Any) -> str:
    """What an execution's state is called: of a script in one word for all its nodes."""
    return script_results.word(connection, row.last_execution) if row.kind == SCRIPT else str(row.status)
