"""What steps of the engine began, ended or try again: counted for `/metrics`, and told in the log."""

from __future__ import annotations

import logging
from collections.abc import Collection

from app.engine.state import Changes, Slice
from app.engine.status import EXECUTION_OVER
from app.logs import scope
from app.services.measures import EXECUTION_SECONDS, FINISHED, OUTCOMES, RETRIED, TASK_SECONDS
from app.services.tally import Tally

log = logging.getLogger(__name__)

MOST_NAMED = 20
"""Names in one line of the log."""


def saw(tally: Tally, known: Slice, changes: Changes, now: float) -> None:
    """Count and tell what `changes` holds, which `known` holds already. Each is written once, so it is counted once; a
    transaction that fails behind this has counted all the same."""
    told = log.isEnabledFor(logging.INFO)
    if told and changes.execution.get("started_at") is not None:
        log.info("execution started", extra=scope.facts(workflow=known.plan.ref))
    for name, columns in changes.tasks.items():
        task = known.tasks[name]
        if columns.get("ended_at") is not None and task.started_at is not None:
            tally.observe(TASK_SECONDS, now - task.started_at, task.status)
            if told:
                seconds = round(now - task.started_at, 3)
                log.info("task over", extra=scope.facts(task=name, status=task.status, seconds=seconds))
    if told:
        _tell_begun(changes)
    for job, columns in changes.jobs.items():
        if columns.get("settled"):
            tally.count(OUTCOMES, known.jobs[job].status)
    for born in changes.new_jobs:
        if born.settled:
            tally.count(OUTCOMES, born.status)
    # A line without an attempt says that `on_error` could not be rendered.
    if retried := sum("attempt" in line for line in changes.log if line["what"] == "retry"):
        tally.count(RETRIED, by=retried)
    status = changes.execution.get("status")
    if status in EXECUTION_OVER:
        seconds = now - known.execution.system["timestamp"]
        tally.count(FINISHED, status)
        tally.observe(EXECUTION_SECONDS, seconds, status)
        log.info("execution over", extra=scope.facts(status=status, seconds=round(seconds, 3)))


def _tell_begun(changes: Changes) -> None:
    """Names only: what a variable holds is nobody's business here."""
    if changes.published:
        names = dict.fromkeys(name for _, name, _, task in changes.published if task)
        if names:
            log.info("variables published", extra=scope.facts(names=_some(names)))
    begun = [name for name, columns in changes.tasks.items() if columns.get("started_at") is not None]
    if begun:
        log.info("tasks scheduled", extra=scope.facts(tasks=_some(begun)))


def _some(names: Collection[str]) -> str:
    """The first of them, as one text."""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(list(names)[:MOST_NAMED]) + more
