"""Jobs whose node does not answer for them (semantics E8)."""

from __future__ import annotations

from sqlalchemy import update

from app.engine.events import JobEnded, JobUnknown
from app.engine.status import FAILED, JOB_OVER
from app.services.run import Run
from app.store import executions as rows
from app.store.tables import Job, table

jobs = table(Job)


def lose(run: Run, job: str) -> None:
    """Nobody knows what became of a job: failed as `lost` if its task is idempotent, unknown otherwise."""
    run.flush()
    state = rows.load_job(run.connection, job)
    if state is None or state.settled or state.status in JOB_OVER:
        return
    task = run.plan.tasks[state.task]
    if task.is_repeatable:
        who = "the call was cut short" if task.is_call else f"node {state.node} lost the job"
        error = {"type": "lost", "message": f"{who}; the task is idempotent"}
        run.connection.execute(
            update(jobs)
            .where(jobs.c.id == job)
            .values(status=FAILED, error=error, ended_at=run.now, recorded_at=run.now)
        )
        run.slice.jobs.pop(job, None)
        run.take(JobEnded(job))
    else:
        run.take(JobUnknown(job))


def fail(
    run: Run, job: str, expected: str, error: dict[str, str], *, status: str = FAILED, **more: object
) -> bool:
    """Give a job an outcome that no node reported, if it is still in the expected status."""
    columns = {"status": status, "error": error, "ended_at": run.now, "recorded_at": run.now, **more}
    run.flush()
    changed = run.connection.execute(
        update(jobs).where(jobs.c.id == job, jobs.c.status == expected).values(columns)
    ).rowcount
    if changed:
        run.slice.jobs.pop(job, None)
        run.take(JobEnded(job))
    return bool(changed)
