"""Handing jobs over: who may go now, in which canvas; then, after the commit, signed, sealed and sent.

A job is `queued` until it may go: its node is online, not draining, has fewer than 2 x slots orders outstanding, and
a wide fan-out has room in its window. `dispatched` is written in the transaction whose order is then sent.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, and_, func, not_, select, update

from app.compiler import canvas
from app.compiler.plan import IO, Plan
from app.engine.events import NodeAway
from app.engine.state import JobState
from app.engine.status import DISPATCHED, GATE_PENDING, JOB_OUT, QUEUED, RUN
from app.errors import InvalidInput, NotAllowed, TooLarge
from app.services import calls, telling, windows, workspaces
from app.services.approved import NotApproved
from app.services.control import Control
from app.services.measures import RESENT
from app.services.orders import Recipient, Signer
from app.services.run import Run, own_input
from app.services.telling import About, Told
from app.services.vault import SecretRefused
from app.store import executions as rows
from app.store.prepared import ByNames, one_of
from app.store.statements import set_columns, set_each
from app.store.tables import Execution, Job, Node, Task, table
from app.transport.canvas import Member, members, rest_digest
from app.transport.keys import Public

jobs, nodes, tasks, executions = table(Job), table(Node), table(Task), table(Execution)

ORDERS_PER_SLOT = 2
"""Orders outstanding on a node for each of its slots: one runs, one is ready to follow (design 5)."""


FULL_WINDOWS = 50
"""Loops and fan-outs with as many units outstanding as they may have that one look for waiting jobs goes past."""


@dataclass(frozen=True, slots=True)
class Place:
    """A node as a handover sees it: how many more orders it may get now."""

    recipient: Recipient
    online: bool
    free: int


@dataclass(slots=True)
class Parcel:
    """Everything that is to leave after the commit.

    `members` are lines to send, `orders` what a chain goes on with, `woken` executions of which a job that waited
    for its node went out: a settle tells their tasks. `over` are executions that have come to their end, `families`
    those with a workflow that they call to be seen to, `calls` the jobs that are calls from the control side.
    """

    members: list[tuple[Member, Told, Recipient]] = field(default_factory=list)
    orders: dict[str, tuple[Told, Recipient]] = field(default_factory=dict)
    woken: set[str] = field(default_factory=set)
    over: set[str] = field(default_factory=set)
    families: set[str] = field(default_factory=set)
    calls: list[str] = field(default_factory=list)


_outstanding = (
    select(func.count())
    .where(jobs.c.node == nodes.c.name, one_of(jobs.c.status, JOB_OUT))
    .correlate(nodes)
    .scalar_subquery()
)
_PLACE = ("name", "epoch", "public_keys", "last_seen", "state", "slots")
_select_places = ByNames(
    select(*(nodes.c[name] for name in _PLACE), _outstanding), nodes.c.name, lambda *values: values
)


def places(
    connection: Connection, names: Collection[str], now: float, offline_after: float
) -> dict[str, Place]:
    """The nodes by name, with the room each has; without those that have no keys yet, as a new SSH node has none."""
    found = {}
    for name, epoch, keys, last_seen, state, slots, out in _select_places.all(connection, names):
        if not keys:
            continue
        online = bool(last_seen and last_seen > now - offline_after and state == "active")
        recipient = Recipient(name, epoch, Public.from_json(keys))
        found[name] = Place(recipient, online, max(0, ORDERS_PER_SLOT * slots - out))
    return found


def admit(run: Run, parcel: Parcel, follow: Sequence[canvas.Signature] = ()) -> str | None:
    """Mark the jobs that `run` wants handed over as dispatched where they may go, and put them in the parcel.

    `follow` is the rest of the chain that the caller could go on with, next link first. The id of the job that may
    go that way is returned: its order is in `parcel.orders`, for the caller to return from `collect`.
    """
    following: str | None = None
    while run.dispatch:
        wanted, run.dispatch = run.dispatch, []
        following = _admit(run, parcel, [job for job in wanted if job.status == QUEUED], follow) or following
        if run.dispatch:
            run.flush()
    return following


def _admit(
    run: Run, parcel: Parcel, wanted: Sequence[JobState], follow: Sequence[canvas.Signature]
) -> str | None:
    if not wanted:
        return None
    names = {job.node for job in wanted if job.node != IO}
    where = places(run.connection, names, run.now, run.control.settings.offline_after)
    run.load_tasks({job.task for job in wanted})
    for job in wanted:
        workspaces.pin(run, job)
    room = _window_room(run, wanted)
    said: dict[str, Told] = {}
    go: list[JobState] = []
    partial: set[str] = set()
    for job in wanted:
        place = where.get(job.node)
        if job.node == IO:
            if room.get(job.task, 1) > 0 and calls.hand_over(run, job):
                room[job.task] = room.get(job.task, 1 << 30) - 1
                parcel.calls.append(job.id)
        elif place is None or not place.online:
            _hold(run, job)
        elif not place.free or room.get(job.task, 1) < 1:
            partial.add(job.task)
        elif (told := telling.tell(run, job)) is not None:
            where[job.node] = Place(place.recipient, True, place.free - 1)
            room[job.task] = room.get(job.task, 1 << 30) - 1
            said[job.id] = told
            go.append(job)
    following = _mark_follower(run, parcel, go, follow, where, said)
    fresh = [job for job in go if job.id != following]
    if fresh:
        _mark(run, parcel, fresh, where, said, partial)
    return following


def _window_room(run: Run, wanted: Iterable[JobState]) -> dict[str, int]:
    """How many more jobs of each fan-out and loop may be outstanding."""
    wide = {job.task for job in wanted if run.plan.tasks[job.task].kind in ("fanout", "loop")}
    if not wide:
        return {}
    query = (
        select(jobs.c.task, func.count())
        .where(jobs.c.execution == run.execution, jobs.c.task.in_(wide), jobs.c.status.in_(JOB_OUT))
        .group_by(jobs.c.task)
    )
    out: dict[str, int] = {row[0]: row[1] for row in run.connection.execute(query)}
    cap = run.control.settings.fanout_window
    return {task: windows.width(run.slice.tasks[task].window, cap) - out.get(task, 0) for task in wide}


def _hold(run: Run, job: JobState) -> None:
    """The node is away: the job waits as a row, until `queue_timeout`. Said once."""
    give_up_at = run.now + job.queue_timeout
    waits = update(jobs).where(jobs.c.id == job.id, jobs.c.give_up_at.is_(None))
    first = (
        run.mark(job, {"give_up_at": give_up_at})
        or run.connection.execute(waits.values(give_up_at=give_up_at)).rowcount
    )
    if first and run.plan.tasks[job.task].kind == "job" and run.plan.tasks[job.task].parent is None:
        run.take(NodeAway(job.task))


def _mark_follower(
    run: Run,
    parcel: Parcel,
    go: Iterable[JobState],
    follow: Sequence[canvas.Signature],
    where: dict[str, Place],
    said: Mapping[str, Told],
) -> str | None:
    """The job that the chain goes on with, if the next link is one that may go."""
    if not follow:
        return None
    named = follow[0]["options"]["task_id"]
    for job in go:
        if job.id == named and follow[0]["options"]["queue"] == f"node.{job.node}":
            told = said[job.id]
            digest = rest_digest(follow[2:], None, None)
            recipient = where[job.node].recipient
            job.status = DISPATCHED
            columns = _dispatch_columns(run.control, told, digest, recipient, run.now)
            if not run.mark(job, columns):
                set_columns(run.connection, jobs, columns, id=job.id, status=QUEUED)
            parcel.orders[job.id] = (told, recipient)
            return job.id
    return None


def _mark(
    run: Run,
    parcel: Parcel,
    go: Sequence[JobState],
    where: dict[str, Place],
    said: Mapping[str, Told],
    partial: Collection[str],
) -> None:
    born = [canvas.Born(job.id, job.task, job.unit, job.attempt, job.node) for job in go]
    by_id = {job.id: job for job in go}
    window = run.control.settings.fanout_window
    marked = []
    for compiled in canvas.compile(run.plan, run.execution, born, window=window, partial=partial):
        for member in members(compiled):
            job, told = by_id[member.job], said[member.job]
            recipient = where[job.node].recipient
            job.status = DISPATCHED
            columns = _dispatch_columns(run.control, told, member.digest, recipient, run.now)
            if not run.mark(job, columns):
                marked.append(({"id": job.id, "status": QUEUED}, columns))
            parcel.members.append((member, told, recipient))
    set_each(run.connection, jobs, marked)


def _dispatch_columns(
    control: Control, told: Told, canvas_digest: str, to: Recipient, now: float
) -> dict[str, Any]:
    message = told.message
    return {
        "status": DISPATCHED,
        "digest": told.digest,
        "canvas_digest": canvas_digest,
        "epoch": to.epoch,
        "dispatched_at": now,
        "send_after": now + control.settings.resend_after,
        "order_expires_at": now + control.settings.order_lifetime,
        "give_up_at": None,
        "time_limit": None if message.timeout is None else message.timeout + message.grace,
    }


def promote(control: Control, connection: Connection, node: str, parcel: Parcel) -> int:
    """Hand over the oldest queued jobs of a node that has room again, whatever execution they belong to.

    Returns how many. Takes no execution's lock, so it is a transaction of its own: `queued` → `dispatched` is a
    compare-and-set that sees a pause, and a cancel has turned the queued jobs of its execution into cancelled ones.
    The oldest may be many units of a loop that may have no more outstanding: what waits behind them is looked at too.
    """
    now = control.clock()
    place = places(connection, {node}, now, control.settings.offline_after).get(node)
    if place is None or not place.online or not place.free:
        return 0
    query = _waiting(node).order_by(jobs.c.created_at, jobs.c.id)
    if connection.dialect.name != "sqlite":
        query = query.with_for_update(of=jobs, skip_locked=True)
    count, refused, early = 0, set[str](), set[tuple[str, str]]()
    room: dict[tuple[str, str], int] = {}
    seen = None
    for _ in range(FULL_WINDOWS):
        passed = early | {key for key, left in room.items() if left <= 0}
        if count >= place.free or seen == (passed, len(refused)):
            break
        seen = passed, len(refused)
        others = [not_(and_(jobs.c.execution == one, jobs.c.task == task)) for one, task in passed]
        asked = query.where(*others, jobs.c.id.not_in(refused)).limit(place.free - count)
        for row in connection.execute(asked).all():
            if windows.is_early(connection, row):
                # In their order they are handed over by the settle that is asked for here.
                parcel.woken.add(row.execution)
                early.add((row.execution, row.task))
                continue
            if not windows.has_room(control, connection, row, room):
                continue
            try:
                count += _send_alone(control, connection, row, place.recipient, parcel, expected=QUEUED)
            except (InvalidInput, NotAllowed, TooLarge):
                # It cannot be told to its node: the settle that is asked for here fails it and says why, or settles
                # which files it has.
                parcel.woken.add(row.execution)
                refused.add(row.id)
    return count


def resend(control: Control, connection: Connection, job: str, parcel: Parcel) -> bool:
    """The same job again, with a fresh order under its id: the node's journal makes a second copy harmless."""
    row = connection.execute(_loaded().where(jobs.c.id == job, jobs.c.status == DISPATCHED)).first()
    if row is None:
        return False
    place = places(connection, {row.node}, control.clock(), control.settings.offline_after).get(row.node)
    if place is None or not place.online:
        return False
    try:
        sent = bool(_send_alone(control, connection, row, place.recipient, parcel, expected=DISPATCHED))
    except (SecretRefused, NotApproved):
        # It may be there already. Once its order has expired it is queued again, and then fails.
        return False
    control.tally.count(RESENT, by=sent)
    return sent


def _loaded() -> Any:
    columns = [jobs.c[name] for name in rows.JOB_COLUMNS]
    return (
        select(
            *columns,
            jobs.c.execution,
            jobs.c.sends,
            jobs.c.canvas_digest,
            jobs.c.first_canvas_digest,
            tasks.c.input,
            tasks.c.timeout,
            tasks.c.window,
            executions.c.plan_digest,
            executions.c.requester,
            executions.c.guard,
            executions.c.gate,
            executions.c.trace_id,
        )
        .join(tasks, (tasks.c.execution == jobs.c.execution) & (tasks.c.name == jobs.c.task))
        .join(executions, executions.c.id == jobs.c.execution)
    )


def _waiting(node: str) -> Any:
    runs = (executions.c.intent == RUN) | tasks.c.is_finally
    may = executions.c.gate != GATE_PENDING
    return _loaded().where(jobs.c.node == node, jobs.c.status == QUEUED, runs, may)


_may_run = (
    select(executions.c.id).where(executions.c.id == jobs.c.execution, executions.c.intent == RUN).exists()
)
"""Whoever asked for a pause may have done so after the job was looked at."""


def _send_alone(
    control: Control, connection: Connection, row: Any, to: Recipient, parcel: Parcel, *, expected: str
) -> int:
    """One job as a line of its own."""
    values = {name: row._mapping[name] for name in rows.JOB_COLUMNS}
    job = JobState(**values)
    plan: Plan = rows.plan(connection, row.plan_digest)
    workspaces.check_pinned(plan, job)
    now = control.clock()
    given = (row.input or {}, row.timeout) if job.given is None else own_input(job)
    about = About(row.execution, row.requester, row.guard, row.trace_id, row.gate)
    build = telling.judged if expected == QUEUED else telling.again
    told = build(control, connection, about, plan, job, given)
    born = canvas.Born(job.id, job.task, job.unit, job.attempt, job.node)
    single = plan.tasks[job.task].kind == "job" and job.attempt == 1
    compiled = canvas.line(plan, row.execution, born) if single else canvas.pair(born)
    member = next(members(compiled))
    columns = _dispatch_columns(control, told, member.digest, to, now)
    if expected == DISPATCHED:
        columns["sends"] = row.sends + 1
        columns["first_canvas_digest"] = row.first_canvas_digest or row.canvas_digest
    columns["send_after"] = now + control.settings.resend_after * 2 ** min(row.sends, 4)
    if expected == QUEUED and not plan.tasks[job.task].is_finally:
        waits = (jobs.c.id == job.id, jobs.c.status == QUEUED, _may_run)
        changed = connection.execute(update(jobs).where(*waits).values(columns)).rowcount
    else:
        changed = set_columns(connection, jobs, columns, id=job.id, status=expected)
    if changed:
        parcel.members.append((member, told, to))
        parcel.woken.add(row.execution)
    return int(changed)


def deliver(
    send: Callable[[Sequence[tuple[Member, str]]], None], signer: Signer, parcel: Parcel, now: float
) -> None:
    """Sign, seal and send what was marked, after the commit."""
    if parcel.members:
        send(
            [
                (member, signer.run(told.message, told.opened.values, to, now))
                for member, told, to in parcel.members
            ]
        )
