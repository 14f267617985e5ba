"""One task on many nodes: a row for every node asked for, in batches, with a threshold that really stops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

from app.compiler.plan import PlanTask
from app.engine.context import error
from app.engine.draft import Draft
from app.engine.settle import settle
from app.engine.state import JobState, TaskState
from app.engine.status import (
    CANCELLED,
    FAILED,
    NOT_REACHED,
    SKIPPED,
    SUCCEEDED,
    TIMED_OUT,
    UNKNOWN,
)

COUNTS_AS_FAILURE = frozenset({FAILED, TIMED_OUT, UNKNOWN})
STREAM_BYTES = 1_000_000
"""Bytes of a task's result that the streams of all its units share."""
STREAM_FLOOR = 256


def begin(draft: Draft, task: PlanTask, nodes: Any, queue_timeout: float) -> None:
    """Resolve the node list once, keep it, and start the first batch."""
    state = draft.task(task.name)
    if not isinstance(nodes, Sequence) or isinstance(nodes, str) or not all(_is_name(one) for one in nodes):
        problem = error("nodes", "`nodes` must be a list of node ids or a map of labels")
        settle(draft, task.name, FAILED, error=problem)
        return
    names = tuple(dict.fromkeys(nodes))
    if not names:
        settle(draft, task.name, FAILED, error=error("no_nodes", "no node matches"))
        return
    state.nodes = names
    state.units = len(names)
    state.input = {**state.input, "queue_timeout": queue_timeout}
    next_batch(draft, task)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def batch_sizes(batch: Any, total: int) -> list[int]:
    """How many units each batch starts: percentages are of the total, rounded up; the last entry repeats."""
    entries = batch if isinstance(batch, Sequence) and not isinstance(batch, str) else [batch]
    sizes: list[int] = []
    left = total
    for position in range(total):
        if not left:
            break
        entry = entries[min(position, len(entries) - 1)] if entries else None
        size = min(left, _size(entry, total))
        sizes.append(size)
        left -= size
    return sizes


def _size(entry: Any, total: int) -> int:
    if isinstance(entry, str) and entry.rstrip().endswith("%"):
        return max(1, ceil(total * float(entry.rstrip()[:-1]) / 100))
    return max(1, int(entry)) if entry is not None else total


def next_batch(draft: Draft, task: PlanTask) -> None:
    """Bear the jobs of the next batch; nodes that cannot run it are over at once, and may end the batch."""
    state = draft.task(task.name)
    _judge(draft, task)
    while not state.stopping and not draft.held and state.over == state.started < state.units:
        size = _size_at(state)
        for unit in range(state.started, state.started + size):
            bear(draft, task, state, unit)
        state.started += size
        _judge(draft, task)
    if state.over == state.started and (state.stopping or state.started == state.units):
        finish(draft, task)


def _size_at(state: TaskState) -> int:
    begun = 0
    for size in batch_sizes((state.input or {}).get("batch"), state.units):
        if begun == state.started:
            return size
        begun += size
    return state.units - state.started


def bear(draft: Draft, task: PlanTask, state: TaskState, unit: int) -> None:
    """One unit's first attempt in this run of the task. What cannot run is over at once."""
    name = (state.nodes or ())[unit]
    wait = float((state.input or {}).get("queue_timeout", draft.limits.fanout_queue_timeout))
    job = draft.bear(task.name, unit, state.first_attempt, name, wait)
    node = draft.node(name)
    shell = (state.input or {}).get("shell", "sh")
    if node is None or node.state == "removed":
        _over_at_once(draft, job, FAILED, error("unknown_node", f"no node named {name!r} is enrolled"))
    elif not isinstance((state.input or {}).get("command"), list) and shell not in node.shells:
        _over_at_once(draft, job, SKIPPED, error("no_shell", f"node {name} has no {shell}"))
    else:
        draft.dispatch(job)


def _over_at_once(draft: Draft, job: JobState, status: str, problem: Mapping[str, Any]) -> None:
    job.status, job.error, job.ended_at, job.settled = status, problem, draft.now, True
    count(draft.task(job.task), status)


def count(state: TaskState, status: str) -> None:
    """One more unit is over."""
    state.over += 1
    state.succeeded += status == SUCCEEDED
    state.skipped += status == SKIPPED
    state.cancelled += status == CANCELLED
    state.failed += status in COUNTS_AS_FAILURE


def unit_over(draft: Draft, task: PlanTask, job: JobState) -> None:
    """The last attempt on one node ended."""
    count(draft.task(task.name), job.status)
    next_batch(draft, task)


def _judge(draft: Draft, task: PlanTask) -> None:
    """When failures exceed the threshold no further batch starts; with fail_fast open units are stopped as well."""
    state = draft.task(task.name)
    if draft.halted and not task.is_finally:
        state.stopping = state.stopping or "cancel"
    elif state.failed > _tolerated(state):
        state.stopping = state.stopping or "threshold"
        if task.fail_fast:
            draft.to_stop.append(task.name)


def _tolerated(state: TaskState) -> int:
    return int((state.input or {}).get("max_failures") or 0)


def finish(draft: Draft, task: PlanTask) -> None:
    """Every unit that started is over: aggregate. Needs all the jobs of the task."""
    state = draft.task(task.name)
    rows = _rows(draft, state)
    result = {
        "results": rows,
        "skipped_nodes": [row["node_id"] for row in rows if row["status"] == SKIPPED],
        "succeeded_count": state.succeeded,
        "failed_count": state.failed,
        "total_count": state.units,
    }
    ended_early = state.cancelled or state.over < state.units
    if ended_early and (draft.halted or state.stopping == "cancel"):
        settle(draft, task.name, CANCELLED, result=result)
    elif state.failed > _tolerated(state):
        bad = [row["node_id"] for row in rows if row["status"] in COUNTS_AS_FAILURE]
        more = "" if len(bad) <= 10 else f" and {len(bad) - 10} more"
        problem = error("nodes_failed", f"failed on {', '.join(bad[:10])}{more}")
        settle(draft, task.name, FAILED, result=result, error=problem)
    elif state.skipped == state.units:
        settle(draft, task.name, SKIPPED, result=result)
    else:
        settle(draft, task.name, SUCCEEDED, result=result)


def _rows(draft: Draft, state: TaskState) -> list[dict[str, Any]]:
    latest = {job.unit: job for job in draft.counting_jobs(state.name)}
    share = max(STREAM_FLOOR, STREAM_BYTES // (2 * max(1, state.units)))
    return [_row(name, latest.get(unit), share) for unit, name in enumerate(state.nodes or ())]


def _row(name: str, job: JobState | None, share: int) -> dict[str, Any]:
    result = (job.result if job else None) or {}
    stdout, stderr = str(result.get("stdout", "")), str(result.get("stderr", ""))
    return {
        "node_id": name,
        "exit_code": job.exit_code if job else None,
        "stdout": stdout[-share:],
        "stderr": stderr[-share:],
        "status": job.status if job else NOT_REACHED,
        "started_at": job.started_at if job else None,
        "completed_at": job.ended_at if job else None,
        "truncated": bool(result.get("truncated")) or len(stdout) > share or len(stderr) > share,
        "error": job.error if job else None,
    }
