"""An execution made again from its events by the pure engine, and compared with what is stored."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from sqlalchemy import Connection

from app.engine.replay import Difference, Stored, Untrue, differences, replay
from app.engine.state import ExecutionState
from app.engine.status import SCHEDULING
from app.errors import Conflict
from app.store import executions as rows
from app.store import pins, story
from app.store.head import Head

MOST_EVENTS = 20_000
"""Events of an execution that is replayed on request: each takes the engine some tenths of a millisecond."""

_TRIES = 5


@dataclass(frozen=True, slots=True)
class Replayed:
    """`events` were put through the engine; `status` is that of the stored row. No differences: it is the same."""

    execution: str
    status: str
    events: int
    differences: tuple[Difference, ...]


def replayed(connection: Connection, execution: str) -> Replayed:
    """Raises UnknownExecution, and Conflict where it has too many events or does not stand still."""
    for _ in range(_TRIES):
        head = story.head(connection, execution)
        if head.event_seq > MOST_EVENTS:
            raise Conflict(
                f"execution {execution} has {head.event_seq} events, {MOST_EVENTS} can be replayed",
                hint="read them with `muster execution events`",
                code="too-many-events",
            )
        stored = story.stored(connection, head)
        found = _compared(connection, head, stored)
        if story.head(connection, execution).event_seq == head.event_seq:
            return Replayed(execution, head.state.status, head.event_seq, found)
    raise Conflict(
        f"execution {execution} moves faster than it can be read",
        hint="pause it, or try again when it is over",
        code="moves-on",
    )


def _compared(connection: Connection, head: Head, stored: Stored) -> tuple[Difference, ...]:
    state = head.state
    born = ExecutionState(
        state.id, SCHEDULING, parameters=state.parameters, config=state.config, system=state.system
    )
    plan = rows.plan(connection, pins.first(connection, state.id) or head.plan_digest)
    told = (one for one in story.happened(connection, state.id) if one.seq <= head.event_seq)
    try:
        memory = replay(plan, born, told, lambda job: stored.jobs[job].result, partial(rows.plan, connection))
    except Untrue as untrue:
        return (Difference(str(untrue), "", None, None),)
    return tuple(differences(memory, stored))
