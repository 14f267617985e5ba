"""What the tick looks for, each made once (`app.store.looks`): it asks every second, and mostly finds nothing."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BindParameter, bindparam, not_, or_, select, update

from app.compiler.plan import IO
from app.engine.status import (
    EXECUTION_OVER,
    GATE_PENDING,
    JOB_HELD,
    JOB_OUT,
    JOB_OVER,
    PAUSE,
    QUEUED,
    SCHEDULING,
    UNKNOWN,
)
from app.store.looks import Look
from app.store.prepared import Command, one_of
from app.store.tables import Execution, Installation, Job, Node, Output, Timer, table

jobs, nodes, timers = table(Job), table(Node), table(Timer)
executions, installations, outputs = table(Execution), table(Installation), table(Output)

AT_ONCE = 500
"""Rows that one part of one tick takes on, so that a tick stays short."""


def is_silent(before: Any) -> Any:
    """Whether nothing was heard of a node since then."""
    return or_(nodes.c.last_seen.is_(None), nodes.c.last_seen <= before)


def is_here(seen: Any) -> Any:
    """Whether a node may be given work that was heard of since then."""
    return (nodes.c.state == "active") & not_(is_silent(seen))


_now: BindParameter[float] = bindparam("now")
_before: BindParameter[float] = bindparam("before")
_was_seen: BindParameter[float] = bindparam("seen")
_here = is_here(_was_seen)
_on_nodes = jobs.join(nodes, nodes.c.name == jobs.c.node)

LEASE = Look(select(installations.c.tick_holder, installations.c.tick_until, installations.c.tick_since), 1)


def _lease(*columns: str) -> Command:
    free = or_(
        installations.c.tick_holder == bindparam("holder"),
        installations.c.tick_until.is_(None),
        installations.c.tick_until <= _now,
    )
    return Command(update(installations).where(free).values({name: bindparam(name) for name in columns}))


KEEP_LEASE = _lease("tick_holder", "tick_until")
BEGIN_LEASE = _lease("tick_holder", "tick_until", "tick_since")
"""After a time in which nobody held it."""

_due = (
    select(timers.c.execution, timers.c.task, timers.c.unit, timers.c.kind)
    .join(executions, executions.c.id == timers.c.execution)
    .where(timers.c.due_at <= _now, not_(one_of(executions.c.status, EXECUTION_OVER)))
    # In a pause only these fire: sleeps, timeouts, expiries.
    .where(
        or_(
            executions.c.intent != PAUSE,
            not_(or_(timers.c.kind == "delay", timers.c.kind.startswith("retry."))),
        )
    )
    .order_by(timers.c.due_at)
)
DUE = Look(_due, AT_ONCE)
# Timeouts are of blocks and of workflows that are called: what is in them may have ended, and nobody has heard of it.
DUE_WITHOUT_TIMEOUTS = Look(_due.where(not_(timers.c.kind.startswith("timeout"))), AT_ONCE)
UNBORN = Look(
    select(executions.c.id).where(executions.c.status == SCHEDULING, executions.c.created_at < _before),
    AT_ONCE,
)
UNSETTLED = Look(
    select(jobs.c.execution)
    .where(jobs.c.settled.is_(False), one_of(jobs.c.status, JOB_OVER), jobs.c.recorded_at < _before)
    .distinct(),
    AT_ONCE,
)
UNVERIFIED = Look(
    select(outputs.c.job)
    .join(jobs, jobs.c.id == outputs.c.job)
    .where(outputs.c.verified.is_(False), jobs.c.recorded_at > bindparam("since"))
    .distinct(),
    AT_ONCE,
)
WITH_QUEUE = Look(
    select(jobs.c.node)
    .select_from(_on_nodes)
    .where(jobs.c.status == QUEUED, nodes.c.last_seen > _was_seen, nodes.c.state == "active")
    .distinct(),
    AT_ONCE,
)
HELD_UP = Look(
    select(jobs.c.id, jobs.c.execution, jobs.c.task, _here.label("is_here"))
    .select_from(_on_nodes.join(executions, executions.c.id == jobs.c.execution))
    .where(jobs.c.status == QUEUED)
    .where(or_(_here & jobs.c.give_up_at.is_not(None), ~_here & jobs.c.give_up_at.is_(None)))
    .where(or_(_here, executions.c.intent != PAUSE), executions.c.gate != GATE_PENDING),
    AT_ONCE,
)
TO_GIVE_UP = Look(
    select(jobs.c.id, jobs.c.execution, jobs.c.node, nodes.c.state)
    .select_from(_on_nodes)
    .where(jobs.c.status == QUEUED, jobs.c.give_up_at <= _now, ~_here),
    AT_ONCE,
)
ON_SILENT = Look(
    select(jobs.c.id, jobs.c.execution, jobs.c.status, jobs.c.node, nodes.c.last_seen)
    .select_from(_on_nodes)
    .where(one_of(jobs.c.status, JOB_OUT), is_silent(_was_seen)),
    AT_ONCE,
)
OVERDUE = Look(
    select(jobs.c.id, jobs.c.execution, jobs.c.status).where(
        one_of(jobs.c.status, JOB_HELD), jobs.c.backstop_at <= _now, jobs.c.node != IO
    ),
    AT_ONCE,
)
UNSTOPPED = Look(
    select(jobs.c.id, jobs.c.execution, jobs.c.status, jobs.c.node)
    .select_from(_on_nodes)
    .where(one_of(jobs.c.status, (*JOB_OUT, UNKNOWN)), jobs.c.stop_asked_at <= _before)
    .where(or_(jobs.c.status == UNKNOWN, is_silent(_before))),
    AT_ONCE,
)
