"""A person says what became of an unknown job (semantics E8)."""

from __future__ import annotations

from sqlalchemy import select

from app.engine.events import JobResolved
from app.engine.status import UNKNOWN
from app.errors import Conflict, InvalidInput
from app.services import audit, scope
from app.services.control import Control
from app.services.run import Run
from app.store.tables import Job, table

jobs = table(Job)

OUTCOMES = ("succeeded", "failed", "again")


def resolve(
    control: Control, execution: str, task: str, unit: int, outcome: str, reason: str, person: str
) -> None:
    """Mark an unknown job succeeded or failed, or start it again under a new attempt. A reason is required.

    Raises UnknownExecution, InvalidInput, NotAllowed (another's, and the person is held to nodes), and Conflict where
    no such job waits.
    """
    if outcome not in OUTCOMES:
        raise InvalidInput(f"outcome must be one of {', '.join(OUTCOMES)}", code="bad-outcome")
    if not reason.strip():
        raise InvalidInput("a reason is required", hint="say how you know what happened", code="no-reason")
    with control.store.write() as connection:
        run = Run.lock(control, connection, execution)
        scope.check_again(control, connection, person, run.head.requester)
        job = connection.execute(
            select(jobs.c.id)
            .where(
                jobs.c.execution == execution,
                jobs.c.task == task,
                jobs.c.unit == unit,
                jobs.c.status == UNKNOWN,
                jobs.c.settled.is_(False),
            )
            .with_for_update()
        ).scalar()
        if job is None:
            raise Conflict(
                f"no unknown job of task {task}, unit {unit}, waits in execution {execution}",
                hint="`muster execution tasks` shows what each job is",
                code="not-unknown",
            )
        run.take(JobResolved(job, outcome, reason, person))
        detail = {"job": job, "outcome": outcome, "reason": reason}
        audit.record(connection, person, "job.resolve", execution, "accepted", detail)
    control.nudge([execution])
