"""Who publishes what at the same time: tasks that may overlap and write one variable.

Two tasks may overlap if neither comes before the other and they are not on different ways out of one task
(success here, failure there; two branches of one decision).
"""

from __future__ import annotations

from collections.abc import Iterator

from app.language.grammar import publish_entries
from app.language.graph import Draft, Edge, Graph
from app.language.reading import Reading
from app.language.source import Node

MOST_PAIRS = 2_000
"""How many pairs of publishing tasks are compared: a warning is not worth more time."""

_SUCCEEDED, _FAILED, _TIMED_OUT, _SKIPPED = 1, 2, 4, 8
_BRANCHES = 16
_EXITS = {
    "on_success": _SUCCEEDED,
    "on_failure": _FAILED | _TIMED_OUT,
    "on_complete": _SUCCEEDED | _FAILED | _TIMED_OUT,
    "on_timeout": _TIMED_OUT,
    "on_skip": _SKIPPED,
}

Guards = dict[int, int]
"""By number of a task: with which of its ways out another task can run at all. A task that is absent: any."""


def check(r: Reading, graph: Graph) -> None:
    """Warn, once for a variable, where two tasks may publish it at the same time."""
    if not graph.before:
        return
    guards: list[Guards] | None = None
    pairs = 0
    for name, writers in _writers(graph).items():
        earlier = 0
        for draft, node in writers:
            overlapping = [graph.drafts[number] for number in _bits(earlier & ~graph.before[draft.number])]
            earlier |= 1 << draft.number
            if not overlapping:
                continue
            if guards is None:
                guards = _guards(graph)
            pairs += len(overlapping)
            both = next((other for other in overlapping if not _exclusive(guards, other, draft)), None)
            if both is not None:
                message = f"`{name}` is published by `{both.name}` too, which may run at the same time"
                hint = "use two names, or let one task lead to the other"
                r.error(node, "publish-race", message, hint, mark=node.key, level="warning")
                break
            if pairs > MOST_PAIRS:
                return


def _bits(mask: int) -> Iterator[int]:
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def _writers(graph: Graph) -> dict[str, list[tuple[Draft, Node]]]:
    """Per variable the tasks that publish it, earlier ones first."""
    position = {draft.number: at for at, draft in enumerate(graph.order)}
    writers: dict[str, list[tuple[Draft, Node]]] = {}
    for draft in sorted(graph.drafts, key=lambda draft: (draft.role == "final", position[draft.number])):
        for name, node in dict(published(draft)).items():
            writers.setdefault(name, []).append((draft, node))
    return {name: found for name, found in writers.items() if found[1:]}


def published(draft: Draft) -> Iterator[tuple[str, Node]]:
    """Names and values that the task may publish, whatever its outcome."""
    for key in ("publish", "publish_on_failure"):
        node = draft.node.value.get(key)
        if node is not None:
            yield from publish_entries(node) or ()


def _exclusive(guards: list[Guards], one: Draft, other: Draft) -> bool:
    left, right = guards[one.number], guards[other.number]
    return any(number in right and not ways & right[number] for number, ways in left.items())


def _ways(edge: Edge) -> int:
    if edge.exit.startswith("decision."):
        return _BRANCHES << int(edge.exit.removeprefix("decision."))
    ways = _EXITS[edge.exit]
    if edge.exit == "on_failure" and edge.source.task.on_timeout:
        ways = _FAILED
    if edge.source.task.decision is not None and ways & _SUCCEEDED:
        ways |= (_BRANCHES << len(edge.source.task.decision)) - _BRANCHES
    return ways


def _guards(graph: Graph) -> list[Guards]:
    into: dict[int, list[Edge]] = {draft.number: [] for draft in graph.drafts}
    out: dict[int, set[int]] = {draft.number: set() for draft in graph.drafts}
    for edge in graph.edges:
        into[edge.target.number].append(edge)
        out[edge.source.number].add(_ways(edge))
    guards: list[Guards] = [{} for _ in graph.drafts]
    for draft in graph.order:
        merged: Guards | None = None
        for edge in into[draft.number]:
            source = edge.source.number
            here = guards[source]
            # Only a task with different ways out can keep two others apart; the rest would make this large.
            if len(out[source]) > 1:
                here = {**here, source: _ways(edge)}
            if merged is None:
                merged = dict(here)
            else:
                merged = {number: ways | here[number] for number, ways in merged.items() if number in here}
        guards[draft.number] = merged or {}
    return guards
