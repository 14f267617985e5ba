"""Executions as rows: loading the slice that an event needs, writing what the engine answered.

The only module that turns rows into the engine's states and back. Every function works inside the caller's
transaction.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from typing import Any

from sqlalchemy import Connection, Table, bindparam, delete, insert, select, update
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from app.compiler.plan import Plan
from app.engine.draft import view
from app.engine.state import Changes, JobState, TaskState
from app.engine.status import JOB_OUT, JOB_OVER, NOT_REACHED, PENDING, TASK_LIVE
from app.errors import NotFound
from app.store import approvals
from app.store.approvals import Asked
from app.store.head import HEAD_COLUMNS, Head
from app.store.prepared import ByNames, Command, Query, one_of
from app.store.statements import set_columns, set_each
from app.store.tables import Event, Execution, Job, StoredPlan, Task, Timer, Variable, table

executions, tasks, jobs = table(Execution), table(Task), table(Job)
variables, timers, events = table(Variable), table(Timer), table(Event)
plans = table(StoredPlan)

_TASK_COLUMNS = [one.name for one in fields(TaskState)]
JOB_COLUMNS = [one.name for one in fields(JobState)]

_of_execution = jobs.c.execution == bindparam("execution")

# Jobs are read to be changed, and a chord's member, a report or a heartbeat writes a job without its execution's
# lock. So each is locked as it is read, where rows can be: what is then saved never overwrites an outcome unseen.
_locked_jobs = select(*(jobs.c[name] for name in JOB_COLUMNS)).with_for_update()
_select_job = Query(_locked_jobs.where(jobs.c.id == bindparam("id")), JobState)
_select_jobs = ByNames(_locked_jobs.where(_of_execution).order_by(jobs.c.id), jobs.c.task, JobState)
_select_by_id = ByNames(_locked_jobs.where(_of_execution).order_by(jobs.c.id), jobs.c.id, JobState)
_select_unsettled = Query(
    _locked_jobs.where(_of_execution, jobs.c.settled.is_(False), one_of(jobs.c.status, JOB_OVER)).order_by(
        jobs.c.recorded_at, jobs.c.id
    ),
    JobState,
)
_select_vars = (
    select(variables.c.name, variables.c.value)
    .where(
        variables.c.execution == bindparam("execution"),
        variables.c.void.is_(False),
        variables.c.name.in_(bindparam("names", expanding=True)),
    )
    .order_by(variables.c.seq)
)

_SENT = ("digest", "canvas_digest", "epoch")
_SENT_TIMES = (
    "dispatched_at",
    "send_after",
    "order_expires_at",
    "give_up_at",
    "time_limit",
    "backstop_at",
    "recorded_at",
)
_UNSENT: dict[str, Any] = {**dict.fromkeys(_SENT, ""), **dict.fromkeys(_SENT_TIMES), "along": None}
"""What a job's row says of its order before there is one."""


def _insert(into: Table, *names: str) -> Command:
    return Command(insert(into).inline().values({name: bindparam(name) for name in names}))


_insert_jobs = _insert(jobs, *JOB_COLUMNS, *_UNSENT, "execution", "created_at")
_insert_variables = _insert(variables, "execution", "seq", "name", "value", "task")
_insert_events = _insert(events, "execution", "seq", "kind", "at", "data")
_insert_timers = _insert(timers, "execution", "task", "unit", "kind", "due_at")
_select_digest = Query(select(plans.c.digest).where(plans.c.digest == bindparam("digest")), str)
_drop_task_timers = Command(
    delete(timers).where(timers.c.execution == bindparam("execution"), timers.c.task == bindparam("task"))
)
_drop_timer = Command(
    delete(timers).where(
        timers.c.execution == bindparam("execution"),
        timers.c.task == bindparam("task"),
        timers.c.unit == bindparam("unit"),
        timers.c.kind == bindparam("kind"),
    )
)


class UnknownExecution(NotFound):
    code = "unknown-execution"


def unknown(execution: str) -> UnknownExecution:
    """That there is no such execution."""
    return UnknownExecution(f"there is no execution {execution}", hint="list them: `muster execution list`")


_lock = Query(select(*HEAD_COLUMNS).where(executions.c.id == bindparam("id")).with_for_update(), Head)


def lock(connection: Connection, execution: str) -> Head:
    """The execution's row, locked until the transaction ends. Raises UnknownExecution.

    On SQLite the transaction itself is the lock (it began IMMEDIATE); elsewhere the row is locked.
    """
    head = _lock.first(connection, id=execution)
    if head is None:
        raise unknown(execution)
    return head


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


def forget_plans() -> None:
    """Read every plan from the database again."""
    _PLANS.clear()


def load_tasks(connection: Connection, execution: str, names: Collection[str]) -> dict[str, TaskState]:
    return {task.name: task for task in _select_tasks.all(connection, names, execution=execution)}


def _task(*values: Any) -> TaskState:
    task = TaskState(*values)
    if task.nodes is not None:
        task.nodes = tuple(task.nodes)
    if task.went is not None:
        task.went = tuple(task.went)
    return task


_select_tasks = ByNames(
    select(*(tasks.c[name] for name in _TASK_COLUMNS)).where(tasks.c.execution == bindparam("execution")),
    tasks.c.name,
    _task,
)


def load_job(connection: Connection, job: str) -> JobState | None:
    """The job, locked until the transaction ends."""
    return _select_job.first(connection, id=job)


def load_jobs(connection: Connection, execution: str, ids: Collection[str]) -> dict[str, JobState]:
    """These jobs, by id, locked until the transaction ends."""
    return {job.id: job for job in _select_by_id.all(connection, ids, execution=execution)}


def load_jobs_of(connection: Connection, execution: str, names: Collection[str]) -> dict[str, JobState]:
    """The jobs of these tasks, by id, locked until the transaction ends."""
    return {job.id: job for job in _select_jobs.all(connection, names, execution=execution)}


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
        everything = select(variables.c.name, variables.c.value).where(
            variables.c.execution == execution, variables.c.void.is_(False)
        )
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


def unsettled(connection: Connection, execution: str) -> list[JobState]:
    """The jobs that are over and that no settle has folded, in the order in which they were recorded."""
    return _select_unsettled.all(connection, execution=execution)


def save_states(connection: Connection, head: Head, changes: Changes, answered: int) -> None:
    """Write what so many answered events changed of the execution's own row and of the rows of its tasks."""
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
    columns = {**changes.execution, "event_seq": head.event_seq + answered}
    set_columns(connection, executions, columns, id=execution)


def save(
    connection: Connection,
    head: Head,
    changes: Changes,
    answered: Sequence[tuple[str, Any]],
    now: float,
    sent: Mapping[str, Mapping[str, Any]],
    asked: Mapping[str, Asked],
) -> None:
    """Write what one or more steps changed beside the states of tasks, and the events that they answered. The caller
    holds the lock.

    `sent` holds what is known of the orders of new jobs, by their ids: such a job is born `dispatched`, in one
    INSERT. `asked` holds what new questions are about, by their jobs. Event numbers have no gaps because of the lock.
    """
    execution = head.state.id
    _save_tasks(connection, execution, changes)
    new = [_job_row(execution, job, now, sent.get(job.id, {})) for job in changes.new_jobs]
    _insert_jobs.run_each(connection, new)
    set_each(connection, jobs, (({"id": job}, columns) for job, columns in changes.jobs.items()))
    if changes.voided:
        _void(connection, execution, changes.voided)
    published = [
        {"execution": execution, "seq": seq, "name": name, "value": value, "task": task}
        for seq, name, value, task in changes.published
    ]
    _insert_variables.run_each(connection, published)
    _save_timers(connection, execution, changes)
    if changes.asks:
        approvals.open_each(connection, execution, changes.asks, asked, now)
    if changes.closed:
        approvals.give_up(connection, changes.closed, now)
    if changes.sweep_pending:
        _sweep(connection, execution, changes.sweep_pending, now)
    first = head.event_seq + 1
    head.event_seq += len(answered)
    numbered = [
        {"execution": execution, "seq": seq, "kind": kind, "at": now, "data": data}
        for seq, (kind, data) in enumerate(answered, first)
    ]
    _insert_events.run_each(connection, numbered)


def _save_tasks(connection: Connection, execution: str, changes: Changes) -> None:
    """Rows of tasks that another version of the workflow brings and takes: jobs of the latter stay as history."""
    if changes.gone_tasks:
        mine = (tasks.c.execution == execution, tasks.c.name.in_(changes.gone_tasks))
        connection.execute(delete(tasks).where(*mine))
    if changes.new_tasks:
        rows = [
            {
                "execution": execution,
                "task_index": 0,
                "is_finally": False,
                **{name: _listed(getattr(task, name)) for name in _TASK_COLUMNS},
            }
            for task in changes.new_tasks
        ]
        connection.execute(insert(tasks), rows)


def _void(connection: Connection, execution: str, names: Collection[str]) -> None:
    mine = (variables.c.execution == execution, variables.c.task.in_(names))
    connection.execute(update(variables).where(*mine).values(void=True))


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _job_row(execution: str, job: JobState, now: float, sent: Mapping[str, Any]) -> dict[str, Any]:
    values = {name: getattr(job, name) for name in JOB_COLUMNS}
    return {**values, **_UNSENT, **sent, "execution": execution, "created_at": now}


def _save_timers(connection: Connection, execution: str, changes: Changes) -> None:
    dropped = [{"execution": execution, "task": task} for task in changes.dropped_task_timers]
    _drop_task_timers.run_each(connection, dropped)
    exact = [
        {"execution": execution, "task": task, "unit": unit, "kind": kind}
        for task, unit, kind in changes.dropped_timers
    ]
    _drop_timer.run_each(connection, exact)
    armed = [
        {"execution": execution, "task": t.task, "unit": t.unit, "kind": t.kind, "due_at": t.due_at}
        for t in changes.timers
    ]
    _insert_timers.run_each(connection, armed)


def _sweep(connection: Connection, execution: str, which: str, now: float) -> None:
    query = update(tasks).where(tasks.c.execution == execution, tasks.c.status == PENDING)
    if which == "main":
        query = query.where(tasks.c.is_finally.is_(False))
    connection.execute(query.values(status=NOT_REACHED, ended_at=now))


def store_plan(connection: Connection, plan_: Plan, source: str, plan_version: int, now: float) -> str:
    """Keep a plan by its digest, once. Returns the digest."""
    digest = plan_.digest
    if not _select_digest.all(connection, digest=digest):
        values = {
            "digest": digest,
            "plan_version": plan_version,
            "body": plan_.dump(),
            "source": source,
            "used_at": now,
        }
        connection.execute(_insert_once(connection, values))
    return digest


def _insert_once(connection: Connection, values: Mapping[str, Any]) -> Any:
    if connection.dialect.name == "sqlite":
        return sqlite_insert(plans).values(values).on_conflict_do_nothing()
    return postgres_insert(plans).values(values).on_conflict_do_nothing()
