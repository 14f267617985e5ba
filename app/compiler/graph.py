"""The shape of a plan: its tasks in layers, and an edge for each way from one to another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from app.compiler.plan import Plan, PlanTask
from app.language.model import RESERVED_TARGETS

FAIL = "fail"
"""The reserved target that ends an execution as failed: the one end of an edge that is no task."""

TRANSITIONS = ("on_success", "on_failure", "on_timeout", "on_skip", "on_complete")
DECISION = "decision"
_NOWHERE = RESERVED_TARGETS - {FAIL}


@dataclass(frozen=True, slots=True)
class Edge:
    """From a task to another, or to `fail`. `on` is the transition's key, or `decision`; then `when` holds the
    condition of every branch that leads there, `default` for the one without."""

    source: str
    target: str
    on: str
    when: tuple[str, ...] = ()


def edges(plan: Plan) -> list[Edge]:
    """Every edge of the plan, each kind between two tasks once, in the order of the tasks."""
    return [edge for task in plan.tasks.values() for edge in edges_of(task)]


def edges_of(task: PlanTask) -> list[Edge]:
    """Those that leave one task."""
    found = [
        Edge(task.name, target, on)
        for on in TRANSITIONS
        if on != "on_success" or task.decision is None
        for target in dict.fromkeys(getattr(task, on))
    ]
    branches: dict[str, list[str]] = {}
    for when, targets in task.decision or ():
        for target in dict.fromkeys(targets):
            branches.setdefault(target, []).append(when or "default")
    decided = [Edge(task.name, target, DECISION, tuple(when)) for target, when in branches.items()]
    return [edge for edge in (*decided, *found) if edge.target not in _NOWHERE]


def layers(plan: Plan, lines: Iterable[Edge]) -> dict[str, int]:
    """How many edges the longest way to each task has. Children are where their block is; the tasks of `finally` come
    one after another behind all others."""
    out: dict[str, list[str]] = {}
    missing = dict.fromkeys(plan.tasks, 0)
    for source, target in {(edge.source, edge.target) for edge in lines if edge.target != FAIL}:
        out.setdefault(source, []).append(target)
        missing[target] += 1
    found = dict.fromkeys(plan.tasks, 0)
    ready = [name for name, count in missing.items() if not count]
    for name in ready:
        for target in out.get(name, ()):
            found[target] = max(found[target], found[name] + 1)
            missing[target] -= 1
            if not missing[target]:
                ready.append(target)
    last = max((found[name] for name, task in plan.tasks.items() if not task.is_finally), default=-1)
    found |= {name: last + 1 + at for at, name in enumerate(plan.finally_)}
    return {name: found[task.parent or name] for name, task in plan.tasks.items()}


def shape(plan: Plan) -> dict[str, Any]:
    """The graph as JSON has it: `workflow`, `nodes` and `edges`; nothing in it is of an execution."""
    lines = edges(plan)
    layer, entries = layers(plan, lines), frozenset(plan.entries)
    return {
        "workflow": plan.ref,
        "nodes": [_node(task, layer[task.name], task.name in entries) for task in plan.tasks.values()],
        "edges": [
            {"from": edge.source, "to": edge.target, "on": edge.on, "when": list(edge.when)} for edge in lines
        ],
    }


def _node(task: PlanTask, layer: int, starts: bool) -> Mapping[str, Any]:
    return {
        "name": task.name,
        "kind": task.kind,
        "action": task.action,
        "layer": layer,
        "starts": starts,
        "join": str(task.join),
        "block": task.parent,
        "children": list(task.children),
        "finally": task.is_finally,
    }
