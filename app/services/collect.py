"""A node's answer comes in: record it, let the engine say what is next, and go on with the chain if that is b.

The rule (prototyped under kill -9 and duplicates): a fresh and foreseen outcome goes on with the chain; one that is
not fresh goes on only if the broker marked the message redelivered and the next job is still dispatched and
unaccepted; everything else cuts. A duplicate sends nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sqlalchemy import Connection, bindparam, insert, or_, select, update

from app.compiler.canvas import Signature
from app.compiler.plan import IO
from app.engine.state import JobState
from app.engine.status import (
    DISPATCHED,
    EXECUTION_OVER,
    GATE_PENDING,
    JOB_OUT,
    PAUSE,
    QUEUED,
    SUCCEEDED,
    UNKNOWN,
)
from app.logs import scope
from app.services import calls, families, handover, outcomes, telling, workspaces
from app.services.approved import NotApproved
from app.services.control import Control
from app.services.handover import Parcel
from app.services.lost import lose
from app.services.orders import Recipient, Signer
from app.services.run import Run
from app.services.telling import Told
from app.services.vault import SecretRefused
from app.store import executions as rows
from app.store import jobs as job_rows
from app.store.head import Head
from app.store.jobs import JobRow
from app.store.prepared import Query
from app.store.tables import DeadLetter, Job, table
from app.transport.canvas import Member, rest_digest
from app.transport.gate import Poison
from app.transport.messages import Outcome
from app.transport.output import OutputReader
from app.transport.sealing import Refused, open_outcome

log = logging.getLogger(__name__)
jobs, dead_letters = table(Job), table(DeadLetter)

_any_queued = select(jobs.c.id).where(jobs.c.node == bindparam("node"), jobs.c.status == QUEUED).limit(1)

_queued_jobs = (
    select(*(jobs.c[name] for name in rows.JOB_COLUMNS))
    .where(jobs.c.execution == bindparam("execution"), jobs.c.status == QUEUED)
    .where(jobs.c.node != "", jobs.c.node != IO)
    .with_for_update(skip_locked=True)
)
"""Who has one of them locked is handing it over (`handover.promote`)."""
_select_queued = Query(_queued_jobs.order_by(jobs.c.created_at, jobs.c.unit), JobState)
_select_next_unit = Query(
    _queued_jobs.where(jobs.c.task == bindparam("task"), jobs.c.give_up_at.is_(None))
    .order_by(jobs.c.unit)
    .limit(1),
    JobState,
)

STOPS_AT_ONCE = 5000
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


@dataclass(frozen=True, slots=True)
class Canvas:
    """What came back with an outcome, taken off the message: links (next one first), and the chord it counts for."""

    rest: Sequence[Signature] = ()
    body: Signature | None = None
    group_id: str | None = None

    @property
    def digest(self) -> str:
        return rest_digest(self.rest, self.body, self.group_id)


@dataclass(slots=True)
class Collected:
    """What the `collect` job function is to do: `order` goes to the next link, or the chain is cut.

    `counts` says that the chord may count this member.
    """

    order: str | None = None
    counts: bool = False
    fetch: tuple[str, ...] = ()
    settle: set[str] = field(default_factory=set)


def collect(desk: Desk, token: Any, canvas: Canvas, *, redelivered: bool) -> Collected:
    """Take in one outcome. Never raises for what a node or a writer on the broker sent."""
    try:
        outcome = open_outcome(token, desk.signer.keys, desk.node_keys, installation=desk.signer.installation)
    except Refused as refused:
        refuse(desk.control, "results", refused.code, str(token))
        return Collected()
    parcel, answer = Parcel(), Collected()
    papers = workspaces.read_papers(desk.control, outcome)
    now = desk.control.clock()
    with desk.control.store.write() as connection:
        row, head = _find(connection, outcome.job, canvas)
        if row is None or not outcomes.belongs(row, outcome):
            letter(connection, "results", "no-such-job" if row is None else "other-job", outcome.job, now)
            return answer
        scope.note(execution=row.execution, task=row.task, job=row.id, node=row.node, trace_id=row.trace_id)
        genuine = _is_genuine(canvas, row)
        if not genuine:
            letter(connection, "results", "other-canvas", outcome.job, now)
        answer.counts = canvas.body is not None and genuine
        if answer.counts and outcome.status != UNKNOWN:
            _member(connection, row, outcome, now, answer)
            message = None
        else:
            plan = rows.plan(connection, row.plan_digest)
            head = head or rows.lock(connection, row.execution)
            run = Run(desk.control, connection, head, plan)
            rest = canvas.rest if genuine else ()
            filing = workspaces.Filing(run, row, outcome, papers)
            message = _line(run, row, outcome, filing, rest, parcel, redelivered=redelivered)
    if message is not None:
        told, to = message
        answer.order = desk.signer.run(told.message, told.opened.values, to, now)
    handover.deliver(desk.send, desk.signer, parcel, now)
    _tell(desk, parcel)
    if row.crowded and not _goes_to(outcome.node, parcel):
        make_room(desk, outcome.node)
    if outcomes.is_incomplete(outcome):
        answer.fetch = (outcome.job,)
    return answer


def _goes_to(node: str, parcel: Parcel) -> bool:
    """Whether something leaves for this node: then the slot that has come free on it is taken already."""
    orders = parcel.orders.values()
    return any(one.name == node for *_, one in parcel.members) or any(one.name == node for _, one in orders)


def _find(connection: Connection, job: str, canvas: Canvas) -> tuple[JobRow | None, Head | None]:
    """The job's row, with its execution's where the outcome moves it: a chord's member takes its job row only."""
    if canvas.body is not None:
        return job_rows.find(connection, job), None
    return job_rows.lock_execution_of(connection, job) or (None, None)


def _is_genuine(canvas: Canvas, row: JobRow) -> bool:
    """Whether the canvas that came back is, link for link, one that went out with this job's orders.

    A job that was sent again has two: what it was sent with at first, and the line of its own that it was sent
    with later.
    """
    try:
        return canvas.digest in (row.canvas_digest, row.first_canvas_digest)
    except Poison:
        return False


def _member(connection: Connection, row: JobRow, outcome: Outcome, now: float, answer: Collected) -> None:
    """A chord's member touches its own row only; the body settles. What cannot wait nudges a settle at once."""
    given = partial(job_rows.input_of, connection, row)
    fresh = outcomes.record(connection, row, outcome, now, given, settled=False)
    if fresh and outcome.status != SUCCEEDED:
        answer.settle.add(row.execution)


def _line(
    run: Run,
    row: JobRow,
    outcome: Outcome,
    filing: outcomes.Filing,
    rest: Sequence[Signature],
    parcel: Parcel,
    *,
    redelivered: bool,
) -> tuple[Told, Recipient] | None:
    """The last `collect` of a line settles in its own transaction; in mid-line the chain goes on."""

    def given() -> Mapping[str, Any]:
        return row.given["input"] if row.given is not None else run.input_of(row.task)[0]

    written = outcomes.record(run.connection, row, outcome, run.now, given, filing, settled=True)
    if written is None:
        return _again(run, rest) if redelivered else None
    with run.gathered():
        if outcome.status == UNKNOWN:
            lose(run, row.id)
        else:
            run.fold(_as_state(row, written))
        run.dispatch += _next_of(run, row.task)
        follower = handover.admit(run, parcel, rest)
    _note_end(run, parcel)
    return parcel.orders.get(follower) if follower else None


def _as_state(row: JobRow, written: Mapping[str, Any]) -> JobState:
    """The job as it stands now, but for `settled`, which the engine has still to say."""
    outcome = {name: value for name, value in written.items() if name != "recorded_at"}
    return JobState(
        row.id,
        row.task,
        row.unit,
        row.attempt,
        row.node,
        queue_timeout=row.queue_timeout,
        given=row.given,
        **outcome,
    )


def _next_of(run: Run, task: str) -> list[JobState]:
    """The next queued unit of a fan-out or loop that is wider than its window: a place in it has just come free."""
    if run.plan.tasks[task].kind not in ("fanout", "loop") or run.head.state.halt:
        return []
    return _seen(run, _select_next_unit, task=task)


def _again(run: Run, rest: Sequence[Signature]) -> tuple[Told, Recipient] | None:
    """A redelivered message whose next job no node has seen: the same job once more."""
    if not rest:
        return None
    state = rows.load_job(run.connection, rest[0]["options"]["task_id"])
    if state is None or state.status != DISPATCHED:
        return None
    place = handover.places(run.connection, {state.node}, run.now, run.control.settings.offline_after).get(
        state.node
    )
    if place is None:
        return None
    try:
        about, given = telling.of_run(run), run.given_to(state)
        told = telling.again(run.control, run.connection, about, run.plan, state, given)
        return told, place.recipient
    except (SecretRefused, NotApproved):
        # As where an order is sent again: it waits until the one that was sent has expired.
        return None


def settle(desk: Desk, execution: str) -> None:
    """One idempotent fold of every job that is over and unsettled, then whatever may run is handed over."""
    parcel = Parcel()
    with desk.control.store.write() as connection:
        run = Run.lock(desk.control, connection, execution)
        with run.gathered():
            run.settle()
            run.wake()
            run.dispatch += _queued(run)
            handover.admit(run, parcel)
        stops = run.stops or run.head.state.halt
        _note_end(run, parcel, settled=True)
    handover.deliver(desk.send, desk.signer, parcel, desk.control.clock())
    _tell(desk, parcel)
    if stops:
        send_stops(desk)


def _note_end(run: Run, parcel: Parcel, *, settled: bool = False) -> None:
    if run.children or (settled and families.has_children(run.plan)):
        parcel.families.add(run.execution)
    if run.head.state.status in EXECUTION_OVER:
        parcel.over.add(run.execution)
        if run.head.parent is not None:
            parcel.families.add(run.head.parent)


def _tell(desk: Desk, parcel: Parcel) -> None:
    desk.call(parcel.calls)
    for execution in parcel.over:
        desk.tell_over(execution)
    for execution in parcel.families:
        families.align(desk.control, execution)


def _queued(run: Run) -> list[JobState]:
    """Jobs that were born in another process (the API holds no key), or waited."""
    found = _seen(run, _select_queued)
    for task in calls.waiting_tasks(run):
        found += _seen(run, calls.select_waiting, task=task)
    return found


def _seen(run: Run, query: Query[JobState], **values: Any) -> list[JobState]:
    """The queued jobs that the query finds in this execution and `run` has not yet, now in its slice as well."""
    if run.head.state.intent == PAUSE or run.head.state.gate == GATE_PENDING:
        return []
    known = {job.id for job in run.dispatch}
    found = query.all(run.connection, execution=run.execution, **values)
    seen = [run.slice.jobs.setdefault(job.id, job) for job in found]
    return [job for job in seen if job.status == QUEUED and job.id not in known]


def send_stops(desk: Desk) -> None:
    """Send signed cancels for every job that is to be stopped and has not been told within the last seconds."""
    now = desk.control.clock()
    due = now - desk.control.settings.resend_after
    wanted = (
        jobs.c.stop_asked_at.is_not(None),
        jobs.c.status.in_(JOB_OUT),
        or_(jobs.c.stop_sent_at.is_(None), jobs.c.stop_sent_at < due),
    )
    with desk.control.store.read() as connection:
        if connection.execute(select(jobs.c.id).where(*wanted).limit(1)).first() is None:
            return
    with desk.control.store.write() as connection:
        by_node: dict[str, list[str]] = {}
        free = select(jobs.c.id, jobs.c.node).where(*wanted).with_for_update(skip_locked=True)
        for row in connection.execute(free.limit(STOPS_AT_ONCE)):
            by_node.setdefault(row.node, []).append(row.id)
        ids = [job for found in by_node.values() for job in found]
        connection.execute(update(jobs).where(jobs.c.id.in_(ids)).values(stop_sent_at=now))
        where = handover.places(connection, by_node, now, desk.control.settings.offline_after)
    for node, found in by_node.items():
        if node in where:
            tell(desk, "cancel", tuple(found), where[node].recipient)


def tell(desk: Desk, kind: str, about: tuple[str, ...], to: Recipient) -> None:
    """Send a signed order about jobs to a node's `.ctl`; best effort, the tick repeats it."""
    for start in range(0, len(about), IDS_AN_ORDER):
        ids = about[start : start + IDS_AN_ORDER]
        desk.send_ctl(to.name, desk.signer.about(kind, ids, to, desk.control.clock()))


def make_room(desk: Desk, node: str) -> None:
    """A slot of this node is free again: hand over what waits for it, in a transaction of its own."""
    with desk.control.store.read() as connection:
        if connection.execute(_any_queued, {"node": node}).first() is None:
            return
    parcel = Parcel()
    with desk.control.store.write() as connection:
        handover.promote(desk.control, connection, node, parcel)
    handover.deliver(desk.send, desk.signer, parcel, desk.control.clock())
    desk.control.nudge(parcel.woken)


def refuse(control: Control, queue: str, reason: str, item: str) -> None:
    """Keep a refused message, cut, with its reason."""
    with control.store.write() as connection:
        letter(connection, queue, reason, item, control.clock())
    log.warning("refused on %s: %s", queue, reason)


def letter(connection: Connection, queue: str, reason: str, item: str, now: float) -> None:
    """Keep a refused message, cut, in the caller's transaction."""
    values: Mapping[str, Any] = {"at": now, "queue": queue, "reason": reason[:64], "item": item[:2000]}
    connection.execute(insert(dead_letters).values(values))
