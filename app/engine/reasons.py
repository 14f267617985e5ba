"""The sentences of an explanation, each from one row or edge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from app.compiler.graph import DECISION, Edge
from app.compiler.plan import PlanTask
from app.engine.edges import FIRED, OPEN, kinds_that_fire
from app.engine.state import TaskState
from app.engine.status import (
    CANCELLED,
    FAILED,
    NOT_REACHED,
    PENDING,
    SKIPPED,
    SUCCEEDED,
    TASK_OVER,
    TIMED_OUT,
    WAITING,
)

_ENDED = {
    SUCCEEDED: "succeeded",
    FAILED: "failed",
    TIMED_OUT: "timed out",
    SKIPPED: "was skipped",
    CANCELLED: "was cancelled",
    NOT_REACHED: "was not reached",
}
_MEANT_FOR = {
    "on_success": "success",
    "on_failure": "failure",
    "on_timeout": "a timeout",
    "on_skip": "a skip",
    "on_complete": "an end of its own",
    DECISION: "success",
}

Moment = Callable[[float], str]
"""Unix seconds as people read them: how is not for the engine to know."""


@dataclass(frozen=True, slots=True)
class Wait:
    """One thing that stands between a task and its end.

    `kind` is one of `timer`, `person`, `task`, `pause`, `gate` and, for a job of the task, `node` (offline, draining or
    removed), `room` (its node has as many orders as it may), `window` (so many units of its task are out),
    `handover` (it may go, and is about to), `order` (sent, not taken yet), `job` (on its node), `silent` (its node is
    not heard) and `unknown`. `until` and `since` are Unix seconds; `name` is the timer's kind, or what the node is.
    """

    kind: str
    name: str = ""
    until: float | None = None
    since: float | None = None
    task: str = ""
    unit: int = 0
    job: str = ""
    node: str = ""
    approval: str = ""
    approvers: tuple[str, ...] = ()
    approved: int = 0
    quorum: int = 0


def named(parts: Sequence[str]) -> str:
    return "; ".join(parts)


def said_edge(source: PlanTask, state: TaskState, edge: Edge, where: str) -> str:
    """Why an edge is open, fired or dead."""
    name, on = source.name, f"`{edge.on}`"
    if where == OPEN:
        return f"{name} {'has not started' if state.status == PENDING else f'is {state.status}'}"
    ended = f"{name} {_ENDED[state.status]}"
    if where == FIRED:
        return f"{ended}, and its {on} leads here"
    if state.status in (CANCELLED, NOT_REACHED):
        return ended
    if state.went is None:
        return f"{ended}, but nothing new was to start any more"
    if edge.on not in kinds_that_fire(source, state.status):
        instead = " (that goes by its `on_timeout`)" if _by_on_timeout(source, state, edge) else ""
        return f"{ended}, and its {on} is for {_MEANT_FOR[edge.on]}{instead}"
    return f"{ended}, and its decision did not go here ({' or '.join(edge.when)})"


def _by_on_timeout(source: PlanTask, state: TaskState, edge: Edge) -> bool:
    return state.status == TIMED_OUT and bool(source.on_timeout) and edge.on == "on_failure"


def said_end(task: PlanTask, state: TaskState) -> list[str]:
    """How a task ended that began."""
    if state.status == SKIPPED:
        everywhere = "it was skipped: every unit was"
        return [everywhere] if state.units else []
    took = ""
    if state.started_at is not None and state.ended_at is not None:
        took = f" after {max(0.0, state.ended_at - state.started_at):.2f} s"
    tries = f", with {state.retry_count} of {state.max_retries} retries" if state.retry_count else ""
    found = [f"it {_ENDED[state.status]}{took}{tries}{_counted(task, state)}"]
    if state.stopping:
        reason = {
            "timed_out": "it took too long",
            "fail_fast": "`fail_fast` stopped the rest",
            "threshold": "more failed than `max_failures` lets",
            "cancel": "it was asked to stop",
        }
        found.append(reason.get(state.stopping, state.stopping))
    if state.error:
        found.append(f"{state.error.get('type', 'error')}: {state.error.get('message', '')}")
    return found


def said_status(task: PlanTask, state: TaskState, moment: Moment) -> list[str]:
    """How far a task is that is not over."""
    assert state.status not in TASK_OVER
    if state.status == WAITING:
        what = {
            "timer": "a timer",
            "person": "a person",
            "child": f"the workflow {task.action}",
            "node": "its node",
            "unknown": "word of a job that nobody knows the end of",
        }.get(state.wait_reason, state.wait_reason)
        found = [f"it waits for {what}"]
    else:
        since = "" if state.started_at is None else f" since {moment(state.started_at)}"
        found = [f"it runs{since}{_counted(task, state)}"]
    if state.retry_count:
        found.append(f"it was tried again {state.retry_count} of {state.max_retries} times")
    if state.stopping:
        found.append("it is being stopped")
    return found


def _counted(task: PlanTask, state: TaskState) -> str:
    if task.kind not in ("fanout", "loop", "block") or not state.units:
        return ""
    parts = [
        f"{count} {word}"
        for word, count in (
            ("succeeded", state.succeeded),
            ("failed", state.failed),
            ("skipped", state.skipped),
            ("cancelled", state.cancelled),
        )
        if count
    ]
    return f" ({state.over} of {state.units} over{': ' + ', '.join(parts) if parts else ''})"


def said_wait(wait: Wait, moment: Moment) -> str:
    """One sentence for one wait."""
    until = "" if wait.until is None else f" until {moment(wait.until)}"
    since = "" if wait.since is None else f" since {moment(wait.since)}"
    job = f"job {wait.job}"
    if wait.kind == "timer":
        text = f"the timer `{wait.name}` of unit {wait.unit} is due at {moment(wait.until or 0.0)}"
    elif wait.kind == "person":
        text = _said_question(wait, until)
    elif wait.kind == "node":
        text = f"{job} waits for node {wait.node}, which is {wait.name}{since}{_given_up(until)}"
    elif wait.kind == "room":
        text = f"{job} waits for room on node {wait.node}, which has as many orders as it takes"
    elif wait.kind == "window":
        text = f"{job} waits until fewer units of its task are out at once"
    elif wait.kind == "gate":
        text = f"{job} waits until people have approved the execution"
    elif wait.kind == "pause":
        text = f"{job} waits until somebody resumes the execution"
    elif wait.kind == "handover":
        text = f"{job} is about to be sent to node {wait.node}"
    elif wait.kind == "order":
        text = f"{job} was sent to node {wait.node}{since}, which has not taken it yet"
    elif wait.kind == "silent":
        text = f"{job} is on node {wait.node}, which is not heard{since}"
    elif wait.kind == "unknown":
        text = f"nobody knows what became of {job}: `muster execution resolve` says so, or its node when it is back"
    else:
        text = f"{job} is on node {wait.node}: {wait.name}{since}"
    return text


def _said_question(wait: Wait, until: str) -> str:
    who = ", ".join(wait.approvers[:10]) or "any operator"
    count = f", {wait.approved} of {wait.quorum} said yes" if wait.quorum > 1 else ""
    return f"approval {wait.approval} is open for {who}{count}{until}"


def _given_up(until: str) -> str:
    return f"; it is given up if nothing changes{until}" if until else ""
