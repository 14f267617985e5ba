"""What semantics.md says of edges, joins, waits and batches, written down a second time and on purpose otherwise.

The invariants compare the engine with this; nothing here is taken from it.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil
from typing import Any

from app.compiler.plan import Plan, PlanTask

FAILURES = ("failed", "timed_out")
NO_BRANCH = "no branch"


def sources(plan: Plan) -> dict[str, tuple[str, ...]]:
    """The tasks that an edge leads from, by where it leads to."""
    found: dict[str, list[str]] = {name: [] for name in plan.tasks}
    for name, task in plan.tasks.items():
        for target in set(_all_targets(task)) & plan.tasks.keys():
            found[target].append(name)
    return {name: tuple(into) for name, into in found.items()}


def _all_targets(task: PlanTask) -> list[str]:
    named = [task.on_success, task.on_failure, task.on_complete, task.on_timeout, task.on_skip]
    named += [next_ for _, next_ in task.decision or ()]
    return [target for targets in named for target in targets]


def fires(task: PlanTask, status: str, flag: bool) -> frozenset[str]:
    """E4: where a task goes that came to `status`. NO_BRANCH is among them where its decision has no answer."""
    always = set(task.on_complete)
    if status == "succeeded":
        if task.decision is None:
            return frozenset(always | set(task.on_success))
        for when, next_ in task.decision:
            if when is None or flag:
                return frozenset(always | set(next_))
        return frozenset(always | {NO_BRANCH})
    if status == "failed":
        return frozenset(always | set(task.on_failure))
    if status == "timed_out":
        return frozenset(always | set(task.on_timeout if task.on_timeout else task.on_failure))
    return frozenset(task.on_skip) if status == "skipped" else frozenset()


def is_handled(task: PlanTask, status: str) -> bool:
    """E6."""
    return bool(task.on_failure or (status == "timed_out" and task.on_timeout))


def may_run(task: PlanTask, into: int, open_: int, fired: int) -> bool:
    """E1, E5: whether a task with so many edges, of which so many are open and fired, may leave pending to run."""
    if not into:
        return task.parent is None and not task.is_finally
    if task.join == "any":
        return fired > 0
    if isinstance(task.join, int):
        return fired >= task.join
    return open_ == 0 and (fired == into if task.join == "all" else fired > 0)


def never_runs(task: PlanTask, into: int, open_: int, fired: int) -> bool:
    """E5: whether no edge can make it run any more."""
    return bool(into) and open_ == 0 and not may_run(task, into, 0, fired)


def wait_of(retry: dict[str, Any], number: int) -> float:
    """E3: seconds before retry `number`, from 1."""
    wait = float(retry["delay"])
    if retry["backoff"] == "linear":
        wait *= number
    if retry["backoff"] == "exponential":
        for _ in range(number - 1):
            wait *= 2
    most = retry["max_delay"]
    return wait if most is None or wait < most else float(most)


def batches_of(items: tuple[Any, ...], size: int | None) -> list[Any]:
    """I1: what each unit of a loop is given."""
    if not size:
        return list(items)
    return [list(items[n * size : n * size + size]) for n in range(ceil(len(items) / size))]


@lru_cache(1024)
def batch_begins(batch: tuple[int | str, ...], total: int) -> tuple[int, ...]:
    """The units of a fan-out over `total` nodes that begin a batch."""
    begins, at = [], 0
    while at < total:
        entry = batch[min(len(begins), len(batch) - 1)]
        begins.append(at)
        at += max(1, ceil(total * int(entry[:-1]) / 100) if isinstance(entry, str) else entry)
    return tuple(begins)
