"""What a step of the engine ended: counted for `/metrics`, and an execution's end told in the log."""

from __future__ import annotations

import logging

from app.engine.state import Changes, Slice
from app.engine.status import EXECUTION_OVER
from app.logs import scope
from app.services.measures import EXECUTION_SECONDS, FINISHED, OUTCOMES, TASK_SECONDS
from app.services.tally import Tally

log = logging.getLogger(__name__)


def saw(tally: Tally, known: Slice, changes: Changes, now: float) -> None:
    """Count the ends that are in `changes`, which `known` holds already. Each end is written once, so it is counted
    once; a transaction that fails behind this has counted all the same."""
    for name, columns in changes.tasks.items():
        task = known.tasks[name]
        if columns.get("ended_at") is not None and task.started_at is not None:
            tally.observe(TASK_SECONDS, now - task.started_at, task.status)
    for job, columns in changes.jobs.items():
        if columns.get("settled"):
            tally.count(OUTCOMES, known.jobs[job].status)
    for born in changes.new_jobs:
        if born.settled:
            tally.count(OUTCOMES, born.status)
    status = changes.execution.get("status")
    if status in EXECUTION_OVER:
        seconds = now - known.execution.system["timestamp"]
        tally.count(FINISHED, status)
        tally.observe(EXECUTION_SECONDS, seconds, status)
        log.info("execution over", extra=scope.facts(status=status, seconds=round(seconds, 3)))
