"""A task has its outcome: publish, account, fire edges, see what may run now (semantics E4-E7, P1-P4)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from app.compiler.plan import Plan, PlanTask
from app.engine.context import OverLimit, error, kind_of, size_of, task_scope, template_error
from app.engine.draft import Draft, view
from app.engine.status import (
    CANCEL,
    CANCELLED,
    FAILED,
    NOT_REACHED,
    PENDING,
    SKIPPED,
    SUCCEEDED,
    TASK_OVER,
    TIMED_OUT,
)
from app.language import expressions
from app.language.expressions import TemplateError
from app.language.model import RESERVED_TARGETS

FAILURES = frozenset({FAILED, TIMED_OUT})

MANY = 4
"""How much larger than the result of a single task that of many units together may be."""


def settle(
    draft: Draft,
    name: str,
    outcome: str,
    *,
    result: Any = None,
    error: Mapping[str, Any] | None = None,
    marked: bool = False,
) -> None:
    """Give a task its final outcome. A task that has one keeps it.

    `marked` says that a person gave it: what then does not render in `publish` is left out.
    """
    state, task = draft.task(name), draft.planned(name)
    if state.status in TASK_OVER:
        return
    if result is not None:
        outcome, result, error = _held_to_limit(draft, task, outcome, result, error)
        state.result = result
    state.error = error
    if marked:
        _publish_what_renders(draft, task, outcome, task.publish)
    else:
        outcome = _publish(draft, task, outcome)
    draft.set_status(name, outcome)
    state.ended_at = draft.now
    if task.may_have_timers:
        draft.disarm(name)
    if task.parent is not None:
        _child_over(draft, task.parent, outcome)
        return
    handled = task.handles(outcome)
    if outcome in FAILURES and not task.is_finally:
        _account_failure(draft, name, outcome, handled)
    if task.is_finally:
        # It fails an execution that would be completed, and changes nothing else (E6).
        if outcome in FAILURES and not draft.execution.unhandled and draft.execution.intent != CANCEL:
            end_badly(draft, "finally", f"{name} failed: {_message(state.error)}")
        return
    _fire(draft, task, outcome)


def _held_to_limit(
    draft: Draft, task: PlanTask, outcome: str, result: Any, given: Mapping[str, Any] | None
) -> tuple[str, Any, Mapping[str, Any] | None]:
    """A result that is too large is not kept; a task that came to it by success has failed."""
    most = draft.limits.result * (MANY if task.kind in ("fanout", "loop", "block") else 1)
    size = size_of(result)
    if size <= most:
        return outcome, result, given
    problem = error("result_too_large", f"the result of {task.name} has {size} bytes, {most} are allowed")
    return (FAILED, None, problem) if outcome == SUCCEEDED else (outcome, None, given)


def _account_failure(draft: Draft, name: str, outcome: str, handled: bool) -> None:
    run = draft.execution
    if handled:
        run.handled += 1
        return
    run.unhandled += 1
    said = "timed out" if outcome == TIMED_OUT else "failed"
    run.error_message = run.error_message or f"{name} {said} and nothing handled it"
    if draft.plan.fail_fast:
        halt(draft, "fail_fast")


def end_badly(draft: Draft, why: str, message: str) -> None:
    if not draft.execution.ended_badly:
        draft.execution.ended_badly = why
        draft.execution.error_message = message[:2000]


def _message(problem: Mapping[str, Any] | None) -> str:
    return str((problem or {}).get("message", ""))


def _publish(draft: Draft, task: PlanTask, outcome: str) -> str:
    """P1-P3. Returns the outcome, which a failing publish turns to failed."""
    state = draft.task(task.name)
    if outcome == SUCCEEDED and task.publish:
        try:
            values = _rendered(draft, task, outcome)
        except TemplateError as problem:
            state.error = error(kind_of(problem, "publish"), f"publish of {task.name}: {problem.message}")
            return FAILED
        for name, value, size in values:
            draft.publish(name, value, task.name, size)
    elif outcome in FAILURES and task.publish_on_failure:
        _publish_what_renders(draft, task, outcome, task.publish_on_failure)
    return outcome


def _rendered(draft: Draft, task: PlanTask, outcome: str) -> list[tuple[str, Any, int]]:
    """What is to be published, with the bytes of each. Raises TemplateError, OverLimit among them."""
    own = {**view(draft.look(task.name)), "status": outcome}
    scopes = task_scope(draft, task, own)
    seen = dict(draft.vars)
    values: list[tuple[str, Any, int]] = []
    room = 0
    for name, value in task.publish:
        seen[name] = expressions.render(value, {**scopes, "vars": seen})
        size = admit(draft, name, seen[name], before=room)
        room += size
        values.append((name, seen[name], size))
    return values


def admit(draft: Draft, name: str, value: Any, *, before: int = 0) -> int:
    """The bytes of a value that is to be published, after `before` others. Raises OverLimit."""
    limits, size = draft.limits, size_of(value)
    if size > limits.variable:
        message = f"vars.{name} has {size} bytes, {limits.variable} are allowed"
        raise OverLimit("variable_too_large", message)
    total = draft.execution.var_bytes + before + size
    if total > limits.variables:
        message = (
            f"with vars.{name} {total} bytes were published, an execution may publish {limits.variables}"
        )
        raise OverLimit("variables_too_large", message)
    return size


def _publish_what_renders(
    draft: Draft, task: PlanTask, outcome: str, entries: Sequence[tuple[str, Any]]
) -> None:
    own = {**view(draft.look(task.name)), "status": outcome}
    scopes = task_scope(draft, task, own)
    for name, value in entries:
        try:
            found = expressions.render(value, {**scopes, "vars": draft.vars})
            draft.publish(name, found, task.name, admit(draft, name, found))
        except TemplateError as problem:
            draft.log("publish", task=task.name, name=name, skipped=problem.message)


def _fire(draft: Draft, task: PlanTask, outcome: str) -> None:
    """E5: each outgoing edge becomes fired or dead; the targets are looked at when the step's work comes to them."""
    # What its node had begun by itself before any halt was begun along this edge.
    gone = draft.gone.keys() & task.out if outcome == SUCCEEDED else frozenset[str]()
    fired = frozenset(gone) if draft.halted else frozenset(fire_set(draft, task, outcome))
    draft.task(task.name).went = None if draft.halted and not gone else where_to(fired)
    if "fail" in fired:
        end_badly(draft, "fail", f"{task.name} went to `fail`")
    draft.want(task.out)
    for target in task.out:
        state = draft.task(target)
        state.open -= 1
        state.fired += target in fired
        draft.work.append(target)
    if fired - RESERVED_TARGETS:
        draft.log("fired", task=task.name, targets=sorted(fired))


def where_to(fired: Collection[str]) -> tuple[str, ...]:
    """What a task's row keeps as `went` of the targets that fired: all but `noop`, where nothing happens."""
    return tuple(sorted({*fired} - {"noop"}))


def fire_set(draft: Draft, task: PlanTask, outcome: str) -> tuple[str, ...]:
    """E4: the targets of the edges that fire."""
    if outcome == SUCCEEDED:
        chosen = task.on_success if task.decision is None else _decide(draft, task)
        return (*chosen, *task.on_complete)
    if outcome == FAILED:
        return (*task.on_failure, *task.on_complete)
    if outcome == TIMED_OUT:
        return (*(task.on_timeout or task.on_failure), *task.on_complete)
    return task.on_skip if outcome == SKIPPED else ()


def _decide(draft: Draft, task: PlanTask) -> tuple[str, ...]:
    """The targets of the first branch that holds; the execution fails where none does."""
    scopes = task_scope(draft, task, view(draft.look(task.name)))
    for when, targets in task.decision or ():
        try:
            if when is None or expressions.truth(when, scopes):
                draft.log("decision", task=task.name, when=when or "default", next=list(targets))
                return targets
        except TemplateError as problem:
            end_badly(draft, "template", f"decision of {template_error(task.name, problem)['message']}")
            return ()
    end_badly(draft, "no_branch", f"no branch of the decision of {task.name} held, and it has no default")
    return ()


def consider(draft: Draft, name: str) -> str:
    """What the edges of a pending task say: "runnable", "not_reached" or "" (wait, or it has left pending)."""
    state, task = draft.look(name), draft.planned(name)
    if state.status != PENDING:
        return ""
    return verdict(draft.plan, task, open_=state.open, fired=state.fired)


def verdict(plan: Plan, task: PlanTask, *, open_: int, fired: int) -> str:
    """E1, E5: "runnable", "not_reached" or "" for a pending task with so many edges open and fired."""
    if not task.incoming:
        found = "runnable" if task.name in plan.entries else "not_reached"
    elif task.join == "any":
        found = "runnable" if fired else "" if open_ else "not_reached"
    elif isinstance(task.join, int):
        short = not open_ and fired < task.join
        found = "runnable" if fired >= task.join else "not_reached" if short else ""
    elif open_:
        found = ""
    else:
        needed = task.incoming if task.join == "all" else 1
        found = "runnable" if fired >= needed else "not_reached"
    return found


def not_reached(draft: Draft, name: str) -> None:
    """No edge can fire any more: the task's own edges die with it."""
    state = draft.task(name)
    draft.set_status(name, NOT_REACHED)
    state.ended_at = draft.now
    _fire(draft, draft.planned(name), NOT_REACHED)


def _child_over(draft: Draft, block: str, outcome: str) -> None:
    """E7: the block settles when all its children have."""
    state, task = draft.task(block), draft.planned(block)
    state.over += 1
    state.succeeded += outcome == SUCCEEDED
    state.skipped += outcome == SKIPPED
    state.failed += outcome in FAILURES
    state.cancelled += outcome in (CANCELLED, NOT_REACHED)
    if outcome in FAILURES and task.fail_fast and not state.stopping:
        state.stopping = "fail_fast"
        draft.to_stop.extend(task.children)
    if state.over < state.units or state.status in TASK_OVER:
        return
    draft.want(task.children)
    children = {child: draft.look(child) for child in task.children}
    result = {child: one.result for child, one in children.items()}
    if state.stopping == "timed_out":
        settle(draft, block, TIMED_OUT, result=result, error=error("timeout", f"{block} took too long"))
    elif state.failed:
        bad = [child for child, one in children.items() if one.status in FAILURES]
        problem = error("children", f"{', '.join(bad)} failed")
        settle(draft, block, FAILED, result=result, error=problem)
    else:
        settle(draft, block, CANCELLED if state.cancelled else SUCCEEDED, result=result)


def halt(draft: Draft, why: str) -> None:
    """Nothing new starts and no edge fires from now on; `advance` stops what is live."""
    if draft.execution.halt != "forced":
        draft.execution.halt = why
