"""Jobs that are queued: born where nobody could sign, or kept back by a window, a pause or a node."""

from __future__ import annotations

from typing import Any

from sqlalchemy import bindparam, select

from app.compiler.plan import IO
from app.engine.state import JobState
from app.engine.status import GATE_PENDING, PAUSE, QUEUED
from app.services import calls
from app.services.run import Run
from app.store import executions as rows
from app.store.prepared import Query
from app.store.tables import Job, table

jobs = table(Job)

_queued_jobs = (
    select(*(jobs.c[name] for name in rows.JOB_COLUMNS))
    .where(jobs.c.execution == bindparam("execution"), jobs.c.status == QUEUED)
    .where(jobs.c.node != "", jobs.c.node != IO)
    .with_for_update(skip_locked=True)
)
"""Who has one of them locked is handing it over (`room.promote`)."""
_select_next_unit = Query(
    _queued_jobs.where(jobs.c.task == bindparam("task"), jobs.c.give_up_at.is_(None))
    .order_by(jobs.c.unit)
    .limit(1),
    JobState,
)
_select_queued = Query(_queued_jobs.order_by(jobs.c.created_at, jobs.c.unit), JobState)


def next_of(run: Run, task: str) -> list[JobState]:
    """The next queued unit of a fan-out or loop that is wider than its window: a place in it has just come free."""
    if run.plan.tasks[task].kind not in ("fanout", "loop") or run.head.state.halt:
        return []
    return _seen(run, _select_next_unit, task=task)


def _seen(run: Run, query: Query[JobState], **values: Any) -> list[JobState]:
    """The queued jobs that the query finds in this execution and `run` has not yet, now in its slice as well."""
    if run.head.state.intent == PAUSE or run.head.state.gate == GATE_PENDING:
        return []
    known = {job.id for job in run.dispatch}
    found = query.all(run.connection, execution=run.execution, **values)
    found = [run.slice.jobs.setdefault(job.id, job) for job in found]
    return [job for job in found if job.status == QUEUED and job.id not in known]


def of(run: Run) -> list[JobState]:
    """Jobs that were born in another process (the API holds no key), or waited."""
    found = _seen(run, _select_queued)
    for task in calls.waiting_tasks(run):
        found += _seen(run, calls.select_waiting, task=task)
    return found
