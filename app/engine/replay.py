"""An execution's rows, made again from its plan and its events alone.

Every input of the engine is an event, and each event carries what its step read from elsewhere (`facts`): so the
engine, given the events in order, comes to the same rows. Where it does not, either the engine is not the one that
ran then, or a row was changed by something else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from math import isclose
from typing import Any

from app.compiler.plan import Plan
from app.engine import events
from app.engine.events import Event, RetryAsked
from app.engine.facts import ResultOf, facts_to_json, jobs_from_json, limits_from_json, nodes_from_json
from app.engine.memory import Memory
from app.engine.state import ExecutionState, JobState, Limits, Step, TaskState

INPUT, LOG = "input", "log"

_BORN = {"status": "queued", "exit_code": None, "result": None, "error": None}
_TIMES = {"started_at": None, "ended_at": None}
_SAME_SECOND = 2e-6
"""Databases keep moments in microseconds."""
_NOT_MADE_HERE = frozenset({"parameters", "config", "system", "snapshot"})
"""What the engine is given and never decides: which files a job has is settled as it is handed over."""

PlanOf = Callable[[str], Plan]


@dataclass(frozen=True, slots=True)
class Happened:
    """A stored event: when (Unix seconds), and its data."""

    seq: int
    at: float
    data: Mapping[str, Any]


class Untrue(ValueError):
    """The events cannot have happened like this: the engine has no answer to one of them."""


def data_of(event: Event, step: Step, limits: Limits) -> dict[str, Any]:
    """What is kept of an event: the event itself, what the engine noted, and what its step read from elsewhere."""
    return {INPUT: events.to_json(event), LOG: step.changes.log, **facts_to_json(step.facts, limits)}


def replay(
    plan: Plan,
    execution: ExecutionState,
    happened: Iterable[Happened],
    result_of: ResultOf,
    plan_of: PlanOf,
) -> Memory:
    """The rows after these events, from the first on. `execution` is the row as it was created, `plan` the one that
    held then.

    `result_of` gives the result of a job where its event holds only the digest of it, `plan_of` a plan by the digest
    that an event names. Raises Untrue.
    """
    memory = Memory(plan, execution)
    memory.is_narrow = False
    told: set[str] = set()
    for one in happened:
        try:
            told = _one(memory, one, told, result_of, plan_of)
        except (KeyError, TypeError, ValueError, AssertionError, RuntimeError) as error:
            raise Untrue(f"event {one.seq}: {type(error).__name__}: {error}") from error
    return memory


def _one(memory: Memory, one: Happened, told: set[str], result_of: ResultOf, plan_of: PlanOf) -> set[str]:
    """One event. Returns the jobs of which it said how they stood, for as long as nobody has settled them."""
    for id_ in told:
        # As it is known to stand only now is no longer true at the next event.
        memory.write_job(id_, {**_BORN, **_TIMES})
    said = jobs_from_json(one.data, result_of)
    for id_, columns in said.items():
        memory.write_job(id_, {**_BORN, **_TIMES, **columns})
    event = events.from_json(one.data[INPUT])
    memory.limits, memory.kv = limits_from_json(one.data), one.data.get("kv", {})
    other = plan_of(event.plan) if isinstance(event, RetryAsked) and event.plan else None
    step = memory.advance(event, nodes_from_json(one.data), one.at, other)
    memory.write(step.changes, one.at)
    return {id_ for id_ in (*told, *said) if not memory.jobs[id_].settled}


@dataclass(frozen=True, slots=True)
class Stored:
    """The rows of an execution, to compare with a replay. `published` as in Memory."""

    execution: ExecutionState
    tasks: Mapping[str, TaskState]
    jobs: Mapping[str, JobState]
    published: list[tuple[int, str, Any, str]]


@dataclass(frozen=True, slots=True)
class Difference:
    """At `place` ("execution", "task build", "job …", "vars"), `column` is not the same in both."""

    place: str
    column: str
    replayed: Any
    stored: Any


def differences(memory: Memory, stored: Stored) -> Iterator[Difference]:
    """What the rows say otherwise than the replay; nothing where they are the same.

    Jobs that nobody has settled yet are left out: their rows go on changing without an event.
    """
    yield from _columns("execution", memory.execution, stored.execution)
    yield from _each("task", memory.tasks, stored.tasks)
    settled = {
        id_: job for id_, job in memory.jobs.items() if job.settled or _is_settled(stored.jobs.get(id_))
    }
    unsettled = memory.jobs.keys() - settled.keys()
    yield from _each("job", settled, {id_: job for id_, job in stored.jobs.items() if id_ not in unsettled})
    if not same(memory.published, stored.published):
        yield Difference("vars", "published", memory.published, stored.published)


def _is_settled(job: JobState | None) -> bool:
    return job is not None and job.settled


def _each(what: str, mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[Difference]:
    for name in sorted(mine.keys() | theirs.keys()):
        if name in mine and name in theirs:
            yield from _columns(f"{what} {name}", mine[name], theirs[name])
        else:
            yield Difference(f"{what} {name}", "", name in mine, name in theirs)


def _columns(place: str, mine: Any, theirs: Any) -> Iterator[Difference]:
    for one in fields(mine):
        if one.name not in _NOT_MADE_HERE:
            replayed, stored = getattr(mine, one.name), getattr(theirs, one.name)
            if not same(replayed, stored):
                yield Difference(place, one.name, replayed, stored)


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same once they have been through JSON and a database."""
    if one is other:
        return True
    if isinstance(one, float) and isinstance(other, int | float):
        return one == other or isclose(one, other, rel_tol=0, abs_tol=_SAME_SECOND)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return len(one) == len(other) and all(
            key in other and same(value, other[key]) for key, value in one.items()
        )
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)
