"""A task becomes runnable and starts (semantics E2): delay, `when`, input rendered once, then by kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.compiler.plan import LOCAL, PlanTask
from app.engine import fanout
from app.engine.context import error, number, task_scope, template_error
from app.engine.draft import Draft
from app.engine.retry import MONTH
from app.engine.settle import settle
from app.engine.state import Node
from app.engine.status import FAILED, NOT_REACHED, RUNNING, SKIPPED, SUCCEEDED, WAITING
from app.language import expressions
from app.language.expressions import TemplateError


def runnable(draft: Draft, name: str) -> None:
    """The edges of a task allow it to run."""
    task = draft.planned(name)
    if draft.execution.halt == "forced" or (draft.halted and not task.is_finally):
        settle(draft, name, NOT_REACHED)
        return
    if task.delay is not None:
        try:
            delay = number(task.delay, task_scope(draft, task), "delay", low=0, high=MONTH)
        except TemplateError as problem:
            _begin_failed(draft, name, template_error(name, problem))
            return
        if delay > 0:
            draft.set_status(name, WAITING, "timer")
            draft.arm(name, 0, "delay", draft.now + delay)
            return
    begin(draft, name)


def begin(draft: Draft, name: str) -> None:
    """Its delay is over: evaluate `when`, render the input, and start what it is."""
    task = draft.planned(name)
    try:
        scopes = task_scope(draft, task)
        if task.when is not None and not expressions.truth(task.when, scopes):
            draft.set_status(name, RUNNING)
            settle(draft, name, SKIPPED)
            return
        state = draft.task(name)
        state.input = _render_input(task, scopes)
        state.timeout = _seconds(task.timeout, scopes, "timeout")
        queue_timeout = _seconds(task.queue_timeout, scopes, "queue_timeout")
        place = expressions.render(task.delegate_to, scopes)
        if task.retry is not None:
            state.max_retries = int(
                number(task.retry["count"], scopes, "retry.count", low=0, high=draft.limits.retries)
            )
    except TemplateError as problem:
        _begin_failed(draft, name, template_error(name, problem))
        return
    draft.set_status(name, RUNNING)
    state.started_at = draft.now
    _START[task.kind](draft, task, place, queue_timeout)


def _begin_failed(draft: Draft, name: str, problem: Mapping[str, Any]) -> None:
    draft.set_status(name, RUNNING)
    draft.task(name).started_at = draft.now
    settle(draft, name, FAILED, error=problem)


def _render_input(task: PlanTask, scopes: Mapping[str, Any]) -> dict[str, Any]:
    """The input with its templates replaced, but for shell text; what that is bound to goes under `bound`."""
    rest = {key: value for key, value in task.input.items() if key not in task.literal}
    given: dict[str, Any] = expressions.render(rest, scopes)
    given.update({key: task.input[key] for key in task.literal})
    if task.bound:
        given["bound"] = expressions.render(dict(task.bound), scopes)
    return given


def _seconds(value: Any, scopes: Mapping[str, Any], what: str) -> float | None:
    return None if value is None else number(value, scopes, what, low=0.001, high=MONTH)


def _start_job(draft: Draft, task: PlanTask, place: Any, queue_timeout: float | None) -> None:
    node, problem = locate(draft, place)
    if node is not None and problem is None:
        shell = draft.task(task.name).input.get("shell", "sh")
        if task.action in ("core.shell", "core.script") and node.shells and not _has_shell(task, draft, node):
            problem = error(
                "no_shell", f"node {node.name} has no {shell}; it advertises {', '.join(node.shells)}"
            )
    if node is None or problem is not None:
        settle(draft, task.name, FAILED, error=problem)
        return
    state = draft.task(task.name)
    state.units, state.started = 1, 1
    wait = queue_timeout or draft.limits.queue_timeout
    draft.dispatch(draft.bear(task.name, 0, state.first_attempt, node.name, wait))


def _has_shell(task: PlanTask, draft: Draft, node: Node) -> bool:
    given = draft.task(task.name).input
    if isinstance(given.get("command"), list):
        return True
    return given.get("shell", "sh") in node.shells


def locate(draft: Draft, place: Any) -> tuple[Node | None, Mapping[str, Any] | None]:
    """The node that `delegate_to` means, or the error that says why there is none."""
    fleet = draft.given.fleet
    if isinstance(place, Mapping):
        if "labels" in place:
            wanted = dict(place["labels"])
            for node in matching(draft, wanted):
                return node, None
            return None, error("no_nodes", f"no active node has the labels {wanted}")
        if "address" in place:
            for node in fleet.values():
                if node.address == place["address"]:
                    return node, None
            return None, error("unknown_node", f"no enrolled node has the address {place['address']!r}")
        place = place.get("node")
    if not isinstance(place, str) or place not in fleet or fleet[place].state == "removed":
        return None, error("unknown_node", f"no node named {str(place)[:80]!r} is enrolled")
    return fleet[place], None


def matching(draft: Draft, labels: Mapping[str, Any]) -> list[Node]:
    """Active nodes that carry all these labels, by name; `local` is never matched."""
    return [
        node
        for name, node in sorted(draft.given.fleet.items())
        if name != LOCAL
        and node.state == "active"
        and all(node.labels.get(key) == str(value) for key, value in labels.items())
    ]


def _start_fanout(draft: Draft, task: PlanTask, place: Any, queue_timeout: float | None) -> None:
    del place
    nodes = draft.task(task.name).input.get("nodes")
    if isinstance(nodes, Mapping):
        nodes = [node.name for node in matching(draft, nodes.get("labels", nodes))]
    fanout.begin(draft, task, nodes, queue_timeout or draft.limits.fanout_queue_timeout)


def _start_block(draft: Draft, task: PlanTask, place: Any, queue_timeout: float | None) -> None:
    del place, queue_timeout
    state = draft.task(task.name)
    state.units = state.started = len(task.children)
    if state.timeout is not None:
        draft.arm(task.name, 0, "timeout", draft.now + state.timeout)
    draft.want(task.children)
    for child in task.children:
        runnable(draft, child)


def _start_engine(draft: Draft, task: PlanTask, place: Any, queue_timeout: float | None) -> None:
    del place, queue_timeout
    state = draft.task(task.name)
    if task.action == "core.noop":
        settle(draft, task.name, SUCCEEDED, result={})
    elif task.action == "core.fail":
        message = str(state.input.get("message", "core.fail"))
        settle(draft, task.name, FAILED, error=error("fail", message))
    else:
        _start_sleep(draft, task, state.input.get("seconds", 0), state.timeout)


def _start_sleep(draft: Draft, task: PlanTask, seconds: Any, timeout: float | None) -> None:
    try:
        wait = number(seconds, {}, "seconds", low=0, high=MONTH)
    except TemplateError as problem:
        settle(draft, task.name, FAILED, error=template_error(task.name, problem))
        return
    draft.set_status(task.name, WAITING, "timer")
    kind, due = ("sleep", wait) if timeout is None or wait <= timeout else ("timeout", timeout)
    draft.arm(task.name, 0, kind, draft.now + due)


_START = {"job": _start_job, "fanout": _start_fanout, "block": _start_block, "engine": _start_engine}
