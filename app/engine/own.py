"""What the engine runs itself, without a node or a worker: waits, a person's decision, another workflow.

Each attempt is a job's row with no node, so that retries, loops and history are those of any job. Single `core.noop`,
`core.sleep` and `core.fail` need none: they are seen to in `start`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.compiler.plan import ASK_ACTIONS, ENGINE_ACTIONS, PlanTask
from app.engine.context import MONTH, error, number, template_error
from app.engine.draft import Draft
from app.engine.events import ChildEnded, Decided
from app.engine.question import question
from app.engine.state import Ask, Child, JobState
from app.engine.status import COMPLETED, FAILED, RUNNING, SUCCEEDED, TIMED_OUT, WAITING
from app.language.expressions import TemplateError


def run(draft: Draft, task: PlanTask, job: JobState) -> None:
    """Start an attempt. The `given` of a job may name the one whose child is to be tried again (`retry_of`)."""
    job.status, job.started_at = RUNNING, draft.now
    given, timeout = _given(draft, job)
    if task.action == "core.noop":
        end(draft, job, SUCCEEDED, result={})
    elif task.action == "core.fail":
        end(draft, job, FAILED, error("fail", str(given.get("message", "core.fail"))))
    elif task.action == "core.sleep":
        _sleep(draft, task, job, given.get("seconds", 0), timeout)
    elif task.action in ASK_ACTIONS:
        _ask(draft, task, job, given)
    else:
        _start_child(draft, task, job, Child(job.id, task.action, given), timeout)


def _given(draft: Draft, job: JobState) -> tuple[Mapping[str, Any], float | None]:
    if job.given is not None:
        return job.given["input"], job.given["timeout"]
    state = draft.task(job.task)
    return state.input or {}, state.timeout


def _sleep(draft: Draft, task: PlanTask, job: JobState, duration: Any, timeout: float | None) -> None:
    try:
        wait = number(duration, {}, "seconds", low=0, high=MONTH)
    except TemplateError as problem:
        end(draft, job, FAILED, template_error(task.name, problem))
        return
    kind, due = ("sleep", wait) if timeout is None or wait <= timeout else ("timeout", timeout)
    _arm(draft, job, kind, due)


def _ask(draft: Draft, task: PlanTask, job: JobState, given: Mapping[str, Any]) -> None:
    """A question to people: a row that somebody decides, and a timer where it expires."""
    try:
        asked = question(given)
    except TemplateError as problem:
        end(draft, job, FAILED, template_error(task.name, problem))
        return
    expires_at = None
    if asked.wait is not None:
        _arm(draft, job, "expiry", asked.wait)
        expires_at = draft.now + asked.wait
    kind = task.action.removeprefix("core.")
    more = (asked.prompt, asked.approvers, asked.quorum, expires_at, given.get("schema"))
    draft.changes.asks.append(Ask(job.id, task.name, job.unit, kind, *more))
    _wait(draft, task, "person")


def _start_child(draft: Draft, task: PlanTask, job: JobState, child: Child, timeout: float | None) -> None:
    if timeout is not None:
        _arm(draft, job, "timeout", timeout)
    draft.changes.children.append(child)
    _wait(draft, task, "child")


def _wait(draft: Draft, task: PlanTask, reason: str) -> None:
    if task.kind == "own":
        draft.set_status(task.name, WAITING, reason)


def _arm(draft: Draft, job: JobState, kind: str, seconds: float) -> None:
    draft.arm(job.task, job.unit, f"{kind}.{job.attempt}", draft.now + seconds)


def timer_due(draft: Draft, task: PlanTask, unit: int, timer: str) -> None:
    """`sleep`, `timeout` or `expiry`, with the number of the attempt."""
    kind, _, attempt = timer.partition(".")
    job = draft.attempt(task.name, unit, int(attempt))
    if job.status != RUNNING:
        return
    on_expire = _given(draft, job)[0].get("on_expire", "timeout") if kind == "expiry" else "timeout"
    if kind == "sleep":
        end(draft, job, SUCCEEDED, result={})
    elif kind == "expiry" and on_expire == "approve":
        end(draft, job, SUCCEEDED, result={"outcome": "expired", "decided_by": []})
    elif kind == "expiry" and on_expire == "reject":
        end(draft, job, FAILED, error("rejected", "nobody decided in time"))
    else:
        what = "nobody decided in time" if kind == "expiry" else f"{task.name} took too long"
        end(draft, job, TIMED_OUT, error("timeout", what))


def decided(draft: Draft, event: Decided) -> None:
    """A person's word, or that of as many as were needed."""
    job = draft.job(event.job)
    if job.status != RUNNING or job.settled:
        return
    if event.outcome == "rejected":
        reason = f": {event.reason}" if event.reason else ""
        end(
            draft,
            job,
            FAILED,
            error("rejected", f"rejected by {', '.join(event.people)}{reason}"),
            is_known=True,
        )
    elif event.outcome == "answered":
        end(draft, job, SUCCEEDED, result=event.answer, is_known=True)
    else:
        result = {"outcome": "approved", "decided_by": list(event.people), "reason": event.reason}
        end(draft, job, SUCCEEDED, result=result, is_known=True)


def child_ended(draft: Draft, event: ChildEnded) -> None:
    """The child is over: its output is the result."""
    job = draft.job(event.job)
    if job.status != RUNNING or job.settled:
        return
    if event.status == COMPLETED:
        end(draft, job, SUCCEEDED, result=event.output, is_known=True)
    else:
        what = f"execution {event.child} {event.status}" if event.child else "the child could not be started"
        message = f"{what}: {event.message}"
        problem = error("child", message, execution=event.child, status=event.status)
        end(draft, job, FAILED, problem, result=event.output, is_known=True)


def end(
    draft: Draft,
    job: JobState,
    status: str,
    problem: Mapping[str, Any] | None = None,
    *,
    result: Any = None,
    is_known: bool = False,
) -> None:
    """An attempt is over; whether another follows is seen to as for any job.

    `is_known`: who was asked or called has said so itself, and need not be told.
    """
    job.status, job.error, job.result, job.ended_at = status, problem, result, draft.now
    waits = draft.planned(job.task).action not in ENGINE_ACTIONS
    if waits:
        draft.changes.dropped_timers += [
            (job.task, job.unit, f"{kind}.{job.attempt}") for kind in ("timeout", "expiry")
        ]
    if waits and not is_known:
        draft.changes.closed.append(job.id)
    draft.ended.append(job.id)
