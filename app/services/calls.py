"""Calls from the control side: jobs of `core.http` and `core.celery`, which no node sees.

A call is a job's row like any other, in the place `IO`. Handed over it is `dispatched`, and a message on the queue `io`
says so; the row is the truth. Whoever takes it makes it `running` first, with a lease.
"""

from __future__ import annotations

from sqlalchemy import bindparam, select, update

from app.compiler.plan import IO
from app.engine.state import JobState
from app.engine.status import DISPATCHED, QUEUED, UNKNOWN
from app.services import lost
from app.services.run import Run
from app.store import executions as rows
from app.store.prepared import Query
from app.store.statements import set_columns
from app.store.tables import Job, table

jobs = table(Job)

_AT_ONCE = 100

_mine = (jobs.c.execution == bindparam("execution"), jobs.c.status == QUEUED, jobs.c.node == IO)
_select_tasks = Query(select(jobs.c.task).where(*_mine).distinct(), str)

select_waiting = Query(
    select(*(jobs.c[name] for name in rows.JOB_COLUMNS))
    .where(*_mine, jobs.c.task == bindparam("task"))
    .order_by(jobs.c.created_at, jobs.c.unit)
    .limit(_AT_ONCE),
    JobState,
)
"""The oldest calls of a task that wait to be handed over: more than a window are no use."""


def waiting_tasks(run: Run) -> list[str]:
    """The tasks of which calls wait to be handed over."""
    if not any(task.is_call for task in run.plan.tasks.values()):
        return []
    return _select_tasks.all(run.connection, execution=run.execution)


def hand_over(run: Run, job: JobState) -> bool:
    """Mark a queued call as dispatched, in the caller's transaction. False where it is no longer queued.

    The task's `timeout` runs from here (semantics E3), but for a flow's: its host measures it.
    """
    timeout = None if run.plan.tasks[job.task].flow else run.given_to(job)[1]
    settings = run.control.settings
    columns = {
        "status": DISPATCHED,
        "dispatched_at": run.now,
        "send_after": run.now + settings.resend_after,
        "give_up_at": run.now + job.queue_timeout,
        "time_limit": timeout,
        "backstop_at": None if timeout is None else run.now + timeout,
    }
    job.status = DISPATCHED
    return run.mark(job, columns) or bool(
        set_columns(run.connection, jobs, columns, id=job.id, status=QUEUED)
    )


def give_up(run: Run, job: str) -> None:
    """Whoever made the call is gone, or does not know whether it was made.

    What then waits as unknown is asked about if it was a foreign task: its result says that it was sent.
    """
    lost.lose(run, job)
    state = run.slice.jobs.get(job)
    if state is not None and run.plan.tasks[state.task].action == "core.celery":
        waits = update(jobs).where(jobs.c.id == job, jobs.c.status == UNKNOWN)
        run.connection.execute(waits.values(send_after=run.now))
