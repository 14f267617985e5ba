"""The executions that an execution started, and the one that started it: each with the first line of its explanation.

Each takes a bounded number of statements, whatever it finds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import Connection, RowMapping, select

from app.engine.reasons import Moment
from app.engine.state import ExecutionState, TaskState
from app.engine.why import Story, headline
from app.store import executions as rows
from app.store.tables import Execution, Job, Task, table

executions, tasks, jobs = table(Execution), table(Task), table(Job)

MOST_CHILDREN = 20
"""Children that are told, the newest of them."""

HEAD = ("id", "status", "intent", "gate", "halt", "ended_badly", "error_message", "finally_at")
TASK = (
    "name",
    "status",
    "wait_reason",
    "open",
    "fired",
    "units",
    "started",
    "over",
    "succeeded",
    "failed",
    "skipped",
    "cancelled",
    "stopping",
    "window",
    "error",
    "went",
    "started_at",
    "ended_at",
    "retry_count",
    "max_retries",
)  # fmt: skip
_KNOWN = (*(executions.c[name] for name in HEAD), executions.c.plan_digest, executions.c.workflow_ref)


def states(connection: Connection, wanted: Collection[str]) -> dict[str, dict[str, TaskState]]:
    """All tasks of these executions, without their inputs and results."""
    query = select(tasks.c.execution, *(tasks.c[name] for name in TASK)).where(tasks.c.execution.in_(wanted))
    found: dict[str, dict[str, TaskState]] = {execution: {} for execution in wanted}
    for row in connection.execute(query).mappings():
        state = TaskState(**{name: row[name] for name in TASK})
        state.went = None if state.went is None else tuple(state.went)
        found[row["execution"]][state.name] = state
    return found


def children(
    connection: Connection, execution: str, wanted: Collection[str], moment: Moment
) -> dict[str, list[dict[str, Any]]]:
    """The children of these tasks, by task, the newest first: two statements, and one for each plan not read before."""
    query = (
        select(*_KNOWN, jobs.c.task, jobs.c.unit)
        .join(jobs, jobs.c.id == executions.c.parent_job)
        .where(executions.c.parent == execution, jobs.c.task.in_(wanted))
        .order_by(executions.c.id.desc())
        .limit(MOST_CHILDREN)
    )
    found = list(connection.execute(query).mappings())
    by_execution = states(connection, [row["id"] for row in found]) if found else {}
    told: dict[str, list[dict[str, Any]]] = {}
    for row in found:
        one = _told(connection, row, by_execution[row["id"]], moment)
        told.setdefault(row["task"], []).append({**one, "unit": row["unit"]})
    return told


def parent(connection: Connection, execution: str, moment: Moment) -> dict[str, Any] | None:
    """The execution that started this one, with the task that did; None for one that a person asked for."""
    child = executions.alias("child")
    query = (
        select(*_KNOWN, jobs.c.task, jobs.c.unit)
        .join(child, child.c.parent == executions.c.id)
        .join(jobs, jobs.c.id == child.c.parent_job)
        .where(child.c.id == execution)
    )
    row = connection.execute(query).mappings().first()
    if row is None:
        return None
    one = _told(connection, row, states(connection, [row["id"]])[row["id"]], moment)
    return {**one, "task": row["task"], "unit": row["unit"]}


def _told(
    connection: Connection, row: RowMapping, found: Mapping[str, TaskState], moment: Moment
) -> dict[str, Any]:
    head = ExecutionState(**{name: row[name] for name in HEAD})
    story = Story(rows.plan(connection, row["plan_digest"]), head, found, moment)
    return {
        "execution": row["id"],
        "workflow": row["workflow_ref"],
        "status": row["status"],
        "says": headline(story),
    }
