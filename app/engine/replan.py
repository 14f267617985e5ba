"""An execution is tried again with another version of its workflow (semantics R1): what may stay, and what runs.

What was kept is kept only if its task is there unchanged; what runs again follows the new version.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from app.compiler.plan import Plan, PlanTask
from app.engine.context import first_scopes
from app.engine.draft import Draft
from app.engine.events import RetryAsked
from app.engine.reach import BROKEN, broken, downstream
from app.engine.settle import admit
from app.engine.state import TaskState
from app.engine.status import SKIPPED, SUCCEEDED
from app.language import expressions
from app.language.expressions import TemplateError

_GOOD = (SUCCEEDED, SKIPPED)


@dataclass(frozen=True, slots=True)
class Conflict:
    """A task that has something to keep, and why it cannot be kept."""

    task: str
    why: str


def top(plan: Plan) -> list[str]:
    """The tasks that are neither children of a block nor under `finally`."""
    return [name for name, task in plan.tasks.items() if task.parent is None and not task.is_finally]


def pulled(earlier: Plan, plan: Plan, statuses: Mapping[str, str], also: Collection[str]) -> set[str]:
    """The top-level tasks that run whatever the new version's edges say: those that are new, and those that the
    earlier version led to from what is tried again."""
    known = top(earlier)
    before = downstream(earlier, broken(earlier, statuses, {*also} & {*known}))
    return {name for name in top(plan) if name in before or name not in known}


def conflicts(
    earlier: Plan, plan: Plan, tasks: Mapping[str, TaskState], event: RetryAsked
) -> Iterator[Conflict]:
    """What bars the way to the new version, in the order of the tasks. `tasks` are the rows as they are now."""
    statuses = {name: task.status for name, task in tasks.items()}
    named = {*event.from_, *event.mark_ok}
    start = broken(earlier, statuses, named)
    runs = pulled(earlier, plan, statuses, named) | (start & {*top(plan)})
    runs = downstream(plan, runs)
    behind = {
        name for source in start if source in plan.tasks for name in downstream(plan, plan.tasks[source].out)
    }
    for name in top(earlier):
        if name not in runs and statuses[name] in _GOOD:
            yield from _kept(earlier, plan, name)
        elif name in start - behind and name in plan.tasks and name not in named and not event.reset:
            yield from _in_part(earlier, plan, name, tasks)


def _kept(earlier: Plan, plan: Plan, name: str) -> Iterator[Conflict]:
    if name not in top(plan):
        yield Conflict(name, "it succeeded and is gone")
    elif any(is_changed(earlier, plan, one) for one in (name, *earlier.tasks[name].children)):
        yield Conflict(name, "it succeeded and is changed")


def _in_part(earlier: Plan, plan: Plan, name: str, tasks: Mapping[str, TaskState]) -> Iterator[Conflict]:
    """What failed in part keeps its good units and children, so these must be what they were."""
    old, state = earlier.tasks[name], tasks[name]
    if old.kind == "block":
        good = [child for child in old.children if tasks[child].status in _GOOD]
        changed = [child for child in good if is_changed(earlier, plan, child)]
        if good and (changed or old.children != plan.tasks[name].children):
            yield Conflict(name, "children of it succeeded, and it is changed")
            return
        for child in old.children:
            if child in plan.tasks and tasks[child].status in BROKEN:
                yield from _in_part(earlier, plan, child, tasks)
    elif runs_whole(earlier, plan, name) and _has_parts(old, state):
        yield Conflict(name, "a part of it succeeded, and it is changed")


def is_changed(earlier: Plan, plan: Plan, name: str) -> bool:
    """Whether the task is another one now, or gone."""
    return name not in plan.tasks or earlier.tasks[name].essence != plan.tasks[name].essence


def runs_whole(earlier: Plan, plan: Plan, name: str) -> bool:
    """Whether a task that failed in part can only run again as a whole. A loop over the same list cannot only."""
    if name not in earlier.tasks:
        return True
    old, new = earlier.tasks[name], plan.tasks[name]
    if old.kind != new.kind:
        return True
    if old.kind == "loop":
        lists = [(task.loop or {}).get(key) for key in ("items", "batch_size") for task in (old, new)]
        return lists[0] != lists[1] or lists[2] != lists[3] or old.runs_in_engine != new.runs_in_engine
    if old.kind == "block":
        return old.children != new.children
    return is_changed(earlier, plan, name)


def _has_parts(task: PlanTask, state: TaskState) -> bool:
    """Whether something of a task that failed may have succeeded: units of it, or tasks of its child."""
    if task.kind in ("fanout", "loop"):
        return bool(state.succeeded or state.skipped)
    return task.has_child


def with_defaults(plan: Plan, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters as they were given, and the defaults of those that the new version adds."""
    added = {
        one["name"]: one["default"] if one["has_default"] else None
        for one in plan.parameters
        if one["name"] not in parameters
    }
    return {**parameters, **added}


def first_values(
    plan: Plan, scopes: Mapping[str, Any], given: Mapping[str, Any] | None = None
) -> Iterator[tuple[str, Any]]:
    """The first values of the variables that a workflow declares, in order; `scopes` are `context.first_scopes`.

    Those that are `given` have theirs already. Raises TemplateError.
    """
    given = given or {}
    found: dict[str, Any] = {}
    for name, value in plan.vars:
        try:
            found[name] = (
                given[name] if name in given else expressions.render(value, {**scopes, "vars": found})
            )
        except TemplateError as problem:
            problem.message = f"vars.{name}: {problem.message}"
            raise
        yield name, found[name]


def take_over(draft: Draft, earlier: Plan, config: Mapping[str, Any]) -> dict[str, str]:
    """Rows for the tasks of the new version: those that are new are born, those that are gone are dropped.

    `config` is what it reads of its pack's configuration. Returns the statuses by the earlier version.
    """
    plan, run = draft.plan, draft.execution
    draft.want(earlier.tasks)
    statuses = {name: draft.task(name).status for name in earlier.tasks}
    for name, task in plan.tasks.items():
        if name not in earlier.tasks:
            draft.bear_task(TaskState(name, open=task.incoming))
    draft.changes.gone_tasks += [name for name in earlier.tasks if name not in plan.tasks]
    run.parameters = with_defaults(plan, run.parameters)
    run.config = {**config, **run.config}
    return statuses


def set_new_variables(draft: Draft, earlier: Plan, again: Collection[str]) -> None:
    """A variable that the new version declares gets its first value, unless a kept task has set it."""
    plan = draft.plan
    known = {name for name, _ in earlier.vars}
    kept = (task for name, task in plan.tasks.items() if name not in again and not task.is_finally)
    known |= {name for task in kept if draft.task(task.name).status in _GOOD for name, _ in task.publish}
    for name, value in first_values(plan, first_scopes(plan, draft.execution, draft.kv(plan.vars_kv))):
        if name not in known:
            draft.publish(name, value, "", admit(draft, name, value))
