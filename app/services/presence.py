"""What nodes say of themselves: jobs accepted and running, heartbeats, answers to questions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, func, literal, or_, select, update

from app.engine.events import NodeBack
from app.engine.status import (
    ACCEPTED,
    CANCELLED,
    DISPATCHED,
    JOB_HELD,
    RUNNING,
    SUSPECT,
    UNKNOWN,
)
from app.logs import scope
from app.services import handover, room
from app.services.collect import Desk, make_room, refuse, remind, tell_nodes
from app.services.dead_letters import letter
from app.services.dispatched import BACKSTOP_MARGIN
from app.services.fleet import WORKER
from app.services.handover import Parcel
from app.services.lost import fail, lose
from app.services.measures import REFUSED
from app.services.run import Run
from app.store.prepared import Command, Query, one_of
from app.store.tables import Job, Node, table
from app.transport.life import Heartbeat, Report
from app.transport.sealing import Refused, open_heartbeat, open_report

jobs, nodes = table(Job), table(Node)

MISSED_BEATS = 2
"""Newer heartbeats without a job before its node is asked about it (design 5)."""

MOST_LEFT = 100
"""Journals of a node that are remembered once it has another: a heartbeat of one of them counts no more."""

FILES_MARGIN = 900.0
"""The same on top for a job with files: its node says how it ended once they are back, however long they take."""


def report(desk: Desk, token: Any) -> None:
    """Jobs that a node accepted, runs, or does not know. Moves rows forward only."""
    try:
        said = open_report(token, desk.node_keys, installation=desk.signer.installation)
    except Refused as refused:
        refuse(desk.control, "results", refused.code, str(token))
        return
    scope.note(node=said.node)
    heard: dict[str, dict[str, float]] = {}
    for job, status, at in said.jobs:
        if status in (ACCEPTED, RUNNING):
            heard.setdefault(job, {})[status] = at
    with desk.control.store.write() as connection:
        left = _all_heard(connection, said, heard, desk.control.clock(), skip_locked=True)
    for job in left:
        # Somebody is at it, who may need any of the others next: so it is waited for with none of them in hand.
        with desk.control.store.write() as connection:
            _all_heard(connection, said, {job: heard[job]}, desk.control.clock())
    for job, status, _ in said.jobs:
        if status == "not_known":
            _not_known(desk, _of_journal(job, said))


def _all_heard(
    connection: Connection,
    said: Report,
    heard: Mapping[str, Mapping[str, float]],
    now: float,
    *,
    skip_locked: bool = False,
) -> list[str]:
    """Move the jobs forward. Returns those that were left out because somebody has them locked."""
    mine = (jobs.c.id.in_(heard), jobs.c.node == said.node, jobs.c.epoch == said.epoch)
    known = list(connection.execute(select(jobs.c.id).where(*mine).order_by(jobs.c.id)).scalars())
    done = set()
    query = select(jobs.c.id, jobs.c.time_limit, jobs.c.snapshot).where(*mine).order_by(jobs.c.id)
    for row in connection.execute(query.with_for_update(skip_locked=skip_locked)).all():
        done.add(row.id)
        moments = heard[row.id]
        if RUNNING in moments:
            _running(connection, row, moments.get(ACCEPTED, moments[RUNNING]), moments[RUNNING], now)
        else:
            _accepted(connection, row.id, moments[ACCEPTED])
    return [job for job in known if job not in done]


def _of_journal(job: str, said: Report) -> tuple[Any, ...]:
    return (jobs.c.id == job, jobs.c.node == said.node, jobs.c.epoch == said.epoch)


def _accepted(connection: Connection, job: str, at: float) -> None:
    moved = update(jobs).where(jobs.c.id == job, jobs.c.status == DISPATCHED)
    connection.execute(moved.values(status=ACCEPTED, accepted_at=at, missing=0))


def _running(connection: Connection, row: Any, accepted_at: float, at: float, now: float) -> None:
    """Its time runs: should the node never report an end, the backstop does.

    In one statement with that it was accepted: to change a row twice has PostgreSQL lock its execution.
    """
    margin = BACKSTOP_MARGIN if row.snapshot is None else BACKSTOP_MARGIN + FILES_MARGIN
    backstop = None if row.time_limit is None else now + row.time_limit + margin
    moved = update(jobs).where(jobs.c.id == row.id, jobs.c.status.in_((DISPATCHED, ACCEPTED, SUSPECT)))
    columns = {"status": RUNNING, "started_at": at, "missing": 0, "backstop_at": backstop}
    connection.execute(moved.values(**columns, accepted_at=_first_accepted(accepted_at)))


def _first_accepted(at: float) -> Any:
    """When a node first had the job: it is never sent again after that."""
    return func.coalesce(jobs.c.accepted_at, literal(at, jobs.c.accepted_at.type))


def _not_known(desk: Desk, mine: tuple[Any, ...]) -> None:
    """The node's journal has no such job. One that it never accepted can be sent again; any other is unknown."""
    with desk.control.store.write() as connection:
        execution = connection.execute(select(jobs.c.execution).where(*mine)).scalar()
        if execution is None:
            return
        run = Run.lock(desk.control, connection, execution)
        columns = (jobs.c.id, jobs.c.task, jobs.c.accepted_at, jobs.c.status)
        row = connection.execute(select(*columns).where(*mine).with_for_update()).one()
        if row.accepted_at is None and row.status in (DISPATCHED, UNKNOWN):
            again = update(jobs).where(jobs.c.id == row.id, jobs.c.settled.is_(False))
            sent = connection.execute(
                again.values(status=DISPATCHED, send_after=run.now, error=None)
            ).rowcount
            if sent and row.status == UNKNOWN:
                run.take(NodeBack(row.task))
        elif row.status in JOB_HELD:
            lose(run, row.id)


class _Known(NamedTuple):
    """What is known of a node that is heard."""

    transport: str
    epoch: str
    sequence: int
    left_epochs: list[str]
    versions: dict[str, str] | None


class _Out(NamedTuple):
    """A job that its node should hold, or may."""

    id: str
    execution: str
    task: str
    status: str
    missing: int
    send_after: float
    stop_asked_at: float | None
    stop_sent_at: float | None


_KNOWN = Query(
    select(*(nodes.c[name] for name in _Known._fields)).where(nodes.c.name == bindparam("name")), _Known
)


def _heard(*columns: str) -> Command:
    said = update(nodes).where(nodes.c.name == bindparam("node"))
    return Command(said.values({name: bindparam(name) for name in columns}))


_SAID = ("epoch", "sequence", "slots", "free", "shells", "versions", "heard_at", "last_seen")
_HEARD, _HEARD_AT = _heard(*_SAID), _heard(*_SAID, "address")
_OUT_THERE = Query(
    select(*(jobs.c[name] for name in _Out._fields))
    .where(jobs.c.node == bindparam("node"))
    .where(or_(one_of(jobs.c.status, (DISPATCHED, *JOB_HELD)), (jobs.c.status == UNKNOWN) & ~jobs.c.settled))
    .order_by(jobs.c.id)
    # What somebody else is at is seen to with the next heartbeat: nothing is waited for with these in hand.
    .with_for_update(skip_locked=True),
    _Out,
)


def heartbeat(desk: Desk, token: Any) -> None:
    """A node is there: what it holds is compared with what the rows say."""
    try:
        beat = open_heartbeat(token, desk.node_keys, installation=desk.signer.installation)
    except Refused as refused:
        refuse(desk.control, "heartbeats", refused.code, str(token))
        return
    scope.note(node=beat.node)
    now = desk.control.clock()
    parcel = Parcel()
    with desk.control.store.write() as connection:
        known = _KNOWN.first(connection, name=beat.node)
        if known is None or (known.epoch == beat.epoch and beat.sequence <= known.sequence):
            return
        if beat.epoch in known.left_epochs:
            # Said before its journal was replaced, and said again by whoever kept it.
            code = "left-journal"
            letter(connection, "heartbeats", code, str(token), now)
            return
        if known.epoch and known.epoch != beat.epoch:
            _other_journal(desk, connection, beat.node, known.epoch)
            _leave(connection, beat.node, known)
        desk.control.tally.count(
            REFUSED, beat.node, by=_refusals(connection, known.versions or {}, beat, now)
        )
        # Where an SSH node is was said by whoever added it.
        heard = _HEARD_AT if known.transport == WORKER else _HEARD
        heard.run(connection, {"node": beat.node, **_seen(beat, now)})
        ask, moved = _compare(desk, connection, beat, parcel, now)
    for row in moved:
        _move(desk, row, parcel)
    if known.epoch != beat.epoch:
        desk.node_keys.forget()
    handover.deliver(desk.send, desk.signer, parcel, now)
    desk.control.nudge(parcel.woken)
    remind(desk, beat.node)
    tell_nodes(desk, "ask", {beat.node: ask} if ask else {})
    make_room(desk, beat.node)


def _refusals(connection: Connection, before: Mapping[str, Any], beat: Heartbeat, now: float) -> int:
    """What the node refused since its last heartbeat goes into the dead letters: it has no database of its own.

    Returns how many.
    """
    said, known = _count(beat.versions.get("refused")), _count(before.get("refused"))
    # A smaller number: the worker was started anew and counts from nothing.
    fresh = said - known if said >= known else said
    if fresh:
        what = f"{fresh} messages; the node's log says why"
        letter(connection, f"node.{beat.node}", "refused-by-node", what, now)
    return fresh


def _count(text: Any) -> int:
    return int(text) if isinstance(text, str) and text.isdecimal() and len(text) < 10 else 0


def _seen(beat: Heartbeat, now: float) -> dict[str, Any]:
    """The columns of a node that was heard."""
    return {
        "address": beat.address,
        "epoch": beat.epoch,
        "sequence": beat.sequence,
        "slots": beat.slots,
        "free": beat.free,
        "shells": list(beat.shells),
        "versions": dict(beat.versions),
        "heard_at": beat.sent_at,
        "last_seen": now,
    }


def _other_journal(desk: Desk, connection: Connection, node: str, epoch: str) -> None:
    """The node's journal was lost: nothing is known of the jobs that the old one held."""
    query = select(jobs.c.id, jobs.c.execution).where(
        jobs.c.node == node, jobs.c.epoch == epoch, jobs.c.status.in_((DISPATCHED, *JOB_HELD))
    )
    for row in connection.execute(query.order_by(jobs.c.execution)).all():
        lose(Run.lock(desk.control, connection, row.execution), row.id)


def _leave(connection: Connection, node: str, known: _Known) -> None:
    left = [*known.left_epochs, known.epoch][-MOST_LEFT:]
    connection.execute(update(nodes).where(nodes.c.name == node).values(left_epochs=left))


def _compare(
    desk: Desk, connection: Connection, beat: Heartbeat, parcel: Parcel, now: float
) -> tuple[list[str], list[Any]]:
    """Re-send what the node has not seen.

    Returns what it should still hold and does not list, and the rows of jobs of which their executions must be told:
    an execution is locked before its jobs, so not here.
    """
    held = set(beat.held)
    ask, moved = [], []
    for row in _OUT_THERE.all(connection, node=beat.node):
        mine = jobs.c.id == row.id
        if row.id in held:
            if row.status == DISPATCHED:
                _accepted(connection, row.id, beat.sent_at)
            elif row.status in (UNKNOWN, SUSPECT):
                moved.append(row)
            elif row.missing:
                connection.execute(update(jobs).where(mine).values(missing=0))
        elif row.status == DISPATCHED:
            # Heard well after it was sent, with a slot free, and not listed: the order never came. By our own
            # clock: a node's may be wrong, and one order too many is harmless.
            if row.send_after > now or not beat.free:
                continue
            if row.stop_asked_at is None:
                room.resend(desk.control, connection, row.id, parcel)
            elif row.stop_sent_at is not None:
                moved.append(row)
        elif row.status == UNKNOWN or row.missing + 1 >= MISSED_BEATS:
            ask.append(row.id)
        else:
            connection.execute(update(jobs).where(mine).values(missing=row.missing + 1))
    return ask, moved


def _move(desk: Desk, row: Any, parcel: Parcel) -> None:
    """A node came back with the truth; or nobody has a job that is to be stopped anyway, so that it is over.

    The node has the cancel in its journal: should the order still come, it refuses it.
    """
    with desk.control.store.write() as connection:
        run = Run.lock(desk.control, connection, row.execution)
        if row.status == DISPATCHED:
            error = {"type": "cancelled", "message": "cancelled before any node had it"}
            fail(run, row.id, DISPATCHED, error, status=CANCELLED)
            parcel.woken.add(row.execution)
            return
        back = update(jobs).where(jobs.c.id == row.id, jobs.c.status == row.status, jobs.c.settled.is_(False))
        known = {"accepted_at": _first_accepted(run.now), "missing": 0, "error": None}
        if connection.execute(back.values(status=RUNNING, **known)).rowcount:
            run.take(NodeBack(row.task))
