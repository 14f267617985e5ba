"""Jobs that wait are handed over as their node has room again; jobs that nobody has seen are sent again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, and_, not_, select, update

from app.compiler import canvas
from app.compiler.plan import Plan
from app.engine.state import JobState, Slice
from app.engine.status import DISPATCHED, GATE_PENDING, QUEUED, RUN
from app.errors import InvalidInput, NotAllowed, TooLarge
from app.services import dispatched, handover, limits, telling, windows, workspaces
from app.services.approved import NotApproved
from app.services.control import Control
from app.services.handover import Parcel, Place
from app.services.measures import RESENT
from app.services.run import own_input
from app.services.telling import About
from app.services.vault import SecretRefused
from app.store import executions as rows
from app.store import story
from app.store.statements import set_columns
from app.store.tables import Execution, Job, Task, table
from app.transport.canvas import members

jobs, tasks, executions = table(Job), table(Task), table(Execution)

FULL_WINDOWS = 50
"""Loops and fan-outs with as many units outstanding as they may have that one look for waiting jobs goes past."""


def promote(control: Control, connection: Connection, node: str, parcel: Parcel) -> int:
    """Hand over the oldest queued jobs of a node that has room again, whatever execution they belong to.

    Returns how many. Takes no execution's lock, so it is a transaction of its own: `queued` → `dispatched` is a
    compare-and-set that sees a pause, and a cancel has turned the queued jobs of its execution into cancelled ones.
    The oldest may be many units of a loop that may have no more outstanding: what waits behind them is looked at too.
    """
    now = control.clock()
    place = handover.places(connection, {node}, now, control.settings.offline_after).get(node)
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
                count += _send_alone(control, connection, row, place, parcel, expected=QUEUED)
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
    place = handover.places(connection, {row.node}, control.clock(), control.settings.offline_after).get(
        row.node
    )
    if place is None or not place.online:
        return False
    try:
        sent = bool(_send_alone(control, connection, row, place, parcel, expected=DISPATCHED))
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
    control: Control, connection: Connection, row: Any, place: Place, parcel: Parcel, *, expected: str
) -> int:
    """One job as a line of its own."""
    values = {name: row._mapping[name] for name in rows.JOB_COLUMNS}
    job = JobState(**values)
    plan: Plan = rows.plan(connection, row.plan_digest)
    workspaces.check_pinned(plan, job)
    now, to = control.clock(), place.recipient
    given = (row.input or {}, row.timeout) if job.given is None else own_input(job)
    about = About(row.execution, row.requester, row.guard, row.trace_id, row.gate)
    build = telling.judged if expected == QUEUED else telling.again
    told = build(control, connection, about, plan, job, given)
    if expected == QUEUED and handover.may_share(control, place) and canvas.going_along(plan, job.task):
        state = story.head(connection, row.execution).state
        told = replace(
            told,
            along=telling.tell_along(
                control,
                connection,
                about,
                Slice(plan, state, limits=limits.of_executions(control.settings)),
                job,
                now,
            ),
        )
    born = canvas.Born(job.id, job.task, job.unit, job.attempt, job.node)
    single = plan.tasks[job.task].kind == "job" and job.attempt == 1
    compiled = canvas.line(plan, row.execution, born, len(told.along)) if single else canvas.pair(born)
    member = next(members(compiled))
    columns = dispatched.columns(control, told, member.digest, to, now)
    if expected == DISPATCHED:
        columns["sends"] = row.sends + 1
        # What was sent first may still be what its node takes.
        del columns["along"]
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
