"""What happens to calls because time passes: part of the tick, in small transactions, each idempotent."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from sqlalchemy import BindParameter, Connection, bindparam, not_, select, update

from app.compiler.plan import IO
from app.engine.status import DISPATCHED, EXECUTION_OVER, PAUSE, QUEUED, RUNNING, TIMED_OUT, UNKNOWN
from app.services import calls, collect, lost
from app.services.apart import apart
from app.services.collect import Desk
from app.services.run import Run
from app.store.looks import Look
from app.store.prepared import one_of
from app.store.tables import Execution, Job, table

jobs, executions = table(Job), table(Execution)

AT_ONCE = 500
"""Rows that one part of one tick takes on, so that a tick stays short."""

ASK_AGAIN = 30.0
"""Seconds after which whoever makes calls is asked once more to look at a foreign task: a message may be lost."""

QUEUED_FOR = 1.0
"""Seconds after which a call that is still queued means that a nudge was lost, or that its window is full."""

_now: BindParameter[float] = bindparam("now")


def _calls(*which: Any) -> Look:
    return Look(select(jobs.c.id, jobs.c.execution, jobs.c.status).where(jobs.c.node == IO, *which), AT_ONCE)


_LEFT_QUEUED = Look(
    select(jobs.c.execution)
    .join(executions, executions.c.id == jobs.c.execution)
    .where(jobs.c.node == IO, jobs.c.status == QUEUED, jobs.c.created_at < bindparam("before"))
    .where(executions.c.intent != PAUSE, not_(one_of(executions.c.status, EXECUTION_OVER)))
    .distinct(),
    AT_ONCE,
)
_UNTAKEN = Look(
    select(jobs.c.id, jobs.c.sends).where(
        jobs.c.node == IO, jobs.c.status == DISPATCHED, jobs.c.send_after <= _now
    ),
    AT_ONCE,
)
_TO_ASK = _calls(one_of(jobs.c.status, (RUNNING, UNKNOWN)), jobs.c.send_after <= _now)
_OVERDUE = _calls(one_of(jobs.c.status, (DISPATCHED, RUNNING)), jobs.c.backstop_at <= _now)
_TO_GIVE_UP = _calls(jobs.c.status == DISPATCHED, jobs.c.give_up_at <= _now)
_LEASE_OVER = _calls(jobs.c.status == RUNNING, jobs.c.order_expires_at <= _now)


def look(desk: Desk) -> None:
    """Calls that nobody took, foreign tasks to ask about, timeouts, and leases that ran out."""
    _queued(desk)
    _untaken(desk)
    _pending(desk)
    _timed_out(desk)
    _given_up(desk)
    _cut_short(desk)


def _queued(desk: Desk) -> None:
    for row in _LEFT_QUEUED.rows(desk.control.store, before=desk.control.clock() - QUEUED_FOR):
        with apart(row.execution):
            collect.settle(desk, row.execution)


def _untaken(desk: Desk) -> None:
    """Handed over, and nobody has taken it: the message again, with growing waits."""
    now = desk.control.clock()
    found = _UNTAKEN.rows(desk.control.store, now=now)
    if not found:
        return
    late = (jobs.c.node == IO, jobs.c.status == DISPATCHED, jobs.c.send_after <= now)
    wait = desk.control.settings.resend_after
    with desk.control.store.write() as connection:
        free = _free(connection, [row.id for row in found], *late)
        found = [row for row in found if row.id in free]
        for row in found:
            after = now + wait * 2 ** min(row.sends + 1, 4)
            again = update(jobs).where(jobs.c.id == row.id, *late)
            connection.execute(again.values(send_after=after, sends=row.sends + 1))
    desk.call([row.id for row in found])


def _pending(desk: Desk) -> None:
    """Tasks of other Celery apps that are to be asked about: by a message, so that no backend can hold up a tick."""
    now = desk.control.clock()
    found = [row.id for row in _TO_ASK.rows(desk.control.store, now=now)]
    if found:
        due = (jobs.c.node == IO, jobs.c.status.in_((RUNNING, UNKNOWN)), jobs.c.send_after <= now)
        with desk.control.store.write() as connection:
            free = _free(connection, found, *due)
            connection.execute(update(jobs).where(jobs.c.id.in_(free)).values(send_after=now + ASK_AGAIN))
        desk.call(free)


def _free(connection: Connection, ids: Collection[str], *more: Any) -> list[str]:
    """Those of these jobs that nobody else is at, locked: to wait for one with others in hand could be for ever."""
    query = select(jobs.c.id).where(jobs.c.id.in_(ids), *more).order_by(jobs.c.id)
    return list(connection.execute(query.with_for_update(skip_locked=True)).scalars())


def _timed_out(desk: Desk) -> None:
    """The task's own `timeout`. What was on its way may have had its effect."""

    def end(run: Run, row: Any) -> None:
        error = {"type": "timeout", "message": "the call was not over within the task's timeout"}
        lost.fail(run, row.id, row.status, error, status=TIMED_OUT, effect_unknown=row.status == RUNNING)

    _each(desk, _OVERDUE, end)


def _given_up(desk: Desk) -> None:
    def end(run: Run, row: Any) -> None:
        message = "nothing that consumes the queue `io` took the call for as long as queue_timeout allows"
        lost.fail(run, row.id, row.status, {"type": "node_offline", "message": message})

    _each(desk, _TO_GIVE_UP, end)


def _cut_short(desk: Desk) -> None:
    """The lease ran out: whoever made the call is gone."""
    _each(desk, _LEASE_OVER, lambda run, row: calls.give_up(run, row.id))


def _each(desk: Desk, wanted: Look, what: Callable[[Run, Any], None]) -> None:
    """Do something to calls, each execution locked in a transaction of its own, then hand over what may run."""
    found = wanted.rows(desk.control.store, now=desk.control.clock())
    for execution in dict.fromkeys(row.execution for row in found):
        with apart(execution):
            with desk.control.store.write() as connection:
                run = Run.lock(desk.control, connection, execution)
                for row in found:
                    if row.execution == execution:
                        what(run, row)
            collect.settle(desk, execution)
