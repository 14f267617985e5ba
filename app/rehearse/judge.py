"""What a test expected against what came: every difference, none hidden behind the first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from app.language.fitting import same
from app.rehearse.play import Played

MISSING: Final = object()
"""Stands for a value that is not there."""


@dataclass(frozen=True, slots=True)
class Difference:
    """At the place `at`. `expected` or `found` is MISSING where there should be, or is, no value."""

    at: str
    expected: Any
    found: Any
    why: str = ""


def differences(expect: Mapping[str, Any], played: Played) -> list[Difference]:
    """Every way in which what came is not what was expected, in the order of the keys."""
    return [one for key, wanted in expect.items() for one in _JUDGES[key](wanted, played)]


def compare(at: str, expected: Any, found: Any) -> Iterator[Difference]:
    """Maps are compared key by key, everything else as a whole; true is not 1."""
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        for key in dict.fromkeys([*expected, *found]):
            yield from compare(f"{at}.{key}", expected.get(key, MISSING), found.get(key, MISSING))
    elif not same(expected, found):
        yield Difference(at, expected, found)


def _status(wanted: Any, played: Played) -> Iterator[Difference]:
    run = played.world.execution
    if run.status != wanted:
        waits = f"waits for {', '.join(played.open)}" if played.open else ""
        yield Difference("status", wanted, run.status, run.error_message or waits)


def _degraded(wanted: Any, played: Played) -> Iterator[Difference]:
    yield from compare("degraded", wanted, played.world.execution.degraded)


def _tasks(wanted: Mapping[str, str], played: Played) -> Iterator[Difference]:
    for name, status in wanted.items():
        task = played.world.tasks[name]
        if task.status != status:
            why = str((task.error or {}).get("message", ""))
            yield Difference(f"tasks.{name}", status, task.status, why)


def _order(wanted: Sequence[str], played: Played) -> Iterator[Difference]:
    yield from compare("order", list(wanted), played.order)


def _not_run(wanted: Sequence[str], played: Played) -> Iterator[Difference]:
    ran = set(played.order)
    for name in wanted:
        if name in ran:
            yield Difference(f"not_run.{name}", "not to run", played.world.tasks[name].status)


def _vars(wanted: Mapping[str, Any], played: Played) -> Iterator[Difference]:
    found = played.world.vars
    for name, value in wanted.items():
        yield from compare(f"vars.{name}", value, found.get(name, MISSING))


def _output(wanted: Any, played: Played) -> Iterator[Difference]:
    yield from compare("output", wanted, played.world.execution.output)


def _errors(wanted: Mapping[str, str], played: Played) -> Iterator[Difference]:
    for name, kind in wanted.items():
        problem = played.world.tasks[name].error or {}
        found = str(problem.get("type", ""))
        if found != kind:
            why = str(problem.get("message", ""))
            yield Difference(f"errors.{name}", kind or MISSING, found or MISSING, why)


def _waits(wanted: Sequence[float], played: Played) -> Iterator[Difference]:
    yield from compare("waits", list(wanted), played.waits)


def _took(wanted: float, played: Played) -> Iterator[Difference]:
    if abs(played.took - wanted) > 0.001:
        yield Difference("took", wanted, round(played.took, 3))


_JUDGES = {
    "status": _status,
    "degraded": _degraded,
    "tasks": _tasks,
    "order": _order,
    "not_run": _not_run,
    "vars": _vars,
    "output": _output,
    "errors": _errors,
    "waits": _waits,
    "took": _took,
}
