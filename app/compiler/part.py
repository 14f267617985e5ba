"""The plan of a part of a workflow: its tasks as they are, all others as places for the results that they left."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from app.compiler.plan import Plan, PlanTask
from app.language.part import Part


def cut(plan: Plan, part: Part) -> Plan:
    """The plan that runs the part and nothing else.

    Edges that come from outside are not waited for, and those that leave lead nowhere. A `join` of so many edges
    needs as many as there are left. Its variables get no first values: whoever runs it gives them.
    """
    out = {
        name: tuple(target for target in task.out if target in part.inside)
        for name, task in plan.tasks.items()
        if name in part.inside
    }
    incoming = Counter(target for targets in out.values() for target in targets)
    tasks = {
        name: _inside(task, part, out[name], incoming[name]) if name in part.inside else _outside(task)
        for name, task in plan.tasks.items()
    }
    rest: dict[str, Any] = (
        {} if part.goes_on else {"finally_": (), "output_map": None, "output": None, "output_refs": ()}
    )
    return replace(plan, tasks=tasks, start=part.first, vars=(), vars_kv=(), gate=None, **rest)


def _inside(task: PlanTask, part: Part, out: tuple[str, ...], incoming: int) -> PlanTask:
    parent = task.parent if task.parent in part.inside else None
    join = min(task.join, incoming) if isinstance(task.join, int) else task.join
    last = task.is_finally and part.goes_on
    return replace(
        task, out=out, incoming=incoming, parent=parent, is_finally=last, join=join, then=None, boundary=""
    )


def _outside(task: PlanTask) -> PlanTask:
    """It never runs: the one edge that is counted comes from nowhere."""
    return PlanTask(task.name, task.index, "engine", action="core.noop", incoming=1)
