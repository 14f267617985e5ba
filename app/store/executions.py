"""Executions as rows: loading the slice that an event needs, writing what the engine answered.

The only module that turns rows into the engine's states and back. Every function works inside the caller's
transaction.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from app.compiler.plan import Plan
from app.engine.draft import view
from app.engine.state import Changes, ExecutionState, JobState, TaskState
from app.engine.status import JOB_OUT, JOB_OVER, NOT_REACHED, PENDING, TASK_LIVE
from app.errors import NotFound
from app.store.statements import set_columns, set_each
from app.store.tables import Event, Execution, Job, StoredPlan, Task, Timer, Variable, table

executions, tasks, jobs = table(Execution), table(Task), table(Job)
variables, timers, events = table(Variable), table(Timer), table(Event)
plans = table(StoredPlan)

_EXECUTION_COLUMNS = [one.name for one in fields(ExecutionState) if one.name != "system"]
_TASK_COLUMNS = [one.name for one in fields(TaskState)]
JOB_COLUMNS = [one.name for one in fields(JobState)]

_select_execution = select(
    *(executions.c[name] for name in _EXECUTION_COLUMNS),
    executions.c.plan_digest,
    executions.c.requester,
    executions.c.origin,
    executions.c.guard,
    executions.c.trace_id,
    executions.c.event_seq,
    executions.c.created_at,
).where(executions.c.id == bindparam("id"))
_select_tasks = select(*(tasks.c[name] for name in _TASK_COLUMNS)).where(
    tasks.c.execution == bindparam("execution"), tasks.c.name.in_(bindparam("names", expanding=True))
)
_select_jobs = select(*(jobs.c[name] for name in JOB_COLUMNS)).where(
    jobs.c.execution == bindparam("execution"), jobs.c.task.in_(bindparam("names", expanding=True))
)
_select_job = select(*(jobs.c[name] for name in JOB_COLUMNS)).where(jobs.c.id == bindparam("id"))

_insert_jobs, _insert_variables, _insert_events = insert(jobs), insert(variables), insert(events)
_select_vars = (
    select(variables.c.name, variables.c.value)
    .where(
        variables.c.execution == bindparam("execution"),
        variables.c.name.in_(bindparam("names", expanding=True)),
    )
    .order_by(variables.c.seq)
)
_drop_task_timers = delete(timers).where(
    timers.c.execution == bindparam("execution"), timers.c.task == bindparam("task")
)


class UnknownExecution(NotFound):
    code = "unknown-execution"


class Head:
    """The execution's row with what the engine does not see: which plan, who asked, its trace, how many events.

    `origin` is where its workflow came from, `guard` the mode of the allowlist that it is held to ("" for none).
    """

    __slots__ = ("event_seq", "guard", "origin", "plan_digest", "requester", "state", "trace_id")

    def __init__(self, row: Any) -> None:
        values = dict(row._mapping)
        self.plan_digest: str = values.pop("plan_digest")
        self.requester: str = values.pop("requester")
        self.origin: str = values.pop("origin")
        self.guard: str = values.pop("guard")
        self.trace_id: str = values.pop("trace_id")
        self.event_seq: int = values.pop("event_seq")
        created_at = values.pop("created_at")
        system = {
            "execution_id": values["id"],
            "timestamp": created_at,
            "identity": {"login": self.requester},
        }
        self.state = ExecutionState(**values, system=system)


def lock(connection: Connection, execution: str) -> Head:
    """The execution's row, locked until the transaction ends. Raises UnknownExecution.

    On SQLite the transaction itself is the lock (it began IMMEDIATE); elsewhere the row is locked.
    """
    query = _select_execution.with_for_update() if connection.dialect.name != "sqlite" else _select_execution
    row = connection.execute(query, {"id": execution}).first()
    if row is None:
        raise UnknownExecution(f"there is no execution {execution}")
    return Head(row)


_PLANS: dict[str, Plan] = {}
_PLANS_KEPT = 256


def plan(connection: Connection, digest: str) -> Plan:
    """The plan by its digest, read from the database once a process."""
    found = _PLANS.get(digest)
    if found is None:
        body = connection.execute(select(plans.c.body).where(plans.c.digest == digest)).scalar_one()
        found = Plan.from_json(json.loads(body))
        if len(_PLANS) >= _PLANS_KEPT:
            _PLANS.pop(next(iter(_PLANS)))
        _PLANS[digest] = found
    return found


def load_tasks(connection: Connection, execution: str, names: Collection[str]) -> dict[str, TaskState]:
    rows = connection.execute(_select_tasks, {"execution": execution, "names": list(names)})
    return {row.name: _task(row) for row in rows}


def _task(row: Row[Any]) -> TaskState:
    values = dict(row._mapping)
    values["nodes"] = None if values["nodes"] is None else tuple(values["nodes"])
    return TaskState(**values)


def load_job(connection: Connection, job: str) -> JobState | None:
    row = connection.execute(_select_job, {"id": job}).first()
    return None if row is None else JobState(**row._mapping)


def load_jobs_of(connection: Connection, execution: str, names: Collection[str]) -> dict[str, JobState]:
    rows = connection.execute(_select_jobs, {"execution": execution, "names": list(names)})
    return {row.id: JobState(**row._mapping) for row in rows}


def load_results(
    connection: Connection, execution: str, names: Collection[str]
) -> dict[str, Mapping[str, Any]]:
    """What templates see of these tasks."""
    return {name: view(task) for name, task in load_tasks(connection, execution, names).items()}


def live_names(connection: Connection, execution: str) -> set[str]:
    """Every task that runs or waits, with the children of live blocks (they are live themselves)."""
    query = select(tasks.c.name).where(tasks.c.execution == execution, tasks.c.status.in_(TASK_LIVE))
    return set(connection.execute(query).scalars())


def load_vars(connection: Connection, execution: str, names: Collection[str]) -> dict[str, Any]:
    """The current variables by name; every one where names hold "*"."""
    if "*" not in names:
        found = connection.execute(_select_vars, {"execution": execution, "names": list(names)})
    else:
        everything = select(variables.c.name, variables.c.value).where(variables.c.execution == execution)
        found = connection.execute(everything.order_by(variables.c.seq))
    return {name: value for name, value in found}


def woken_tasks(connection: Connection, execution: str) -> list[str]:
    """Tasks that are said to wait for a node although their job has been handed over."""
    query = (
        select(tasks.c.name)
        .join(jobs, (jobs.c.execution == tasks.c.execution) & (jobs.c.task == tasks.c.name))
        .where(tasks.c.execution == execution, tasks.c.wait_reason == "node", jobs.c.status.in_(JOB_OUT))
    )
    return list(connection.execute(query).scalars())


_select_unsettled = (
    select(*(jobs.c[name] for name in JOB_COLUMNS))
    .where(
        jobs.c.execution == bindparam("execution"),
        jobs.c.settled.is_(False),
        jobs.c.status.in_(sorted(JOB_OVER)),
    )
    .order_by(jobs.c.recorded_at, jobs.c.id)
)


def unsettled(connection: Connection, execution: str) -> list[JobState]:
    """The jobs that are over and that no settle has folded, in the order in which they were recorded."""
    return [
        JobState(**row._mapping) for row in connection.execute(_select_unsettled, {"execution": execution})
    ]


def save(
    connection: Connection, head: Head, changes: Changes, answered: Sequence[tuple[str, Any]], now: float
) -> None:
    """Write what one or more steps changed, and the events that they answered. The caller holds the lock.

    Event numbers have no gaps because of that lock.
    """
    execution = head.state.id
    set_each(
        connection,
        tasks,
        (
            (
                {"execution": execution, "name": name},
                {key: _listed(value) for key, value in columns.items()},
            )
            for name, columns in changes.tasks.items()
        ),
    )
    if changes.new_jobs:
        connection.execute(_insert_jobs, [_job_row(execution, job, now) for job in changes.new_jobs])
    set_each(connection, jobs, (({"id": job}, columns) for job, columns in changes.jobs.items()))
    if changes.published:
        rows = [
            {"execution": execution, "seq": seq, "name": name, "value": value, "task": task}
            for seq, name, value, task in changes.published
        ]
        connection.execute(_insert_variables, rows)
    _save_timers(connection, execution, changes)
    if changes.sweep_pending:
        _sweep(connection, execution, changes.sweep_pending, now)
    first = head.event_seq + 1
    head.event_seq += len(answered)
    numbered = [
        {"execution": execution, "seq": seq, "kind": kind, "at": now, "data": data}
        for seq, (kind, data) in enumerate(answered, first)
    ]
    connection.execute(_insert_events, numbered)
    set_columns(connection, executions, {**changes.execution, "event_seq": head.event_seq}, id=execution)


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _job_row(execution: str, job: JobState, now: float) -> dict[str, Any]:
    values = {name: getattr(job, name) for name in JOB_COLUMNS}
    return {**values, "execution": execution, "created_at": now}


def _save_timers(connection: Connection, execution: str, changes: Changes) -> None:
    for task in changes.dropped_task_timers:
        connection.execute(_drop_task_timers, {"execution": execution, "task": task})
    for task, unit, kind in changes.dropped_timers:
        connection.execute(
            delete(timers).where(
                timers.c.execution == execution,
                timers.c.task == task,
                timers.c.unit == unit,
                timers.c.kind == kind,
            )
        )
    if changes.timers:
        rows = [
            {"execution": execution, "task": t.task, "unit": t.unit, "kind": t.kind, "due_at": t.due_at}
            for t in changes.timers
        ]
        connection.execute(insert(timers), rows)


def _sweep(connection: Connection, execution: str, which: str, now: float) -> None:
    query = update(tasks).where(tasks.c.execution == execution, tasks.c.status == PENDING)
    if which == "main":
        query = query.where(tasks.c.is_finally.is_(False))
    connection.execute(query.values(status=NOT_REACHED, ended_at=now))


def create(connection: Connection, values: Mapping[str, Any], plan_: Plan, now: float) -> None:
    """A new execution with a pending row for every task."""
    connection.execute(insert(executions), dict(values))
    rows: Sequence[dict[str, Any]] = [
        {
            "execution": values["id"],
            "name": task.name,
            "task_index": task.index,
            "is_finally": task.is_finally,
            "status": PENDING,
            "open": task.incoming,
        }
        for task in plan_.tasks.values()
    ]
    connection.execute(insert(tasks), rows)


def store_plan(connection: Connection, plan_: Plan, source: str, plan_version: int, now: float) -> str:
    """Keep a plan by its digest, once. Returns the digest."""
    body = plan_.dump()
    digest = plan_.digest
    known = connection.execute(select(func.count()).where(plans.c.digest == digest)).scalar_one()
    if not known:
        values = {
            "digest": digest,
            "plan_version": plan_version,
            "body": body,
            "source": source,
            "used_at": now,
        }
        connection.execute(_insert_once(connection, values))
    return digest


def _insert_once(connection: Connection, values: Mapping[str, Any]) -> Any:
    if connection.dialect.name == "sqlite":
        return sqlite_insert(plans).values(values).on_conflict_do_nothing()
    return postgres_insert(plans).values(values).on_conflict_do_nothing()
