"""Handing jobs over: who may go now, in which canvas; then, after the commit, signed, sealed and sent.

A job is `queued` until it may go: its node is online, not draining, has fewer than 2 x slots orders outstanding, and
a wide fan-out has room in its window. `dispatched` is written in the transaction whose order is then sent.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sqlalchemy import Connection, func, select, update

from app.compiler import canvas
from app.compiler.plan import IO
from app.engine.events import NodeAway
from app.engine.state import JobState
from app.engine.status import DISPATCHED, JOB_OUT, QUEUED
from app.services import along, calls, dispatched, telling, windows, workspaces
from app.services.control import Control
from app.services.orders import Recipient, Signer
from app.services.run import Run
from app.services.telling import Told
from app.store.prepared import ByNames, one_of
from app.store.statements import set_columns, set_each
from app.store.tables import Execution, Job, Node, Task, table
from app.transport.canvas import Member, members, rest_digest
from app.transport.keys import Public
from app.transport.messages import SHARED

jobs, nodes, tasks, executions = table(Job), table(Node), table(Task), table(Execution)

ORDERS_PER_SLOT = 2
"""Orders outstanding on a node for each of its slots: one runs, one is ready to follow (design 5)."""


@dataclass(frozen=True, slots=True)
class Place:
    """A node as a handover sees it: how many more orders it may get now, and whether jobs may share one."""

    recipient: Recipient
    online: bool
    free: int
    shares: bool = False


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
_PLACE = ("name", "epoch", "public_keys", "last_seen", "state", "slots", "versions")
_select_places = ByNames(
    select(*(nodes.c[name] for name in _PLACE), _outstanding), nodes.c.name, lambda *values: values
)


def places(
    connection: Connection, names: Collection[str], now: float, offline_after: float
) -> dict[str, Place]:
    """The nodes by name, with the room each has; without those that have no keys yet, as a new SSH node has none."""
    found = {}
    for name, epoch, keys, last_seen, state, slots, versions, out in _select_places.all(connection, names):
        if not keys:
            continue
        online = bool(last_seen and last_seen > now - offline_after and state == "active")
        recipient = Recipient(name, epoch, Public.from_json(keys))
        shares = (versions or {}).get("orders") == SHARED
        found[name] = Place(recipient, online, max(0, ORDERS_PER_SLOT * slots - out), shares)
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
            if may_share(run.control, place):
                told = replace(told, along=_along(run, job))
            where[job.node] = replace(place, free=place.free - 1)
            room[job.task] = room.get(job.task, 1 << 30) - 1
            said[job.id] = told
            go.append(job)
    following = _mark_follower(run, parcel, go, follow, where, said)
    fresh = [job for job in go if job.id != following]
    if fresh:
        _mark(run, parcel, fresh, where, said, partial)
    return following


def may_share(control: Control, place: Place) -> bool:
    """Where Celery's events are watched every job is a message of its own, so that each is seen as long as it takes."""
    return place.shares and not control.settings.task_events


def _along(run: Run, job: JobState) -> tuple[Told, ...]:
    about = telling.of_run(run)
    return telling.tell_along(run.control, run.connection, about, run.slice, job, run.now)


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
            columns = dispatched.columns(run.control, told, digest, recipient, run.now)
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
    groups = canvas.sharing(run.plan, born, window=window, partial=partial)
    shared = dispatched.shared(
        [group for group in groups if may_share(run.control, where[group[0].node])], said
    )
    carried = {one.message.id for others in shared.values() for one in others}
    behind = {job: len(told.along) for job, told in said.items()}
    for compiled in canvas.compile(
        run.plan, run.execution, born, window=window, partial=partial, carried=carried, along=behind
    ):
        for member in members(compiled):
            told = replace(said[member.job], beside=shared.get(member.job, ()))
            recipient = where[by_id[member.job].node].recipient
            for one in (told, *told.beside):
                job = by_id[one.message.id]
                job.status = DISPATCHED
                # The last of an order comes back with its canvas.
                own = member.digest if one is (told, *told.beside)[-1] else along.NO_CANVAS
                columns = dispatched.columns(run.control, one, own, recipient, run.now)
                if not run.mark(job, columns):
                    marked.append(({"id": job.id, "status": QUEUED}, columns))
            parcel.members.append((member, told, recipient))
    set_each(run.connection, jobs, marked)


def sealed(signer: Signer, told: Told, to: Recipient, now: float) -> str:
    """The order for a job, and all that share it."""
    return signer.run(told.messages, told.opened.values, to, now, at_once=bool(told.beside))


def deliver(
    send: Callable[[Sequence[tuple[Member, str]]], None], signer: Signer, parcel: Parcel, now: float
) -> None:
    """Sign, seal and send what was marked, after the commit."""
    if parcel.members:
        send([(member, sealed(signer, told, to, now)) for member, told, to in parcel.members])
