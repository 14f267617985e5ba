"""The one table of transitions: from which status a record may go to which.

The engine's draft refuses anything else, so that a fault in the engine stores nothing; the simulation holds every row
that is written against it. What is over leaves that only when its execution is tried again (semantics R1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from app.engine.status import (
    ACCEPTED,
    CANCELLED,
    CANCELLING,
    COMPLETED,
    DISPATCHED,
    EXECUTION_OVER,
    FAILED,
    JOB_OVER,
    NOT_REACHED,
    PAUSED,
    PAUSING,
    PENDING,
    QUEUED,
    REJECTED,
    REQUESTED,
    RUNNING,
    SCHEDULING,
    SKIPPED,
    SUCCEEDED,
    SUSPECT,
    TASK_OVER,
    TIMED_OUT,
    UNKNOWN,
    WAITING,
)

EXECUTION: Final = "execution"
TASK: Final = "task"
JOB: Final = "job"

OVER: Final[Mapping[str, frozenset[str]]] = {EXECUTION: EXECUTION_OVER, TASK: TASK_OVER, JOB: JOB_OVER}

_ENDS = frozenset({COMPLETED, FAILED, CANCELLED})
_GOES = frozenset({RUNNING, WAITING, PAUSING, PAUSED, CANCELLING}) | _ENDS
_CAME_TO = frozenset({SUCCEEDED, FAILED, TIMED_OUT, SKIPPED, CANCELLED})
_OUT = frozenset({DISPATCHED, ACCEPTED, RUNNING, SUSPECT, UNKNOWN})
# Only a flow is found skipped where it runs.
_FROM_OUT = _OUT | {QUEUED} | JOB_OVER - {NOT_REACHED}
_REOPENED = frozenset({PAUSING, PAUSED})

MOVES: Final[Mapping[str, Mapping[str, frozenset[str]]]] = {
    EXECUTION: {
        REQUESTED: _GOES | {SCHEDULING},
        SCHEDULING: _GOES,
        **{status: _GOES - {status} for status in (RUNNING, PAUSING)},
        # Where nobody has decided yet nothing of it runs.
        **{status: _GOES - {status} | {REJECTED} for status in (WAITING, PAUSED)},
        # A cancel beats every race.
        CANCELLING: frozenset({CANCELLED}),
        **dict.fromkeys(_ENDS | {REJECTED}, _REOPENED),
    },
    TASK: {
        PENDING: frozenset({RUNNING, WAITING, NOT_REACHED}),
        RUNNING: _CAME_TO | {WAITING},
        WAITING: _CAME_TO | {RUNNING},
        **dict.fromkeys(TASK_OVER, frozenset({PENDING, RUNNING})),
    },
    JOB: {
        # An order that expired leaves its job queued, and what its node says later still counts.
        QUEUED: _OUT | JOB_OVER,
        **{status: _FROM_OUT - {status} for status in _OUT},
        **dict.fromkeys(JOB_OVER, frozenset()),
    },
}


class ForbiddenMove(RuntimeError):
    """The engine was about to write a transition that the table does not know."""


def may_move(what: str, before: str, after: str, *, reopening: bool = False) -> bool:
    """Whether a record may go from one status to another, or stay. `reopening`: its execution is tried again."""
    if before == after:
        return True
    return after in MOVES[what][before] and (reopening or before not in OVER[what])


def check_move(what: str, name: str, before: str, after: str, *, reopening: bool = False) -> None:
    """Raises ForbiddenMove."""
    if before != after and not may_move(what, before, after, reopening=reopening):
        raise ForbiddenMove(f"{what} {name} cannot go from {before} to {after}")
