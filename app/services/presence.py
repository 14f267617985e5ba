"""What nodes say of themselves: jobs accepted and running, heartbeats, answers to questions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, or_, select, update

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
from app.services import handover
from app.services.collect import Desk, letter, make_room, refuse, tell
from app.services.handover import Parcel
from app.services.lost import fail, lose
from app.services.measures import REFUSED
from app.services.run import Run
from app.store.tables import Job, Node, table
from app.transport.messages import Heartbeat
from app.transport.sealing import Refused, open_heartbeat, open_report

jobs, nodes = table(Job), table(Node)

MISSED_BEATS = 2
"""Newer heartbeats without a job before its node is asked about it (design 5)."""

BACKSTOP_MARGIN = 30.0
"""Seconds beyond timeout and grace after which the engine no longer waits for the node's word."""


def report(desk: Desk, token: Any) -> None:
    """Jobs that a node accepted, runs, or does not know. Moves rows forward only."""
    try:
        said = open_report(token, desk.node_keys, installation=desk.signer.installation)
    except Refused as refused:
        refuse(desk.control, "results", refused.code, str(token))
        return
    scope.note(node=said.node)
    with desk.control.store.write() as connection:
        for job, status, at in said.jobs:
            mine = (jobs.c.id == job, jobs.c.node == said.node, jobs.c.epoch == said.epoch)
            if status == "accepted":
                connection.execute(
                    update(jobs)
                    .where(*mine, jobs.c.status == DISPATCHED)
                    .values(status=ACCEPTED, accepted_at=at)
                )
            elif status == "running":
                _running(connection, mine, at, desk.control.clock())
            else:
                _not_known(desk, connection, mine)


def _running(connection: Connection, mine: tuple[Any, ...], at: float, now: float) -> None:
    """Its time runs: should the node never report an end, the backstop does."""
    limit = connection.execute(select(jobs.c.time_limit).where(*mine)).scalar()
    backstop = None if limit is None else now + limit + BACKSTOP_MARGIN
    moved = update(jobs).where(*mine, jobs.c.status.in_((DISPATCHED, ACCEPTED, SUSPECT)))
    connection.execute(moved.values(status=RUNNING, started_at=at, missing=0, backstop_at=backstop))


def _not_known(desk: Desk, connection: Connection, mine: tuple[Any, ...]) -> None:
    """The node's journal has no such job. One that it never accepted can be sent again; any other is unknown."""
    row = connection.execute(
        select(jobs.c.id, jobs.c.execution, jobs.c.task, jobs.c.accepted_at, jobs.c.status).where(*mine)
    ).first()
    if row is None:
        return
    run = Run.lock(desk.control, connection, row.execution)
    if row.accepted_at is None and row.status in (DISPATCHED, UNKNOWN):
        again = update(jobs).where(jobs.c.id == row.id, jobs.c.settled.is_(False))
        sent = connection.execute(again.values(status=DISPATCHED, send_after=run.now, error=None)).rowcount
        if sent and row.status == UNKNOWN:
            run.take(NodeBack(row.task))
    elif row.status in JOB_HELD:
        lose(run, row.id)


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
    ask: list[str] = []
    with desk.control.store.write() as connection:
        known = connection.execute(select(nodes).where(nodes.c.name == beat.node)).first()
        if known is None or (known.epoch == beat.epoch and beat.sequence <= known.sequence):
            return
        if known.epoch and known.epoch != beat.epoch:
            _other_journal(desk, connection, beat.node, known.epoch)
        desk.control.tally.count(
            REFUSED, beat.node, by=_refusals(connection, known.versions or {}, beat, now)
        )
        connection.execute(update(nodes).where(nodes.c.name == beat.node).values(_seen(beat, now)))
        ask = _compare(desk, connection, beat, parcel, now)
    if known.epoch != beat.epoch:
        desk.node_keys.forget()
    handover.deliver(desk.send, desk.signer, parcel, now)
    desk.control.nudge(parcel.woken)
    if ask:
        with desk.control.store.read() as connection:
            place = handover.places(connection, {beat.node}, now, desk.control.settings.offline_after)[
                beat.node
            ]
        tell(desk, "ask", tuple(ask), place.recipient)
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
    return {
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


def _compare(desk: Desk, connection: Connection, beat: Heartbeat, parcel: Parcel, now: float) -> list[str]:
    """Re-send what the node has not seen; return what it should still hold and does not list."""
    held = set(beat.held)
    query = select(
        jobs.c.id,
        jobs.c.status,
        jobs.c.missing,
        jobs.c.send_after,
        jobs.c.execution,
        jobs.c.stop_asked_at,
        jobs.c.stop_sent_at,
    ).where(
        jobs.c.node == beat.node,
        or_(jobs.c.status.in_((DISPATCHED, *JOB_HELD)), (jobs.c.status == UNKNOWN) & ~jobs.c.settled),
    )
    ask = []
    for row in connection.execute(query).all():
        if row.id in held:
            _held(desk, connection, row, beat)
        elif row.status == DISPATCHED:
            # Heard well after it was sent, with a slot free, and not listed: the order never came. By our own
            # clock: a node's may be wrong, and one order too many is harmless.
            if row.send_after <= now and beat.free > 0:
                _unseen(desk, connection, row, parcel)
        elif row.status == UNKNOWN or row.missing + 1 >= MISSED_BEATS:
            ask.append(row.id)
        else:
            connection.execute(update(jobs).where(jobs.c.id == row.id).values(missing=row.missing + 1))
    return ask


def _unseen(desk: Desk, connection: Connection, row: Any, parcel: Parcel) -> None:
    """Sent, and no node has it: once more; or, where it is to be stopped anyway, over.

    The node has the cancel in its journal: should the order still come, it refuses it.
    """
    if row.stop_asked_at is None:
        handover.resend(desk.control, connection, row.id, parcel)
    elif row.stop_sent_at is not None:
        run = Run.lock(desk.control, connection, row.execution)
        error = {"type": "cancelled", "message": "cancelled before any node had it"}
        fail(run, row.id, DISPATCHED, error, status=CANCELLED)
        parcel.woken.add(row.execution)


def _held(desk: Desk, connection: Connection, row: Any, beat: Heartbeat) -> None:
    """The node holds it: a report that was lost, or a node that came back with the truth."""
    if row.status == DISPATCHED:
        connection.execute(
            update(jobs)
            .where(jobs.c.id == row.id)
            .values(status=ACCEPTED, accepted_at=beat.sent_at, missing=0)
        )
    elif row.status in (UNKNOWN, SUSPECT):
        run = Run.lock(desk.control, connection, row.execution)
        task = connection.execute(select(jobs.c.task).where(jobs.c.id == row.id)).scalar_one()
        connection.execute(
            update(jobs).where(jobs.c.id == row.id).values(status=RUNNING, missing=0, error=None)
        )
        run.take(NodeBack(task))
    elif row.missing:
        connection.execute(update(jobs).where(jobs.c.id == row.id).values(missing=0))
