"""One task over a list (semantics I1-I5): a unit for every item, or for every batch of them.

The list is rendered once, and every unit is born at once with what it was given, so that a unit later costs the same
in a long loop as in a short one. Units that need a node are handed over as far as the window lets them, by who holds
the nodes' room; units that the engine runs itself are started here, in order.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from app.compiler.plan import PlanTask
from app.engine import own
from app.engine.context import error, number, render_input, retries, seconds, task_scope, template_error
from app.engine.draft import Draft
from app.engine.fanout import STREAM_BYTES, STREAM_FLOOR, count
from app.engine.place import find_place
from app.engine.settle import MANY, settle
from app.engine.state import JobState, TaskState
from app.engine.status import (
    CANCELLED,
    FAILED,
    JOB_OVER,
    NOT_REACHED,
    QUEUED,
    SUCCEEDED,
)
from app.language import expressions
from app.language.expressions import TemplateError

_MOST = 10_000
_STREAMS = ("stdout", "stderr")


def begin(draft: Draft, task: PlanTask) -> None:
    """Render the list, bear every unit and start as many as may run. Raises TemplateError."""
    state = draft.task(task.name)
    scopes = task_scope(draft, task)
    loop = task.loop or {}
    items = expressions.render(loop["items"], scopes)
    if isinstance(items, str) or not isinstance(items, Sequence):
        problem = error("items", f"`with_items` must be a list, got {_kind(items)}")
        settle(draft, task.name, FAILED, error=problem)
        return
    if len(items) > draft.limits.items:
        problem = error("too_many_items", f"{len(items)} items, a loop may have {draft.limits.items}")
        settle(draft, task.name, FAILED, error=problem)
        return
    size = _whole(loop.get("batch_size"), scopes, "batch_size")
    units = [items[at : at + size] for at in range(0, len(items), size)] if size else list(items)
    state.window = _whole(loop.get("concurrency"), scopes, "concurrency") or 0
    state.total, state.units = len(items), len(units)
    if not units:
        state.items = []
        settle(draft, task.name, SUCCEEDED, result=[])
        return
    if _bear_all(draft, task, units):
        _judge(draft, task)
        start_units(draft, task)
        _finish_if_over(draft, task)


def _kind(value: Any) -> str:
    names = {str: "a text", dict: "a map", bool: "a boolean", int: "a number", float: "a number"}
    return "nothing" if value is None else names.get(type(value), type(value).__name__)


def _whole(value: Any, scopes: Mapping[str, Any], what: str) -> int | None:
    return None if value is None else int(number(value, scopes, what, low=1, high=_MOST))


def _bear_all(draft: Draft, task: PlanTask, units: Sequence[Any]) -> bool:
    """Every unit's first attempt. False where the loop failed because all of them together are too large."""
    room = most = draft.limits.result * MANY
    for index, item in enumerate(units):
        room -= bear(draft, task, index, item)
        if room < 0:
            for job in draft.born(task.name):
                job.status, job.ended_at, job.settled = NOT_REACHED, draft.now, True
            message = f"the inputs of all units are over {most} bytes"
            settle(draft, task.name, FAILED, error=error("inputs_too_large", message))
            return False
    return True


def bear(draft: Draft, task: PlanTask, index: int, item: Any) -> int:
    """One unit. Returns the bytes of what it was given. What cannot run is over at once; the others go on."""
    state = draft.task(task.name)
    given: dict[str, Any] = {"item": item, "index": index}
    node, wait, problem = "", draft.limits.queue_timeout, None
    try:
        scopes = task_scope(draft, task, item=item, index=index)
        given["input"] = render_input(task, scopes)
        given["timeout"] = seconds(task.timeout, scopes, "timeout")
        wait = seconds(task.queue_timeout, scopes, "queue_timeout") or wait
        if task.retry is not None:
            state.max_retries = max(state.max_retries, retries(draft, task, scopes))
        if not task.runs_in_engine:
            place = expressions.render(task.delegate_to, scopes)
            found, problem = find_place(draft, task, place, given["input"])
            node = found.name if found is not None else ""
    except TemplateError as fault:
        problem = template_error(task.name, fault)
    job = draft.bear(task.name, index, state.first_attempt, node, wait, given)
    if problem is not None:
        job.status, job.error, job.ended_at, job.settled = FAILED, problem, draft.now, True
        count(state, FAILED)
    return len(json.dumps(given))


def start_units(draft: Draft, task: PlanTask) -> None:
    """Hand over every unit that waits; what the engine runs itself starts here, as far as the window lets it."""
    state = draft.task(task.name)
    if not task.runs_in_engine:
        state.started = state.units
        for job in draft.born(task.name):
            if job.status == QUEUED:
                draft.dispatch(job)
        return
    window = state.window or state.units
    while not (state.stopping or draft.held) and state.over + window > state.started < state.units:
        job = draft.attempt(task.name, state.started, state.first_attempt)
        state.started += 1
        if job.status == QUEUED:
            own.run(draft, task, job)


def resume(draft: Draft, task: PlanTask) -> None:
    """After a pause: units that the engine runs start again. Those for nodes are handed over as rows."""
    _judge(draft, task)
    if task.runs_in_engine:
        start_units(draft, task)
    _finish_if_over(draft, task)


def unit_over(draft: Draft, task: PlanTask, job: JobState) -> None:
    """The last attempt of one unit ended."""
    count(draft.task(task.name), job.status)
    _judge(draft, task)
    if task.runs_in_engine:
        start_units(draft, task)
    _finish_if_over(draft, task)


def _judge(draft: Draft, task: PlanTask) -> None:
    """I3: all run to the end, unless `fail_fast`."""
    state = draft.task(task.name)
    if draft.halted and not task.is_finally:
        state.stopping = state.stopping or "cancel"
    elif task.fail_fast and state.failed > _tolerated(task) and not state.stopping:
        state.stopping = "fail_fast"
        draft.to_stop.append(task.name)


def _tolerated(task: PlanTask) -> int:
    return int((task.loop or {}).get("tolerate") or 0)


def _finish_if_over(draft: Draft, task: PlanTask) -> None:
    state = draft.task(task.name)
    if state.over == state.units:
        finish(draft, task)


def finish(draft: Draft, task: PlanTask) -> None:
    """I4, I5: every unit is over or was stopped: aggregate, then settle once. Needs all the jobs of the task."""
    state = draft.task(task.name)
    latest = {job.unit: job for job in draft.counting_jobs(task.name)}
    state.items = [_item(unit, latest.get(unit)) for unit in range(state.units)]
    share = max(STREAM_FLOOR, STREAM_BYTES // (2 * max(1, state.units)))
    result = [
        _shortened(latest[unit].result, share) if unit in latest else None for unit in range(state.units)
    ]
    if state.cancelled and (draft.halted or state.stopping == "cancel"):
        settle(draft, task.name, CANCELLED, result=result)
    elif state.failed > _tolerated(task) or state.cancelled:
        settle(draft, task.name, FAILED, result=result, error=_problem(state))
    else:
        settle(draft, task.name, SUCCEEDED, result=result)


def _problem(state: TaskState) -> dict[str, Any]:
    bad = [str(item["index"]) for item in state.items if item["status"] != SUCCEEDED]
    more = "" if len(bad) <= 10 else f" and {len(bad) - 10} more"
    return error(
        "items_failed", f"{len(bad)} of {state.units} units failed: index {', '.join(bad[:10])}{more}"
    )


def _item(unit: int, job: JobState | None) -> dict[str, Any]:
    if job is None or (job.status == QUEUED or job.status not in JOB_OVER):
        return {"index": unit, "status": NOT_REACHED, "error": None}
    return {"index": unit, "status": job.status, "error": job.error}


def _shortened(result: Any, share: int) -> Any:
    """A unit's result with at most `share` characters of each stream or body: a task's result has one bound for all
    units."""
    if not isinstance(result, Mapping):
        return result
    if len(str(result.get("body", ""))) > share:
        return {**result, "body": str(result["body"])[:share], "json": None, "truncated": True}
    if not any(len(str(result.get(name, ""))) > share for name in _STREAMS):
        return result
    cut = {name: str(result[name])[-share:] for name in _STREAMS if name in result}
    return {**result, **cut, "truncated": True}
