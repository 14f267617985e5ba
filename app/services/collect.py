"""A node's answer comes in (`app.services.intake`), what follows is signed and sent; and the nudges that settle."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, exists, or_, select, update

from app.engine.status import JOB_OUT, PAUSE, QUEUED
from app.services import families, handover, outcomes, queued, room, workspaces
from app.services.control import Control
from app.services.dead_letters import letter
from app.services.handover import Parcel
from app.services.intake import Came, Canvas, Collected, Intake, in_order, note_end
from app.services.orders import Recipient, Signer
from app.services.run import Run
from app.store.looks import Look
from app.store.prepared import one_of
from app.store.tables import Execution, Job, Node, table
from app.transport.canvas import Member
from app.transport.output import OutputReader
from app.transport.sealing import Refused, open_outcome

log = logging.getLogger(__name__)
executions, jobs, nodes = table(Execution), table(Job), table(Node)

_QUEUED = Look(select(jobs.c.id).where(jobs.c.node == bindparam("node"), jobs.c.status == QUEUED), 1)
_TO_STOP = (
    jobs.c.stop_asked_at.is_not(None),
    one_of(jobs.c.status, JOB_OUT),
    or_(jobs.c.stop_sent_at.is_(None), jobs.c.stop_sent_at < bindparam("before")),
)
"""Jobs that are to be stopped, and that a node was not told of since `before`."""
_ANY_TO_STOP = Look(select(jobs.c.id).where(*_TO_STOP), 1)

STOPS_AT_ONCE = 5000
_GOING_ON = select(jobs.c.id, jobs.c.node).where(one_of(jobs.c.status, JOB_OUT), jobs.c.along.is_not(None))
"""Jobs behind which their nodes go on by themselves."""
_TO_HOLD_OF = Look(_GOING_ON.where(jobs.c.execution == bindparam("execution")), STOPS_AT_ONCE)
_TO_HOLD_ON = Look(
    _GOING_ON.where(jobs.c.node == bindparam("node")).where(
        or_(
            exists().where(executions.c.id == jobs.c.execution, executions.c.intent == PAUSE),
            exists().where(nodes.c.name == jobs.c.node, nodes.c.state != "active"),
        )
    ),
    STOPS_AT_ONCE,
)
IDS_AN_ORDER = 500


def untold(execution: str) -> None:
    """For where nobody waits: the rows say that it is over."""


def uncalled(jobs: Iterable[str]) -> None:
    """For where nobody makes calls: the tick says it again."""


def unsent() -> None:
    """For where nobody sends notifications: their rows stay as they are."""


@dataclass(frozen=True, slots=True)
class Desk:
    """A control worker's place: it alone signs and sends.

    `send` takes lines with their sealed first orders, `send_ctl` a node's name and an order about jobs; neither
    raises for a broker that is away. `streams` reads live output. `tell_over` wakes those who wait for an execution's
    end, `call` those who make calls from the control side, `notify` whoever sends notifications.
    """

    control: Control
    signer: Signer
    node_keys: outcomes.NodeKeys
    send: Callable[[Sequence[tuple[Member, str]]], None]
    send_ctl: Callable[[str, str], None]
    streams: OutputReader
    tell_over: Callable[[str], None] = untold
    call: Callable[[Iterable[str]], None] = uncalled
    notify: Callable[[], None] = unsent


def collect(desk: Desk, tokens: Sequence[Any], canvas: Canvas, *, redelivered: bool) -> Collected:
    """Take in the outcomes of one message. Never raises for what a node or a writer on the broker sent.

    `canvas` came with the message, and belongs to the last of them.
    """
    came = in_order([one for token in tokens if (one := _opened(desk, token)) is not None])
    if not came:
        return Collected()
    if came[-1].token is not tokens[-1]:
        canvas = Canvas()
    now = desk.control.clock()

    def take(connection: Connection) -> Intake:
        taken = Intake(desk.control, connection, canvas, redelivered=redelivered)
        taken.take(came)
        return taken

    taken = desk.control.store.write_together(take)
    if taken.next is not None:
        told, to = taken.next
        taken.answer.order = handover.sealed(desk.signer, told, to, now)
    handover.deliver(desk.send, desk.signer, taken.parcel, now)
    _tell(desk, taken.parcel)
    for recall in taken.recalls:
        tell_nodes(desk, recall.kind, {recall.node: [recall.job]})
    for node in taken.crowded:
        if not _goes_to(node, taken.parcel):
            make_room(desk, node)
    return taken.answer


def _opened(desk: Desk, token: Any) -> Came | None:
    try:
        outcome = open_outcome(token, desk.signer.keys, desk.node_keys, installation=desk.signer.installation)
    except Refused as refused:
        refuse(desk.control, "results", refused.code, str(token))
        return None
    return Came(token, outcome, workspaces.read_papers(desk.control, outcome))


def _goes_to(node: str, parcel: Parcel) -> bool:
    """Whether something leaves for this node: then the slot that has come free on it is taken already."""
    orders = parcel.orders.values()
    return any(one.name == node for *_, one in parcel.members) or any(one.name == node for _, one in orders)


def settle(desk: Desk, execution: str) -> None:
    """One idempotent fold of every job that is over and unsettled, then whatever may run is handed over."""
    parcel = Parcel()
    with desk.control.store.write() as connection:
        run = Run.lock(desk.control, connection, execution)
        with run.gathered():
            run.settle()
            run.wake()
            run.dispatch += queued.of(run)
            handover.admit(run, parcel)
        stops, held = run.stops or run.head.state.halt, run.head.state.intent == PAUSE
        if families.has_children(run.plan):
            parcel.families.add(run.execution)
        note_end(run, parcel)
    handover.deliver(desk.send, desk.signer, parcel, desk.control.clock())
    _tell(desk, parcel)
    if stops:
        send_stops(desk)
    if held:
        # The heartbeats of their nodes see to it that it is said again.
        tell_nodes(desk, "hold", _by_node(_TO_HOLD_OF.rows(desk.control.store, execution=execution)))


def remind(desk: Desk, node: str) -> None:
    """A node that would go on by itself is told that it is not to: of a pause, or that it is draining."""
    tell_nodes(desk, "hold", _by_node(_TO_HOLD_ON.rows(desk.control.store, node=node)))


def _tell(desk: Desk, parcel: Parcel) -> None:
    desk.call(parcel.calls)
    for execution in parcel.over:
        desk.tell_over(execution)
    for execution in parcel.families:
        families.align(desk.control, execution)


def send_stops(desk: Desk) -> None:
    """Send signed cancels for every job that is to be stopped and has not been told within the last seconds."""
    now = desk.control.clock()
    before = now - desk.control.settings.resend_after
    if _ANY_TO_STOP.first(desk.control.store, before=before) is None:
        return
    with desk.control.store.write() as connection:
        free = select(jobs.c.id, jobs.c.node).where(*_TO_STOP).with_for_update(skip_locked=True)
        found = _by_node(connection.execute(free.params(before=before).limit(STOPS_AT_ONCE)))
        ids = [job for on_node in found.values() for job in on_node]
        connection.execute(update(jobs).where(jobs.c.id.in_(ids)).values(stop_sent_at=now))
    tell_nodes(desk, "cancel", found)


def _by_node(rows: Iterable[Any]) -> dict[str, list[str]]:
    """The ids of jobs by the names of their nodes."""
    found: dict[str, list[str]] = {}
    for job, node in rows:
        found.setdefault(node, []).append(job)
    return found


def tell_nodes(desk: Desk, kind: str, by_node: Mapping[str, Sequence[str]]) -> None:
    """Send each node a signed order about its jobs."""
    if not by_node:
        return
    now, settings = desk.control.clock(), desk.control.settings
    with desk.control.store.read() as connection:
        where = handover.places(connection, by_node, now, settings.offline_after)
    for node, found in by_node.items():
        if node in where:
            tell(desk, kind, tuple(found), where[node].recipient)


def tell(desk: Desk, kind: str, about: tuple[str, ...], to: Recipient) -> None:
    """Send a signed order about jobs to a node's `.ctl`; best effort: the tick or a heartbeat has it said again."""
    for start in range(0, len(about), IDS_AN_ORDER):
        ids = about[start : start + IDS_AN_ORDER]
        desk.send_ctl(to.name, desk.signer.about(kind, ids, to, desk.control.clock()))


def make_room(desk: Desk, node: str) -> None:
    """A slot of this node is free again: hand over what waits for it, in a transaction of its own."""
    if _QUEUED.first(desk.control.store, node=node) is None:
        return
    parcel = Parcel()
    with desk.control.store.write() as connection:
        room.promote(desk.control, connection, node, parcel)
    handover.deliver(desk.send, desk.signer, parcel, desk.control.clock())
    desk.control.nudge(parcel.woken)


def refuse(control: Control, queue: str, reason: str, item: str) -> None:
    """Keep a refused message, cut, with its reason."""
    with control.store.write() as connection:
        letter(connection, queue, reason, item, control.clock())
    log.warning("refused on %s: %s", queue, reason)
