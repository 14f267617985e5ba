"""Workflows that start workflows: whether one of them comes back to where it began."""

from __future__ import annotations

from collections.abc import Callable

from app.compiler.plan import Plan

MOST_FOLLOWED = 1000
"""Workflows that are looked at. A circle that is not found ends where children are too deep."""


def way_back(ref: str, plan: Plan, stored: Callable[[str], Plan | None]) -> tuple[str, ...]:
    """The names on a way from a workflow to itself by way of its children; () where none is found.

    `stored` gives the plan of a workflow by its name, None where there is none.
    """
    ahead: list[tuple[Plan, tuple[str, ...]]] = [(plan, (ref,))]
    seen: set[str] = set()
    while ahead and len(seen) < MOST_FOLLOWED:
        at, path = ahead.pop()
        for child in sorted({task.action for task in at.tasks.values() if task.has_child} - seen):
            if child == ref:
                return (*path, ref)
            seen.add(child)
            found = stored(child)
            if found is not None:
                ahead.append((found, (*path, child)))
    return ()
