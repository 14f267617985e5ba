"""What came of calls, written into their rows by compare-and-set."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import update

from app.compiler.plan import IO
from app.engine.status import RUNNING, UNKNOWN
from app.jobs.result import storable
from app.logs import scope
from app.services.control import Control
from app.store.tables import Job, table

log = logging.getLogger(__name__)
jobs = table(Job)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a call."""

    status: str
    result: Any = None
    error: Mapping[str, Any] | None = None


def record(control: Control, execution: str, job: str, answer: Answer) -> None:
    """Write what came of a call if the job still waits for it: late is better than unknown, and nothing else."""
    now = control.clock()
    columns = {
        "status": answer.status,
        "result": storable(answer.result),
        "error": None if answer.error is None else storable(dict(answer.error)),
        "ended_at": now,
        "recorded_at": now,
        "send_after": None,
        "order_expires_at": None,
    }
    with control.store.write() as connection:
        open_ = update(jobs).where(
            jobs.c.id == job,
            jobs.c.node == IO,
            jobs.c.status.in_((RUNNING, UNKNOWN)),
            jobs.c.settled.is_(False),
        )
        fresh = connection.execute(open_.values(columns)).rowcount
    if fresh:
        control.nudge([execution])
    log.info("call over" if fresh else "call over, too late", extra=scope.facts(status=answer.status))
