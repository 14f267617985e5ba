"""Which edges of a workflow its tests have fired."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from app.compiler.plan import Plan, PlanTask
from app.engine.rehearsal import Rehearsal
from app.engine.status import FAILED, SKIPPED, SUCCEEDED, TIMED_OUT


@dataclass(frozen=True, slots=True, order=True)
class Edge:
    """`kind` is a transition, or `decision[n]` for the branch at that place, from 0."""

    task: str
    kind: str
    target: str

    def __str__(self) -> str:
        return f"{self.task}.{self.kind} -> {self.target}"


def edges(plan: Plan) -> list[Edge]:
    """Every edge that can fire, in the order of the tasks. With a `decision`, `on_success` never does."""
    return [edge for task in plan.tasks.values() for edge in _edges(task)]


def _edges(task: PlanTask) -> Iterator[Edge]:
    for at, (_, targets) in enumerate(task.decision or ()):
        yield from _to(task, f"decision[{at}]", targets)
    if task.decision is None:
        yield from _to(task, "on_success", task.on_success)
    yield from _to(task, "on_failure", task.on_failure)
    yield from _to(task, "on_timeout", task.on_timeout)
    yield from _to(task, "on_complete", task.on_complete)
    yield from _to(task, "on_skip", task.on_skip)


def _to(task: PlanTask, kind: str, targets: tuple[str, ...]) -> Iterator[Edge]:
    for target in dict.fromkeys(targets):
        yield Edge(task.name, kind, target)


def fired(world: Rehearsal) -> set[Edge]:
    """The edges that one execution fired."""
    branches = {
        line["task"]: (None if line["when"] == "default" else line["when"], tuple(line["next"]))
        for line in world.log
        if line["what"] == "decision"
    }
    found: set[Edge] = set()
    for name, state in world.tasks.items():
        task = world.plan.tasks[name]
        if task.parent is not None or task.is_finally or state.went is None:
            continue
        if state.status == SUCCEEDED and task.decision is not None:
            if name in branches:
                at = task.decision.index(branches[name])
                found |= set(_to(task, f"decision[{at}]", branches[name][1]))
        elif state.status == SUCCEEDED:
            found |= set(_to(task, "on_success", task.on_success))
        elif state.status == TIMED_OUT and task.on_timeout:
            found |= set(_to(task, "on_timeout", task.on_timeout))
        elif state.status in (FAILED, TIMED_OUT):
            found |= set(_to(task, "on_failure", task.on_failure))
        elif state.status == SKIPPED:
            found |= set(_to(task, "on_skip", task.on_skip))
        if state.status in (SUCCEEDED, FAILED, TIMED_OUT):
            found |= set(_to(task, "on_complete", task.on_complete))
    return found


@dataclass(slots=True)
class Coverage:
    """The edges of one workflow, and those that any of its tests has fired."""

    ref: str
    all: list[Edge]
    fired: set[Edge] = field(default_factory=set)

    @property
    def never(self) -> list[Edge]:
        return [edge for edge in self.all if edge not in self.fired]

    @property
    def percent(self) -> float:
        """100 for a workflow without edges."""
        return 100.0 * (len(self.all) - len(self.never)) / len(self.all) if self.all else 100.0
