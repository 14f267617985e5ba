"""A task becomes runnable and starts (semantics E2): delay, `when`, input rendered once, then by kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.compiler.plan import PlanTask
from app.engine import fanout, loop, own
from app.engine.context import (
    MONTH,
    error,
    number,
    render_input,
    retries,
    seconds,
    task_scope,
    template_error,
)
from app.engine.draft import Draft
from app.engine.place import find_place, matching
from app.engine.settle import settle
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
        if task.kind == "loop":
            _begin_loop(draft, task)
            return
        state = draft.task(name)
        state.input = render_input(task, scopes)
        state.timeout = seconds(task.timeout, scopes, "timeout")
        queue_timeout = seconds(task.queue_timeout, scopes, "queue_timeout")
        place = expressions.render(task.delegate_to, scopes)
        if task.retry is not None:
            state.max_retries = retries(draft, task, scopes)
    except TemplateError as problem:
        _begin_failed(draft, name, template_error(name, problem))
        return
    draft.set_status(name, RUNNING)
    state.started_at = draft.now
    _START[task.kind](draft, task, place, queue_timeout)


def _begin_loop(draft: Draft, task: PlanTask) -> None:
    """Raises TemplateError before anything is born."""
    draft.set_status(task.name, RUNNING)
    draft.task(task.name).started_at = draft.now
    loop.begin(draft, task)


def _begin_failed(draft: Draft, name: str, problem: Mapping[str, Any]) -> None:
    draft.set_status(name, RUNNING)
    draft.task(name).started_at = draft.now
    settle(draft, name, FAILED, error=problem)


def _start_job(draft: Draft, task: PlanTask, place: Any, queue_timeout: float | None) -> None:
    state = draft.task(task.name)
    wait = queue_timeout or draft.limits.queue_timeout
    if task.name in draft.gone:
        state.units, state.started = 1, 1
        draft.bear(task.name, 0, state.first_attempt, draft.gone[task.name], wait).status = RUNNING
        return
    node, problem = find_place(draft, task, place, state.input)
    if node is None or problem is not None:
        settle(draft, task.name, FAILED, error=problem)
        return
    state.units, state.started = 1, 1
    draft.dispatch(draft.bear(task.name, 0, state.first_attempt, node.name, wait))


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


def _start_own(draft: Draft, task: PlanTask, place: Any, queue_timeout: float | None) -> None:
    del place, queue_timeout
    state = draft.task(task.name)
    state.units, state.started = 1, 1
    own.run(draft, task, draft.bear(task.name, 0, state.first_attempt, "", draft.limits.queue_timeout))


_START = {
    "own": _start_own,
    "job": _start_job,
    "fanout": _start_fanout,
    "block": _start_block,
    "engine": _start_engine,
}
