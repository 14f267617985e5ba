"""An execution that is over is tried again (semantics R1): what is reset, what is kept.

This step only resets; it leaves the execution paused, and the resume that the caller sends after it starts what may
run. In between the variables are read anew: what reset tasks had published is void. Tasks of `finally` run again with
whatever runs again before them; where they alone came to no good, those that did.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from app.compiler.plan import ASK_ACTIONS, Plan, PlanTask
from app.engine import fanout, gate, loop, own, replan
from app.engine.draft import Draft
from app.engine.events import RetryAsked
from app.engine.reach import BROKEN, broken, broken_at_the_end, downstream
from app.engine.settle import fire_set, settle, verdict, where_to
from app.engine.state import MAIN, JobState, TaskState
from app.engine.status import (
    NOT_REACHED,
    PAUSE,
    RUNNING,
    SKIPPED,
    SUCCEEDED,
)

_WITH_JOBS = ("job", "own", "fanout", "loop")


def retry(draft: Draft, event: RetryAsked) -> None:
    """Reset what is to run again. Needs every task, and the jobs of those that are reset.

    An execution with a gate asks people anew. Raises TemplateError where the gate makes no sense.
    """
    plan, earlier = draft.plan, draft.given.earlier
    draft.reopening = True
    named = {*event.from_, *event.mark_ok, *event.units}
    pulled: set[str] = set()
    if earlier is not None:
        pulled = replan.pulled(earlier, plan, replan.take_over(draft, earlier, event.config), named)
    draft.want(plan.tasks)
    statuses = {name: draft.look(name).status for name in plan.tasks}
    from_here = broken(plan, statuses, named)
    gone = {name: _went(draft, name) for name in plan.tasks if plan.tasks[name].parent is None}
    again = _with_newly_reached(draft, downstream(plan, from_here | pulled), gone)
    final = set(plan.finally_)
    if not again and earlier is None:
        final = broken_at_the_end(plan, statuses, draft.execution.ended_badly)
    _reopen(draft)
    _say_where_kept_ones_went(draft, again)
    children = {child for name in again | final for child in plan.tasks[name].children}
    before = {plan.tasks[name].along for name in again} - {""}
    draft.want_jobs(name for name in again | final | children | before if plan.tasks[name].kind in _WITH_JOBS)
    behind = downstream(plan, {target for name in from_here for target in plan.tasks[name].out})
    for name in sorted(again | final, key=lambda name: plan.tasks[name].index):
        in_part = name in from_here - behind and name not in event.mark_ok and not event.reset
        _again(draft, plan.tasks[name], in_part=in_part and name not in event.from_)
    _count_edges(draft, again, gone)
    draft.changes.voided += sorted(again | final)
    if earlier is not None:
        draft.changes.voided += draft.changes.gone_tasks
        replan.set_new_variables(draft, earlier, again)
        draft.log("version", plan=event.plan, new=len(draft.changes.new_tasks), gone=draft.changes.gone_tasks)
    for name in sorted(event.mark_ok):
        draft.set_status(name, RUNNING)
        draft.log("marked", task=name, person=event.person, reason=event.reason)
        settle(draft, name, SUCCEEDED, result=event.mark_ok[name], marked=True)
    draft.work.clear()
    if plan.gate:
        gate.ask(draft)


def _reopen(draft: Draft) -> None:
    run = draft.execution
    run.intent, run.halt, run.finally_at = PAUSE, "", MAIN
    run.unhandled = run.handled = 0
    run.ended_badly = run.error_message = run.gate = ""
    run.output, run.ended_at, run.degraded = None, None, False
    # Where a task would have gone that now runs again is not said, and fails nothing.
    draft.changes.log.clear()


def _went(draft: Draft, name: str) -> tuple[str, ...]:
    """Where a task went when it ended. One that ended in a halt went nowhere then, and goes now."""
    state = draft.look(name)
    if state.went is not None:
        return state.went
    return where_to(fire_set(draft, draft.planned(name), state.status))


def _say_where_kept_ones_went(draft: Draft, again: Collection[str]) -> None:
    """From now on their edges stand as they are counted, and are not worked out anew by a later retry."""
    for name, task in draft.plan.tasks.items():
        if task.parent is None and name not in again:
            draft.task(name).went = _went(draft, name)


def _with_newly_reached(draft: Draft, again: set[str], gone: Mapping[str, tuple[str, ...]]) -> set[str]:
    """Tasks that a halt kept from starting run now. A branch that a decision did not take stays as it is."""
    plan = draft.plan
    while True:
        found = {
            name
            for name in plan.tasks
            if name not in again
            and plan.tasks[name].parent is None
            and not plan.tasks[name].is_finally
            and draft.look(name).status == NOT_REACHED
            and _may_run(plan, name, again, gone)
        }
        if not found:
            return again
        again = again | downstream(plan, found)


def _may_run(plan: Plan, name: str, again: Collection[str], gone: Mapping[str, tuple[str, ...]]) -> bool:
    fired = sum(name in went for task, went in gone.items() if task not in again)
    return verdict(plan, plan.tasks[name], open_=0, fired=fired) == "runnable"


def _count_edges(draft: Draft, again: Collection[str], gone: Mapping[str, tuple[str, ...]]) -> None:
    """Edges from tasks that run again are open; those from kept ones are as they went."""
    into: dict[str, list[str]] = {name: [] for name in again}
    for name, task in draft.plan.tasks.items():
        for target in task.out:
            if target in into:
                into[target].append(name)
    for name, sources in into.items():
        state = draft.task(name)
        state.open = sum(source in again for source in sources)
        state.fired = sum(source not in again and name in gone[source] for source in sources)


def _again(draft: Draft, task: PlanTask, *, in_part: bool) -> None:
    """One task back to pending; of one that failed itself, only the part that failed."""
    state, earlier = draft.task(task.name), draft.given.earlier
    in_part = in_part and not (earlier is not None and replan.runs_whole(earlier, draft.plan, task.name))
    if in_part and task.kind == "fanout" and state.nodes is not None:
        _fanout_in_part(draft, task, state)
    elif in_part and task.kind == "loop" and state.items and not task.runs_in_engine:
        _loop_in_part(draft, task, state)
    elif in_part and draft.plan.gate:
        # What would begin at once has to wait for people, and then begins from its start.
        _whole_with_children(draft, task)
    elif in_part and task.kind == "own" and task.action not in ASK_ACTIONS and draft.counting_jobs(task.name):
        _child_in_part(draft, task, state)
    elif in_part and task.kind == "block" and _good(draft, task) != list(task.children):
        _block_in_part(draft, task, state)
    else:
        _whole_with_children(draft, task)


def _whole_with_children(draft: Draft, task: PlanTask) -> None:
    _whole(draft, task)
    for child in task.children:
        _whole(draft, draft.planned(child))


def _whole(draft: Draft, task: PlanTask) -> None:
    state = draft.task(task.name)
    first = state.first_attempt
    if task.kind in _WITH_JOBS:
        # Behind each attempt of the task before it a node may have begun one that nobody has heard of.
        known = [*draft.jobs_of(task.name), *(draft.jobs_of(task.along) if task.along else ())]
        first = max((job.attempt + 1 for job in known), default=first)
    fresh = TaskState(task.name, first_attempt=first, base_attempt=first, retry_count=state.retry_count)
    draft.put(fresh)


def _latest(draft: Draft, name: str) -> dict[int, JobState]:
    return {job.unit: job for job in draft.counting_jobs(name)}


def _restart(draft: Draft, state: TaskState, kept: Collection[JobState]) -> None:
    """The task runs again, with the units that need no other attempt counted already."""
    state.first_attempt = max(job.attempt for job in draft.jobs_of(state.name)) + 1
    state.over = len(kept)
    state.succeeded = sum(job.status == SUCCEEDED for job in kept)
    state.skipped = sum(job.status == SKIPPED for job in kept)
    state.failed = state.cancelled = 0
    state.stopping, state.error, state.result, state.items = "", None, None, None
    state.ended_at, state.went = None, None
    draft.set_status(state.name, RUNNING)


def _fanout_in_part(draft: Draft, task: PlanTask, state: TaskState) -> None:
    latest = _latest(draft, task.name)
    kept = [job for job in latest.values() if job.status in (SUCCEEDED, SKIPPED)]
    if not latest:
        _whole(draft, task)
        return
    _restart(draft, state, kept)
    units = {job.unit for job in kept}
    for unit in range(state.started):
        if unit not in units:
            fanout.bear(draft, task, state, unit)


def _child_in_part(draft: Draft, task: PlanTask, state: TaskState) -> None:
    """The execution that was called is tried again itself, under a new attempt of the task."""
    last = draft.counting_jobs(task.name)[-1]
    _restart(draft, state, [])
    given = {"item": None, "index": 0, "input": state.input, "timeout": state.timeout, "retry_of": last.id}
    own.run(draft, task, draft.bear(task.name, 0, state.first_attempt, "", last.queue_timeout, given))


def _loop_in_part(draft: Draft, task: PlanTask, state: TaskState) -> None:
    latest = _latest(draft, task.name)
    kept = [job for job in latest.values() if job.status == SUCCEEDED]
    _restart(draft, state, kept)
    for unit, job in sorted(latest.items()):
        if job.status != SUCCEEDED:
            loop.bear(draft, task, unit, (job.given or {})["item"])


def _good(draft: Draft, task: PlanTask) -> list[str]:
    return [child for child in task.children if draft.look(child).status in (SUCCEEDED, SKIPPED)]


def _block_in_part(draft: Draft, task: PlanTask, state: TaskState) -> None:
    good = _good(draft, task)
    for child in task.children:
        if child not in good:
            _again(draft, draft.planned(child), in_part=draft.look(child).status in BROKEN)
    state.units = state.started = len(task.children)
    state.over = len(good)
    state.succeeded = sum(draft.look(child).status == SUCCEEDED for child in good)
    state.skipped = len(good) - state.succeeded
    state.failed = state.cancelled = 0
    state.stopping, state.error, state.result = "", None, None
    state.ended_at, state.went = None, None
    draft.set_status(task.name, RUNNING)
    if state.timeout is not None:
        draft.arm(task.name, 0, "timeout", draft.now + state.timeout)
