"""What happens because time passes: due timers, unsent jobs, lost nodes, unsettled executions, retention.

Every part is idempotent and bounded, reads before it takes a write lock, and does its work in small transactions:
a tick that dies half way leaves the rest to the next one. One holder at a time, by a lease row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from sqlalchemy import Connection, select, update

from app.engine.events import NodeBack, TimerDue
from app.engine.status import (
    ACCEPTED,
    CANCELLED,
    QUEUED,
    RUNNING,
    SUSPECT,
    TIMED_OUT,
    UNKNOWN,
)
from app.services import calls_due, chain, collect, courier, families, lost, output, retention, schedules_due
from app.services import tick_looks as looks
from app.services.apart import apart
from app.services.collect import Desk
from app.services.installation import LEASE
from app.services.measures import TICK_SECONDS
from app.services.run import Run
from app.store.tables import Job, Node, Timer, table

jobs, nodes, timers = table(Job), table(Node), table(Timer)

SETTLE_AFTER = 1.0
"""Seconds after which a job that is over and unsettled means that a nudge was lost."""

KEEP_TRYING = 120.0
"""Seconds after a job's end in which output that does not fit its digest is looked for again."""


def tick(desk: Desk, holder: str) -> bool:
    """One round. Returns whether this worker held the lease."""
    if not _lease(desk, holder):
        return False
    parts: tuple[Callable[[Desk], None], ...] = (
        _timers,
        _put_off,
        _unsettled,
        _families,
        _queued,
        _held_up,
        *(_OF_SILENCE if _has_listened(desk) else ()),
        calls_due.look,
        schedules_due.look,
        collect.send_stops,
        _unverified,
        _notify,
        _sealed,
        _prune,
    )
    with desk.control.tally.timed(TICK_SECONDS):
        for part in parts:
            with apart(part.__name__):
                part(desk)
    return True


def _has_listened(desk: Desk) -> bool:
    """Whether control has been there for long enough to have heard whatever nodes had to say."""
    since = looks.LEASE.first(desk.control.store).tick_since
    return since is None or since <= desk.control.clock() - desk.control.settings.offline_after


def _notify(desk: Desk) -> None:
    """Notifications that are due are sent beside the tick."""
    if courier.is_due(desk.control):
        desk.notify()


def _prune(desk: Desk) -> None:
    retention.hourly(desk.control)


def _sealed(desk: Desk) -> None:
    """What was written to the audit trail gets its place in the chain."""
    chain.seal(desk.control)
    chain.note_head(desk.control)


def _unverified(desk: Desk) -> None:
    """Output that was not complete in its stream when its outcome came."""
    for row in looks.UNVERIFIED.rows(desk.control.store, since=desk.control.clock() - KEEP_TRYING):
        output.keep(desk, row.job)


def _lease(desk: Desk, holder: str) -> bool:
    now = desk.control.clock()
    row = looks.LEASE.first(desk.control.store)
    if row.tick_holder != holder and row.tick_until is not None and row.tick_until > now:
        return False
    was_away = row.tick_until is not None and row.tick_until + LEASE < now
    take = looks.BEGIN_LEASE if was_away else looks.KEEP_LEASE
    values = {
        "holder": holder,
        "now": now,
        "tick_holder": holder,
        "tick_until": now + LEASE,
        "tick_since": now,
    }
    with desk.control.store.write() as connection:
        return bool(take.run(connection, values))


def _each(desk: Desk, found: Iterable[str], what: Callable[[Run], None]) -> None:
    """Do something to executions, each locked in a transaction of its own, then hand over what may run."""
    for execution in dict.fromkeys(found):
        with apart(execution):
            with desk.control.store.write() as connection:
                what(Run.lock(desk.control, connection, execution))
            collect.settle(desk, execution)


def _timers(desk: Desk) -> None:
    now = desk.control.clock()
    due = looks.DUE.rows(desk.control.store, now=now)
    if any(row.kind.startswith("timeout") for row in due) and not _has_listened(desk):
        due = looks.DUE_WITHOUT_TIMEOUTS.rows(desk.control.store, now=now)

    def fire(run: Run) -> None:
        for row in due:
            if row.execution == run.execution and _still_due(run.connection, row, now):
                run.take(TimerDue(row.task, row.unit, row.kind))

    _each(desk, (row.execution for row in due), fire)


def _still_due(connection: Connection, row: Any, now: float) -> bool:
    query = select(timers.c.due_at).where(
        timers.c.execution == row.execution,
        timers.c.task == row.task,
        timers.c.unit == row.unit,
        timers.c.kind == row.kind,
        timers.c.due_at <= now,
    )
    return connection.execute(query).first() is not None


def _put_off(desk: Desk) -> None:
    """Executions whose first jobs are still to be born, and whose nudge was lost."""
    for row in looks.UNBORN.rows(desk.control.store, before=desk.control.clock() - SETTLE_AFTER):
        with apart(row.id):
            collect.settle(desk, row.id)


def _unsettled(desk: Desk) -> None:
    """Jobs that are over and that no settle has folded: a chord body that never came."""
    for row in looks.UNSETTLED.rows(desk.control.store, before=desk.control.clock() - SETTLE_AFTER):
        with apart(row.execution):
            collect.settle(desk, row.execution)


def _families(desk: Desk) -> None:
    """Workflows that are called and were not started, and ends that the caller was not told."""
    for execution in families.left_alone(desk.control):
        with apart(execution):
            families.align(desk.control, execution)


def _queued(desk: Desk) -> None:
    """Jobs that wait, on nodes that are online: rows whose sending was lost, and slots that came free."""
    for row in looks.WITH_QUEUE.rows(desk.control.store, seen=_seen(desk)):
        collect.make_room(desk, row.node)


def _held_up(desk: Desk) -> None:
    """`queue_timeout` runs while a node is away: from when it goes, not after it came back."""
    found = looks.HELD_UP.rows(desk.control.store, seen=_seen(desk))

    def note(run: Run) -> None:
        for row in found:
            back = update(jobs).where(jobs.c.id == row.id, jobs.c.status == QUEUED)
            if row.execution == run.execution and row.is_here:
                run.connection.execute(back.values(give_up_at=None))
                if run.plan.tasks[row.task].kind == "job":
                    run.take(NodeBack(row.task))

    # The settle that follows says of the others since when they wait.
    _each(desk, (row.execution for row in found), note)


def _seen(desk: Desk) -> float:
    """Since when a node must have been heard of to be here."""
    return desk.control.clock() - desk.control.settings.offline_after


def _still(run: Run, names: Iterable[str], is_so: Any) -> set[str]:
    """Those of the nodes of which it still holds, now that the execution is locked: others were seen to before it."""
    return set(
        run.connection.execute(select(nodes.c.name).where(nodes.c.name.in_(set(names)), is_so)).scalars()
    )


def _given_up(desk: Desk) -> None:
    """`queue_timeout`: the node stayed away for too long. One that is back has its jobs, also where not all of them are
    noted yet."""
    seen = _seen(desk)
    due = looks.TO_GIVE_UP.rows(desk.control.store, now=desk.control.clock(), seen=seen)
    is_away = ~looks.is_here(seen)

    def give_up(run: Run) -> None:
        mine = [row for row in due if row.execution == run.execution]
        away = _still(run, (row.node for row in mine), is_away)
        for row in mine:
            if row.node in away:
                was = "offline" if row.state == "active" else row.state
                message = f"node {row.node} was {was} for as long as queue_timeout allows"
                lost.fail(run, row.id, QUEUED, {"type": "node_offline", "message": message})

    _each(desk, (row.execution for row in due), give_up)


def _away(desk: Desk) -> None:
    """Nodes that are silent: their jobs are suspect, after `lost_after` lost."""
    settings, now = desk.control.settings, desk.control.clock()
    found = looks.ON_SILENT.rows(desk.control.store, seen=now - settings.offline_after)
    lost_ones = looks.is_silent(now - settings.lost_after)
    suspects = [row.id for row in found if row.status in (ACCEPTED, RUNNING)]
    if suspects:
        with desk.control.store.write() as connection:
            still = select(jobs.c.id).where(jobs.c.id.in_(suspects), jobs.c.status.in_((ACCEPTED, RUNNING)))
            # What somebody else is at is looked at again in the next tick.
            free = connection.execute(still.with_for_update(skip_locked=True)).scalars()
            connection.execute(update(jobs).where(jobs.c.id.in_(list(free))).values(status=SUSPECT))
    gone = [row for row in found if row.last_seen is None or row.last_seen <= now - settings.lost_after]

    def lose(run: Run) -> None:
        mine = [row for row in gone if row.execution == run.execution]
        away = _still(run, (row.node for row in mine), lost_ones)
        for row in mine:
            if row.node in away:
                lost.lose(run, row.id)

    _each(desk, (row.execution for row in gone), lose)


def _backstops(desk: Desk) -> None:
    """A script that should have been ended by its node long ago, and no word of it."""
    due = looks.OVERDUE.rows(desk.control.store, now=desk.control.clock())

    def end(run: Run) -> None:
        for row in due:
            if row.execution == run.execution:
                message = "the timeout is over and the node did not report an end"
                error = {"type": "timeout", "message": message}
                lost.fail(run, row.id, row.status, error, status=TIMED_OUT, effect_unknown=True)

    _each(desk, (row.execution for row in due), end)


def _unstoppable(desk: Desk) -> None:
    """A cancel that a node never confirmed, or cannot, for it lost the job: cancelled all the same, and said so."""
    before = desk.control.clock() - desk.control.settings.cancel_patience
    due = looks.UNSTOPPED.rows(desk.control.store, before=before)

    def give_up(run: Run) -> None:
        for row in due:
            if row.execution == run.execution:
                why = "does not know what became of it" if row.status == UNKNOWN else "cannot be reached"
                message = f"node {row.node} {why}; the script may still run"
                error = {"type": "cancelled", "message": message}
                lost.fail(run, row.id, row.status, error, status=CANCELLED, effect_unknown=True)

    _each(desk, (row.execution for row in due), give_up)


_OF_SILENCE = (_given_up, _unstoppable, _away, _backstops)
"""What follows from a node's silence. A control side that was away itself waits for what was said meanwhile."""
