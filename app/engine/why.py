"""Why a task ran, waits, or will never run: from the rows of an execution, as sentences and as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from app.compiler.graph import FAIL, Edge, edges, layers
from app.compiler.plan import Plan, PlanTask
from app.engine.edges import DEAD, FIRED, OPEN, edge_state
from app.engine.reasons import Moment, Wait, named, said_edge, said_end, said_status, said_wait
from app.engine.settle import verdict
from app.engine.state import ExecutionState, TaskState
from app.engine.status import (
    CANCEL,
    CANCELLED,
    EXECUTION_OVER,
    FAILED,
    GATE_CLOSED,
    GATE_EXPIRED,
    GATE_PENDING,
    GATE_REJECTED,
    NOT_REACHED,
    PAUSE,
    PENDING,
    REQUESTED,
    SCHEDULING,
    SKIPPED,
    TASK_OVER,
    TIMED_OUT,
)

RAN = "ran"
RUNS = "runs"
WAITS = "waits"
DID_NOT_RUN = "skipped"
NEVER = "never"

MOST_CAUSES = 20
"""Tasks that are named as the cause of one that is not reached."""


@dataclass(frozen=True, slots=True)
class Story:
    """An execution as its rows tell it. `waits` holds for each live task what stands between it and its end.
    `into` (the edges that lead to each task) and `causes` are worked out from that."""

    plan: Plan
    execution: ExecutionState
    tasks: Mapping[str, TaskState]
    moment: Moment
    waits: Mapping[str, Sequence[Wait]] = field(default_factory=dict)
    into: dict[str, list[Edge]] = field(default_factory=dict)
    causes: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for edge in edges(self.plan):
            if edge.target != FAIL:
                self.into.setdefault(edge.target, []).append(edge)

    def state(self, edge: Edge) -> str:
        return edge_state(self.plan.tasks[edge.source], self.tasks[edge.source], edge)


@dataclass(slots=True)
class Explanation:
    """What became of one task. `verdict` is ran, runs, waits, skipped or never; `because` are the tasks whose outcome
    decided that it is not reached; `condition` is its `when` and what that came to, null where it was not asked.
    `children` are executions that the task started, which whoever reads rows adds."""

    task: str
    status: str
    verdict: str
    sentences: list[str] = field(default_factory=list)
    edges: list[dict[str, Any]] = field(default_factory=list)
    join: dict[str, Any] | None = None
    condition: dict[str, Any] | None = None
    waits: list[Wait] = field(default_factory=list)
    because: list[dict[str, str]] = field(default_factory=list)
    error: Any = None
    children: list[dict[str, Any]] = field(default_factory=list)


def explain(story: Story, name: str) -> Explanation:
    """Everything that the rows say about one task of the plan."""
    task, state = story.plan.tasks[name], story.tasks[name]
    told = Explanation(name, state.status, _verdict(story, task, state), error=state.error)
    told.edges = [_edge(story, edge) for edge in story.into.get(name, ())]
    told.join = _join(task, state, told.edges)
    told.condition = _condition(task, state)
    if told.verdict == NEVER:
        _never(story, told, task, state)
    elif state.status == PENDING:
        _pending(story, told, task, state)
    else:
        _began(story, told, task, state)
    return told


_TELLING = (("running", "waiting"), (FAILED, TIMED_OUT), (CANCELLED,), (PENDING,))
"""Statuses of tasks, those first that say most about their execution."""


def headline(story: Story) -> str:
    """One line for the whole execution: the task that says most about it, and the last that is said of that."""
    for wanted in _TELLING:
        for name in story.plan.tasks:
            state = story.tasks.get(name)
            if state is not None and state.status in wanted:
                told = explain(story, name)
                return f"{name} {state.status}: {told.sentences[-1] if told.sentences else told.verdict}"
    return story.execution.error_message or "no task failed"


def _verdict(story: Story, task: PlanTask, state: TaskState) -> str:
    if state.status == NOT_REACHED:
        return NEVER
    if state.status == PENDING:
        return NEVER if _is_lost(story, task, state) else WAITS
    if state.status == SKIPPED:
        return DID_NOT_RUN
    if state.status in TASK_OVER:
        return RAN
    return RUNS if state.status == "running" else WAITS


def _is_lost(story: Story, task: PlanTask, state: TaskState) -> bool:
    """Whether a pending task cannot run any more, whatever its open edges come to."""
    top = story.plan.tasks[task.parent or task.name]
    if story.execution.halt == "forced" or (story.execution.halt and not top.is_finally):
        return True
    if task.is_finally:
        return False
    if task.parent is not None:
        return story.tasks[task.parent].status in TASK_OVER or bool(story.tasks[task.parent].stopping)
    return verdict(story.plan, task, open_=0, fired=state.fired + state.open) == "not_reached"


def _edge(story: Story, edge: Edge) -> dict[str, Any]:
    source, where = story.plan.tasks[edge.source], story.state(edge)
    return {
        "from": edge.source,
        "on": edge.on,
        "when": list(edge.when),
        "status": story.tasks[edge.source].status,
        "state": where,
        "why": said_edge(source, story.tasks[edge.source], edge, where),
    }


def _join(task: PlanTask, state: TaskState, found: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """How many tasks lead here, and what their edges came to; several edges of one task are one."""
    if not task.incoming:
        return None
    rank = {FIRED: 2, OPEN: 1, DEAD: 0}
    best: dict[str, str] = {}
    for edge in found:
        source = edge["from"]
        if source not in best or rank[edge["state"]] > rank[best[source]]:
            best[source] = edge["state"]
    counts = {where: sum(one == where for one in best.values()) for where in rank}
    needed = task.incoming if task.join == "all" else task.join if isinstance(task.join, int) else 1
    return {"kind": str(task.join) or "default", "needed": needed, **counts}


def _condition(task: PlanTask, state: TaskState) -> dict[str, Any] | None:
    """`when` is asked before anything of the task starts: a task that it skipped has no start."""
    if task.when is None:
        return None
    result: bool | None = None
    if state.status == SKIPPED and state.started_at is None:
        result = False
    elif state.started_at is not None and (state.error or {}).get("type") != "template":
        result = True
    return {"expression": task.when, "result": result}


def _began(story: Story, told: Explanation, task: PlanTask, state: TaskState) -> None:
    told.sentences.append(_why_it_began(told, task))
    if told.condition and told.condition["result"] is not None:
        came = "true" if told.condition["result"] else "false, so it was skipped"
        told.sentences.append(f"its `when` ({task.when}) was {came}")
    if state.status in TASK_OVER:
        told.sentences += said_end(task, state)
        return
    told.sentences += said_status(task, state, story.moment)
    told.waits = list(story.waits.get(task.name, ()))
    told.sentences += [said_wait(wait, story.moment) for wait in told.waits]
    if story.execution.intent == PAUSE:
        told.sentences.append("a pause was asked for: nothing new of it starts until somebody resumes")


def _why_it_began(told: Explanation, task: PlanTask) -> str:
    if task.parent is not None:
        return f"it belongs to the block {task.parent}, which started"
    if task.is_finally:
        return "it is one of `finally`: these run at the end, whatever happened"
    if not task.incoming:
        return "nothing leads to it: it starts with the execution"
    fired = [edge["why"] for edge in told.edges if edge["state"] == FIRED]
    if not fired:
        # A person marked it, or it was named in a retry: then no edge is the reason.
        return "a retry of the execution started it"
    return named(fired)


def _pending(story: Story, told: Explanation, task: PlanTask, state: TaskState) -> None:
    run = story.execution
    if task.parent is not None:
        told.sentences.append(
            f"it starts with its block {task.parent}, which is {_status(story, task.parent)}"
        )
    elif task.is_finally:
        told.sentences.append("it is one of `finally`: it runs when all other tasks are over")
        at = story.plan.finally_.index(task.name)
        if at:
            told.sentences.append(f"before it comes {story.plan.finally_[at - 1]}")
    elif told.join is not None and verdict(story.plan, task, open_=state.open, fired=state.fired) == "":
        waiting = [edge["from"] for edge in told.edges if edge["state"] == OPEN]
        told.waits = [Wait("task", task=name) for name in dict.fromkeys(waiting)]
        told.sentences += [
            f"it waits for {name}, which is {_status(story, name)}" for name in dict.fromkeys(waiting)
        ]
        told.sentences.append(_said_join(told.join))
    else:
        told.sentences.append("nothing that leads to it is open any more: it may start")
    if run.gate == GATE_PENDING:
        told.sentences.append(
            "people are asked for the whole execution: nothing starts before they approve it"
        )
        asked = story.waits.get("", ())
        told.waits += [replace(wait, task=task.name) for wait in asked]
        told.sentences += [said_wait(wait, story.moment) for wait in asked]
    if run.intent == PAUSE:
        told.waits.append(Wait("pause"))
        told.sentences.append("a pause was asked for: it does not start until somebody resumes")
    elif run.status in (REQUESTED, SCHEDULING):
        told.sentences.append("the execution has not started yet")


def _status(story: Story, name: str) -> str:
    state = story.tasks[name]
    return f"{state.status} ({state.wait_reason})" if state.wait_reason else state.status


def _said_join(join: Mapping[str, Any]) -> str:
    counted = f"{join[FIRED]} fired, {join[OPEN]} open, {join[DEAD]} dead"
    if join["kind"] == "default":
        return f"it runs when no edge is open and at least one fired: {counted}"
    if join["kind"] == "all":
        return f"`join: all`: it runs when all {join['needed']} fired: {counted}"
    return f"`join: {join['kind']}`: it runs as soon as {join['needed']} fired: {counted}"


def _never(story: Story, told: Explanation, task: PlanTask, state: TaskState) -> None:
    run = story.execution
    word = "it did not run" if state.status == NOT_REACHED else "it will not run"
    by_edges = verdict(story.plan, task, open_=0, fired=state.fired + state.open) == "not_reached"
    if task.parent is not None:
        told.sentences.append(f"{word}: {_why_a_child_did_not(story, task.parent)}")
        told.because = [{"task": task.parent, "status": story.tasks[task.parent].status, "why": "its block"}]
    elif task.is_finally or not by_edges:
        told.sentences.append(f"{word}: {_why_it_was_halted(run)}")
    else:
        told.sentences.append(f"{word}: too few of the edges that lead to it could fire")
        if told.join is not None:
            told.sentences.append(_said_join(told.join))
        told.sentences += [edge["why"] for edge in told.edges if edge["state"] == DEAD]
        told.because = _causes(story, task.name)
        far = [root for root in told.because if root["task"] not in {edge["from"] for edge in told.edges}]
        told.sentences += [f"it began with {root['task']}: {root['why']}" for root in far[:10]]


def _why_a_child_did_not(story: Story, block: str) -> str:
    state = story.tasks[block]
    why = {
        "timed_out": f"its block {block} took too long",
        "fail_fast": f"another child of its block {block} failed, and `fail_fast` stopped the rest",
    }.get(state.stopping)
    if why is None and state.status in (NOT_REACHED, SKIPPED):
        why = f"its block {block} did not run ({state.status})"
    return why or f"its block {block} was stopped"


def _why_it_was_halted(run: ExecutionState) -> str:
    if run.gate in (GATE_REJECTED, GATE_EXPIRED):
        return f"the execution was not approved: {run.error_message}"
    if run.gate == GATE_CLOSED:
        return "the execution was cancelled before anybody had decided on it"
    if run.halt == "fail_fast":
        return "a task failed without a handler, and `fail_fast` stops what has not started"
    if run.intent == CANCEL:
        forced = ", and forced" if run.halt == "forced" else ""
        return f"the execution was asked to cancel{forced}"
    if run.status in EXECUTION_OVER and run.status != FAILED:
        return f"the execution ended {run.status} before it"
    return f"the execution failed before it: {run.error_message}"


def _causes(story: Story, name: str) -> list[dict[str, str]]:
    """The tasks that ran, or were stopped, and whose outcome made every way to this one dead.

    Worked out once for all tasks, from the first layer on: each takes over what its own causes have.
    """
    if not story.causes:
        layer = layers(story.plan, edges(story.plan))
        for here in sorted(story.plan.tasks, key=layer.__getitem__):
            story.causes[here] = _nearest(story, here)
    return [{"task": task, **about} for task, about in story.causes[name].items()]


def _nearest(story: Story, name: str) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for edge in story.into.get(name, ()):
        where, state = story.state(edge), story.tasks[edge.source]
        if where != DEAD or len(found) >= MOST_CAUSES:
            continue
        if state.status == NOT_REACHED and state.went is not None:
            found = {**story.causes[edge.source], **found}
        else:
            why = said_edge(story.plan.tasks[edge.source], state, edge, where)
            found.setdefault(edge.source, {"status": state.status, "why": why})
    return dict(list(found.items())[:MOST_CAUSES])
