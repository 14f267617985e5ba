"""A job's row as taking in its outcome needs it, read in one statement: with its execution locked, or without."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, exists, select

from app.engine.status import QUEUED
from app.store.head import HEAD_COLUMNS, Head
from app.store.prepared import Query
from app.store.tables import Execution, Job, Task, table

executions, tasks, jobs = table(Execution), table(Task), table(Job)


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job as it was handed over, and what has become of it.

    `along` says which jobs are behind it in its order (`app.services.along`). `has_late`: an outcome that came too late
    is kept beside. `plan_digest` and `trace_id` are its execution's.
    `crowded`: jobs are queued for its node.
    """

    id: str
    execution: str
    task: str
    unit: int
    attempt: int
    node: str
    queue_timeout: float
    given: Mapping[str, Any] | None
    along: Mapping[str, Any] | None
    snapshot: str | None
    status: str
    effect_unknown: bool
    has_late: bool
    epoch: str
    digest: str
    canvas_digest: str
    first_canvas_digest: str
    plan_digest: str
    trace_id: str
    crowded: bool


_waiting = jobs.alias("waiting")
_COLUMNS = (
    jobs.c.id,
    jobs.c.execution,
    jobs.c.task,
    jobs.c.unit,
    jobs.c.attempt,
    jobs.c.node,
    jobs.c.queue_timeout,
    jobs.c.given,
    jobs.c.along,
    jobs.c.snapshot,
    jobs.c.status,
    jobs.c.effect_unknown,
    jobs.c.late.is_not(None),
    jobs.c.epoch,
    jobs.c.digest,
    jobs.c.canvas_digest,
    jobs.c.first_canvas_digest,
    executions.c.plan_digest,
    executions.c.trace_id,
    exists().where(_waiting.c.node == jobs.c.node, _waiting.c.status == QUEUED),
)


def _with_head(*values: Any) -> tuple[JobRow, Head]:
    return JobRow(*values[: len(_COLUMNS)]), Head(*values[len(_COLUMNS) :])


_is_it = jobs.c.id == bindparam("job")
_its_execution = executions.c.id == jobs.c.execution
_select = Query(select(*_COLUMNS).join(executions, _its_execution).where(_is_it), JobRow)
_lock = Query(
    select(*_COLUMNS, *HEAD_COLUMNS)
    .join(executions, _its_execution)
    .where(_is_it)
    .with_for_update(of=executions),
    _with_head,
)
_select_input = Query(
    select(tasks.c.input).where(
        tasks.c.execution == bindparam("execution"), tasks.c.name == bindparam("task")
    ),
    lambda given: given or {},
)


def find(connection: Connection, job: str) -> JobRow | None:
    """The job's row; nothing is locked."""
    return _select.first(connection, job=job)


def lock_execution_of(connection: Connection, job: str) -> tuple[JobRow, Head] | None:
    """The job's row and that of its execution, which stays locked until the transaction ends.

    The job's own row is not: another outcome may be recorded for it in the meantime, so that write it with a
    compare-and-set.
    """
    return _lock.first(connection, job=job)


def input_of(connection: Connection, row: JobRow) -> dict[str, Any]:
    """The rendered input of the job: that of its task, or of its own where it is a loop's unit."""
    if row.given is not None:
        return dict(row.given["input"])
    return _select_input.first(connection, execution=row.execution, task=row.task) or {}
