"""Which tasks a retry begins from, and how far it goes (semantics R1)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from app.compiler.plan import Plan
from app.engine.status import CANCELLED, FAILED, GATE_EXPIRED, GATE_REJECTED, NOT_REACHED, TIMED_OUT

BROKEN = frozenset({FAILED, TIMED_OUT, CANCELLED})


def broken(plan: Plan, statuses: Mapping[str, str], also: Collection[str] = ()) -> set[str]:
    """The top-level tasks from which an execution is tried again: those that came to no good, and those named."""
    return {
        name
        for name, task in plan.tasks.items()
        if task.parent is None and not task.is_finally and (statuses[name] in BROKEN or name in also)
    }


def broken_at_the_end(plan: Plan, statuses: Mapping[str, str], ended_badly: str) -> set[str]:
    """The tasks of `finally` that run again where nothing before them does: those that came to no good.

    None where something else failed the execution without a failed task: another end of these would not mend that.
    Where people refused the execution they have not run.
    """
    if ended_badly not in ("", "finally", GATE_REJECTED, GATE_EXPIRED):
        return set()
    return {name for name in plan.finally_ if statuses[name] in (*BROKEN, NOT_REACHED)}


def downstream(plan: Plan, names: Iterable[str]) -> set[str]:
    """The names and everything that edges lead to from there, handlers included."""
    found: set[str] = set()
    ahead = list(names)
    while ahead:
        name = ahead.pop()
        if name not in found:
            found.add(name)
            ahead.extend(plan.tasks[name].out)
    return found
