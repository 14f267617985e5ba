"""Every status there is; the only place where one is spelled.

Texts, not enums: they are what rows, JSON and people see, and comparing them costs nothing.
"""

from __future__ import annotations

from typing import Final

REQUESTED: Final = "requested"
SCHEDULING: Final = "scheduling"
RUNNING: Final = "running"
WAITING: Final = "waiting"
PAUSING: Final = "pausing"
PAUSED: Final = "paused"
CANCELLING: Final = "cancelling"
COMPLETED: Final = "completed"
FAILED: Final = "failed"
CANCELLED: Final = "cancelled"
REJECTED: Final = "rejected"

PENDING: Final = "pending"
SUCCEEDED: Final = "succeeded"
TIMED_OUT: Final = "timed_out"
SKIPPED: Final = "skipped"
NOT_REACHED: Final = "not_reached"

QUEUED: Final = "queued"
DISPATCHED: Final = "dispatched"
ACCEPTED: Final = "accepted"
SUSPECT: Final = "suspect"
UNKNOWN: Final = "unknown"

EXECUTION_STATUSES = (
    REQUESTED, SCHEDULING, RUNNING, WAITING, PAUSING, PAUSED, CANCELLING, COMPLETED, FAILED, CANCELLED, REJECTED,
)  # fmt: skip
EXECUTION_OVER = frozenset({COMPLETED, FAILED, CANCELLED, REJECTED})

TASK_STATUSES = (
    PENDING, RUNNING, WAITING, SUCCEEDED, FAILED, TIMED_OUT, SKIPPED, CANCELLED, NOT_REACHED,
)  # fmt: skip
TASK_OVER = frozenset({SUCCEEDED, FAILED, TIMED_OUT, SKIPPED, CANCELLED, NOT_REACHED})
TASK_LIVE = frozenset({RUNNING, WAITING})

JOB_STATUSES = (
    QUEUED, DISPATCHED, ACCEPTED, RUNNING, SUSPECT, UNKNOWN,
    SUCCEEDED, FAILED, TIMED_OUT, CANCELLED, SKIPPED, NOT_REACHED,
)  # fmt: skip
JOB_OVER = frozenset({SUCCEEDED, FAILED, TIMED_OUT, CANCELLED, SKIPPED, NOT_REACHED})
JOB_HELD = frozenset({ACCEPTED, RUNNING, SUSPECT})
"""A node has said that it holds the job."""
JOB_OUT = frozenset({DISPATCHED, ACCEPTED, RUNNING, SUSPECT})
"""Outstanding on its node: counts against its slots."""

RUN: Final = "run"
PAUSE: Final = "pause"
CANCEL: Final = "cancel"
INTENTS = (RUN, PAUSE, CANCEL)

GATE_PENDING: Final = "pending"
GATE_APPROVED: Final = "approved"
GATE_REJECTED: Final = "rejected"
GATE_EXPIRED: Final = "expired"
GATE_CLOSED: Final = "closed"
