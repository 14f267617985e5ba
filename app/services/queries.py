"""Answers about executions and their units. Each takes a bounded number of statements, whatever it finds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, and_, bindparam, func, select

from app import marks
from app.compiler.plan import Plan
from app.engine.status import (
    EXECUTION_OVER,
    FAILED,
    NOT_REACHED,
    PENDING,
    SKIPPED,
    SUCCEEDED,
    TASK_LIVE,
    TASK_OVER,
    TIMED_OUT,
    WAITING,
)
from app.errors import NotFound
from app.services.run import Run
from app.store import executions as rows
from app.store.prepared import Query
from app.store.tables import Execution, Job, Task, Variable

executions, tasks, jobs = Execution.__table__, Task.__table__, Job.__table__
variables = Variable.__table__

_SUMMARY = tuple(
    executions.c[name]
    for name in (
        "id",
        "workflow_ref",
        "workflow_revision",
        "requester",
        "trace_id",
        "parent",
        "status",
        "intent",
        "degraded",
        "ended_badly",
        "error_message",
        "created_at",
        "started_at",
        "ended_at",
    )
)
_WHOLE = (*_SUMMARY, executions.c.parameters, executions.c.output, executions.c.plan_digest)
_of_execution = variables.c.execution == bindparam("execution")


def _whole(*values: Any) -> dict[str, Any]:
    return {column.name: value for column, value in zip(_WHOLE, values, strict=True)}


def _pair(name: str, value: Any) -> tuple[str, Any]:
    return name, value


_one = Query(select(*_WHOLE).where(executions.c.id == bindparam("id")), _whole)
_statuses = Query(
    select(tasks.c.name, tasks.c.status)
    .where(tasks.c.execution == bindparam("execution"))
    .order_by(tasks.c.task_index),
    _pair,
)
_newest = Query(
    select(variables.c.name, variables.c.value)
    .where(
        _of_execution,
        variables.c.seq.in_(
            select(func.max(variables.c.seq)).where(_of_execution).group_by(variables.c.name)
        ),
    )
    .order_by(variables.c.name),
    _pair,
)


_children = Query(
    select(executions.c.id).where(executions.c.parent == bindparam("parent")).order_by(executions.c.id), str
)


@dataclass(frozen=True, slots=True)
class State:
    """How far an execution is: `events` counts what happened so far."""

    status: str
    degraded: bool
    events: int

    @property
    def over(self) -> bool:
        return self.status in EXECUTION_OVER


_state = Query(
    select(executions.c.status, executions.c.degraded, executions.c.event_seq).where(
        executions.c.id == bindparam("id")
    ),
    State,
)
_Row = Mapping[str, Any]
"""Some columns of a row, by name."""
_TASK = (
    "name",
    "task_index",
    "status",
    "wait_reason",
    "units",
    "total",
    "nodes",
    "result",
    "error",
    "started_at",
    "ended_at",
    "first_attempt",
    "base_attempt",
    "retry_count",
    "max_retries",
)  # fmt: skip
_JOB = (
    "id",
    "task",
    "unit",
    "attempt",
    "node",
    "status",
    "exit_code",
    "result",
    "error",
    "effect_unknown",
    "started_at",
    "ended_at",
)  # fmt: skip
_tasks = Query(
    select(*(tasks.c[name] for name in _TASK))
    .where(tasks.c.execution == bindparam("execution"))
    .order_by(tasks.c.task_index),
    lambda *values: dict(zip(_TASK, values, strict=True)),
)
_mine = jobs.c.execution == bindparam("execution")
_latest = (
    select(jobs.c.task, jobs.c.unit, func.max(jobs.c.attempt).label("attempt"))
    .where(_mine)
    .group_by(jobs.c.task, jobs.c.unit)
    .subquery()
)
_latest_jobs = Query(
    select(*(jobs.c[name] for name in _JOB))
    .join(_latest, and_(*(jobs.c[name] == _latest.c[name] for name in ("task", "unit", "attempt"))))
    .where(_mine),
    lambda *values: dict(zip(_JOB, values, strict=True)),
)


def list_executions(
    connection: Connection,
    *,
    limit: int,
    before: str | None = None,
    statuses: Sequence[str] = (),
    workflow: str | None = None,
    within: ColumnElement[bool] | None = None,
) -> list[RowMapping]:
    """Executions, the newest first, those with an id less than `before` and for which `within` holds."""
    query = select(*_SUMMARY).order_by(executions.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(executions.c.id < before)
    if statuses:
        query = query.where(executions.c.status.in_(statuses))
    if workflow is not None:
        query = query.where(executions.c.workflow_ref == workflow)
    if within is not None:
        query = query.where(within)
    return list(connection.execute(query).mappings())


def state(connection: Connection, execution: str) -> State:
    """Raises NotFound."""
    found = _state.first(connection, id=execution)
    if found is None:
        raise unknown(execution)
    return found


def execution(connection: Connection, id_: str) -> dict[str, Any]:
    """One execution whole, but for its units and output. Raises NotFound. At most four statements."""
    row = _one.first(connection, id=id_)
    if row is None:
        raise unknown(id_)
    plan = rows.plan(connection, row["plan_digest"])
    variables_ = dict(_newest.all(connection, execution=id_))
    children = _children.all(connection, parent=id_)
    return _told(row, plan, _statuses.all(connection, execution=id_), variables_, children)


def just_made(run: Run) -> dict[str, Any]:
    """The same of an execution that was made by now, as its transaction left it. Nothing is read."""
    assert run.birth is not None, "it was made here"
    known = {**run.birth.columns, **run.head.state.__dict__}
    known["created_at"] = run.head.state.system["timestamp"]
    row = {column.name: known.get(column.name) for column in _WHOLE}
    statuses = [(name, state.status) for name, state in run.slice.tasks.items()]
    return _told(row, run.plan, statuses, dict(sorted(run.slice.vars.items())), [])


def _told(
    row: Mapping[str, Any],
    plan: Plan,
    statuses: Iterable[tuple[str, str]],
    variables_: Mapping[str, Any],
    children: Sequence[str],
) -> dict[str, Any]:
    by_status: dict[str, list[str]] = {}
    for name, status in statuses:
        by_status.setdefault(status, []).append(name)
    return {
        **row,
        "parameters": marks.shown(row["parameters"]),
        "variables": variables_,
        "current_tasks": _named(by_status, TASK_LIVE),
        "completed_tasks": _named(by_status, (SUCCEEDED, SKIPPED)),
        "failed_tasks": _named(by_status, (FAILED, TIMED_OUT)),
        "task_graph": graph(plan),
        "children": children,
    }


def unknown(execution: str) -> NotFound:
    """That there is no such execution."""
    return rows.unknown(execution)


def _named(by_status: Mapping[str, list[str]], wanted: Any) -> list[str]:
    return [name for status in wanted for name in by_status.get(status, ())]


def graph(plan: Plan) -> dict[str, list[dict[str, str]]]:
    """Adjacency: for each task where it leads, and on what (a transition, `decision`, `child` of a block)."""
    found: dict[str, list[dict[str, str]]] = {}
    for name, task in plan.tasks.items():
        edges = [
            (target, on)
            for on in ("on_success", "on_failure", "on_complete", "on_timeout", "on_skip")
            for target in getattr(task, on)
        ]
        edges += [(target, "decision") for _, targets in task.decision or () for target in targets]
        edges += [(child, "child") for child in task.children]
        found[name] = [{"to": target, "on": on} for target, on in dict.fromkeys(edges)]
    return found


def units(connection: Connection, execution: str) -> list[dict[str, Any]]:
    """A row for every unit of every task, in the order of the workflow. Raises NotFound. Three statements."""
    state(connection, execution)
    found: dict[str, dict[int, _Row]] = {}
    for job in _latest_jobs.all(connection, execution=execution):
        found.setdefault(job["task"], {})[job["unit"]] = job
    return [
        unit
        for task in _tasks.all(connection, execution=execution)
        for unit in _units_of(task, found.get(task["name"], {}))
    ]


def _units_of(task: _Row, by_unit: Mapping[int, _Row]) -> list[dict[str, Any]]:
    by_unit = {unit: job for unit, job in by_unit.items() if job["attempt"] >= task["base_attempt"]}
    if task["total"]:
        nodes = {unit: job["node"] or None for unit, job in by_unit.items()}
        return [_unit(task, unit, nodes.get(unit), by_unit.get(unit)) for unit in range(task["units"])]
    if task["nodes"]:
        return [_unit(task, unit, node, by_unit.get(unit)) for unit, node in enumerate(task["nodes"])]
    return [_single(task, by_unit.get(max(by_unit, default=0)))]


def _single(task: _Row, job: _Row | None) -> dict[str, Any]:
    """A task of one job, or of none: what the task says counts, where it says more than its job."""
    settled = task["status"] in TASK_OVER or task["status"] == WAITING or job is None
    row = _row(task, job["unit"] if job else 0, job)
    return {
        **row,
        "node": job["node"] if job else None,
        "status": task["status"] if settled or job is None else job["status"],
        "wait_reason": task["wait_reason"],
        "error": task["error"] if task["error"] is not None else row["error"],
        "result": task["result"] if task["result"] is not None else row["result"],
        "retry_count": task["retry_count"],
        **_times(row["started_at"] or task["started_at"], task["ended_at"] or row["ended_at"]),
    }


def _unit(task: _Row, unit: int, node: str | None, job: _Row | None) -> dict[str, Any]:
    not_begun = NOT_REACHED if task["status"] in TASK_OVER else PENDING
    return {
        **_row(task, unit, job),
        "node": node,
        "status": job["status"] if job else not_begun,
        "wait_reason": "",
        "retry_count": max(0, job["attempt"] - task["first_attempt"]) if job else 0,
    }


def _row(task: _Row, unit: int, job: _Row | None) -> dict[str, Any]:
    job_columns = ("attempt", "exit_code", "error", "result")
    return {
        "task": task["name"],
        "task_index": task["task_index"],
        "unit": unit,
        "max_retries": task["max_retries"],
        "job": job["id"] if job else None,
        "effect_unknown": bool(job and job["effect_unknown"]),
        **{name: job[name] if job else None for name in job_columns},
        **_times(job["started_at"] if job else None, job["ended_at"] if job else None),
    }


def _times(started: float | None, ended: float | None) -> dict[str, float | None]:
    duration = max(0.0, ended - started) if started is not None and ended is not None else None
    return {"started_at": started, "ended_at": ended, "duration": duration}
