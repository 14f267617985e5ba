"""What a job tells its node, for people: the deploy plan as it is in the order, secrets by their names."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, select

from app import marks
from app.compiler.plan import IO
from app.engine.state import JobState
from app.errors import NotFound
from app.jobs.build import build_job
from app.services.control import Control
from app.services.run import own_input
from app.store import executions as rows
from app.store.tables import Execution, Job, Task, table

jobs, tasks, executions = table(Job), table(Task), table(Execution)


def read(control: Control, connection: Connection, execution: str, job: str) -> dict[str, Any]:
    """The plan of one job: its files, commands, environment and directory, and the digest that all of it has.

    Raises NotFound for no such job, and for one that no node runs; InvalidInput where no node could be told it.
    """
    row = connection.execute(_query().where(jobs.c.id == job, jobs.c.execution == execution)).first()
    if row is None:
        raise NotFound(f"execution {execution} has no job {job}", code="unknown-job")
    if row.node == IO:
        raise NotFound(
            f"job {job} is a call that control makes itself",
            hint="only what a node runs has a deploy plan",
            code="no-plan",
        )
    state = JobState(**{name: row._mapping[name] for name in rows.JOB_COLUMNS})
    plan = rows.plan(connection, row.plan_digest)
    given, timeout = (row.input or {}, row.timeout) if state.given is None else own_input(state)
    more: dict[str, Any] = {"plan": plan, "guard": row.guard, "trace_id": row.trace_id}
    message = build_job(execution, plan.tasks[state.task], given, timeout, state, control.settings, **more)
    told = message.to_json()
    shown = {name: marks.shown(told[name]) for name in ("files", "commands", "env", "cwd")}
    return {"job": job, "node": row.node, "digest": message.digest, **shown}


def _query() -> Any:
    columns = [jobs.c[name] for name in rows.JOB_COLUMNS]
    about = (executions.c.plan_digest, executions.c.guard, executions.c.trace_id)
    return (
        select(*columns, tasks.c.input, tasks.c.timeout, *about)
        .join(tasks, (tasks.c.execution == jobs.c.execution) & (tasks.c.name == jobs.c.task))
        .join(executions, executions.c.id == jobs.c.execution)
    )
