"""Which jobs are to be stopped, as rows: whoever signs orders tells their nodes."""

from __future__ import annotations

from sqlalchemy import update

from app.services.run import Run
from app.store.tables import Job, table

jobs = table(Job)


def stop_jobs(run: Run) -> int:
    """Write down which jobs are to be stopped. Returns how many; `send_stops` orders it until the node answers."""
    stopped, run.stop = run.stop, []
    for job in stopped:
        run.connection.execute(
            update(jobs)
            .where(jobs.c.id == job.id, jobs.c.stop_asked_at.is_(None))
            .values(stop_asked_at=run.now)
        )
    return len(stopped)
