"""What people of a fleet call the state of an execution on many nodes, in one word (semantics, probe g).

An execution's own status says whether it came out as its author wanted: failures that were put up with leave it
completed. This word says what became of the nodes, so one of them that failed makes it failed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from app.engine.status import (
    CANCEL,
    CANCELLED,
    EXECUTION_OVER,
    FAILED,
    JOB_HELD,
    QUEUED,
    REJECTED,
    RUNNING,
    SKIPPED,
    SUCCEEDED,
    TIMED_OUT,
    UNKNOWN,
)

PENDING_APPROVAL: Final = "pending_approval"
WORDS: Final = (PENDING_APPROVAL, REJECTED, RUNNING, QUEUED, CANCELLED, FAILED, SKIPPED, SUCCEEDED)
"""In this order: the first that holds is the word."""

GATE_PENDING: Final = "pending"

LOST_OR_FAILED: Final = frozenset({FAILED, TIMED_OUT, UNKNOWN})
"""What counts as a failure of a node once the execution is over."""
STARTED: Final = JOB_HELD | LOST_OR_FAILED | {SUCCEEDED}
"""Something happened on the node, or may have."""


def roll_up(status: str, gate: str, intent: str, units: Iterable[str]) -> str:
    """The word for an execution with this status, gate and intent, from the status of each node's newest job.

    A node for which no job is born yet has any status that is not in STARTED, such as queued. As long as the
    execution is not over something of it is open, whatever its nodes say.
    """
    found = frozenset(units)
    if status == REJECTED:
        return REJECTED
    if status not in EXECUTION_OVER:
        if gate == GATE_PENDING:
            return PENDING_APPROVAL
        return RUNNING if found & STARTED else QUEUED
    if status == CANCELLED or intent == CANCEL:
        return CANCELLED
    if status == FAILED or found & LOST_OR_FAILED:
        return FAILED
    return SKIPPED if found == {SKIPPED} else SUCCEEDED
