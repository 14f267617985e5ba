"""Where each edge stands, from the rows alone: open, fired or dead (semantics E4, E5)."""

from __future__ import annotations

from collections.abc import Mapping

from app.compiler.graph import DECISION, Edge
from app.compiler.plan import PlanTask
from app.engine.settle import where_to
from app.engine.state import TaskState
from app.engine.status import FAILED, SKIPPED, SUCCEEDED, TASK_OVER, TIMED_OUT

OPEN = "open"
FIRED = "fired"
DEAD = "dead"


def kinds_that_fire(task: PlanTask, outcome: str) -> frozenset[str]:
    """The keys of the transitions that an outcome goes by; `decision` for the branch that holds."""
    if outcome == SUCCEEDED:
        return frozenset({DECISION if task.decision is not None else "on_success", "on_complete"})
    if outcome == FAILED:
        return frozenset({"on_failure", "on_complete"})
    if outcome == TIMED_OUT:
        return frozenset({"on_timeout" if task.on_timeout else "on_failure", "on_complete"})
    return frozenset({"on_skip"} if outcome == SKIPPED else ())


def was_halted(state: TaskState) -> bool:
    """Whether the task came to its end when nothing might follow any more."""
    return state.status in TASK_OVER and state.went is None


def edge_state(task: PlanTask, state: TaskState, edge: Edge) -> str:
    """One of open, fired and dead for an edge that leaves `task`."""
    if state.status not in TASK_OVER:
        return OPEN
    if state.went is None or edge.on not in kinds_that_fire(task, state.status):
        return DEAD
    if edge.on == DECISION:
        return FIRED if edge.target in chosen(task, state.went) else DEAD
    return FIRED


def chosen(task: PlanTask, went: tuple[str, ...]) -> frozenset[str]:
    """Where the decision of a task that succeeded went.

    The row keeps where all its edges went: the branch is the one that accounts for that beside `on_complete`.
    """
    for _, targets in task.decision or ():
        if where_to((*targets, *task.on_complete)) == went:
            return frozenset(targets)
    return frozenset()


def states(tasks: Mapping[str, PlanTask], rows: Mapping[str, TaskState], lines: list[Edge]) -> list[str]:
    """The state of each edge, in the order given."""
    return [edge_state(tasks[edge.source], rows[edge.source], edge) for edge in lines]
