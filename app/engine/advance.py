"""The engine: (slice, event, now) → changes and commands. Pure; the one place where an execution moves.

A step first takes in the event, then works until nothing more can run: tasks whose edges were touched are looked at,
runnable ones start, tasks that need no job end at once and touch further edges. A slice that turns out too small is
answered with a `Need`, and nothing was decided.
"""

from __future__ import annotations

from typing import Any

from app.compiler.plan import PlanTask
from app.engine import fanout, gate, gone, loop, output, own
from app.engine.again import retry
from app.engine.context import error, first_scopes, kind_of
from app.engine.draft import Draft, NeedMore
from app.engine.events import (
    CancelAsked,
    ChildEnded,
    Decided,
    Event,
    JobEnded,
    JobResolved,
    JobUnknown,
    NodeAway,
    NodeBack,
    PauseAsked,
    ResumeAsked,
    RetryAsked,
    Submitted,
    TimerDue,
)
from app.engine.pause import holds_something, in_flight, let_finally_go_on, pause_asked, resume_asked
from app.engine.replan import first_values
from app.engine.retry import wait_before_retry
from app.engine.settle import admit, consider, halt, not_reached, settle
from app.engine.start import begin, runnable
from app.engine.state import MAIN, JobState, Need, Slice, Step
from app.engine.status import (
    CANCEL,
    CANCELLED,
    CANCELLING,
    COMPLETED,
    EXECUTION_OVER,
    FAILED,
    GATE_PENDING,
    JOB_OVER,
    PAUSE,
    PAUSED,
    PAUSING,
    PENDING,
    REJECTED,
    RUNNING,
    SUCCEEDED,
    TASK_LIVE,
    TASK_OVER,
    TIMED_OUT,
    UNKNOWN,
    WAITING,
)
from app.engine.stop import stop_task
from app.language.expressions import TemplateError


def advance(given: Slice, event: Event, now: float) -> Step | Need:
    """One step. `now` is in Unix seconds; ids come from the execution. The slice given is never changed."""
    draft = Draft(given, now)
    try:
        if given.execution.status not in EXECUTION_OVER:
            _TAKE[type(event)](draft, event)
            _work(draft)
            _status(draft)
        elif isinstance(event, RetryAsked):
            retry(draft, event)
            _status(draft, reopened=True)
        elif isinstance(event, JobEnded):
            draft.job(event.job).settled = True
    except NeedMore as more:
        return more.need
    return draft.step()


def _work(draft: Draft) -> None:
    """Until nothing more can run; then the finally tasks, one after another; then the end."""
    if draft.execution.gate == GATE_PENDING:
        return
    while True:
        while draft.ended:
            _ended(draft, draft.job(draft.ended.popleft()))
        while draft.work:
            name = draft.work.popleft()
            verdict = consider(draft, name)
            if verdict == "runnable" and (draft.halted or not draft.held):
                runnable(draft, name)
            elif verdict == "not_reached":
                not_reached(draft, name)
        _stop(draft)
        if draft.work or draft.ended:
            continue
        if draft.execution.live or (draft.held and holds_something(draft)):
            return
        if not _next_finally(draft):
            _finish(draft)
            return


def _stop(draft: Draft) -> None:
    """Stop what blocks and fan-outs asked for; a halt in this step stops every task that is live.

    Tasks of `finally` go on through a cancel, unless it was forced.
    """
    while draft.to_stop:
        stop_task(draft, draft.to_stop.pop())
    if not draft.halted or draft.execution.halt == draft.stopped_for:
        return
    draft.stopped_for = draft.execution.halt
    for name in draft.live_tasks():
        if draft.execution.halt == "forced" or not draft.planned(name).is_finally:
            stop_task(draft, name)


def _next_finally(draft: Draft) -> bool:
    run = draft.execution
    if run.finally_at == MAIN and draft.plan.finally_:
        draft.changes.sweep_pending = "main"
    final = draft.plan.finally_
    run.finally_at += 1
    # A retry may have kept some of them.
    while run.finally_at < len(final) and draft.look(final[run.finally_at]).status != PENDING:
        run.finally_at += 1
    if run.finally_at >= len(final) or run.halt == "forced":
        return False
    runnable(draft, final[run.finally_at])
    return True


def _finish(draft: Draft) -> None:
    """E6."""
    run = draft.execution
    draft.changes.sweep_pending = "all"
    if run.gate in gate.REFUSED:
        run.status = REJECTED
    elif run.intent == CANCEL:
        run.status = CANCELLED
    elif run.unhandled or run.ended_badly:
        run.status = FAILED
    else:
        run.status = COMPLETED
        run.degraded = run.handled > 0
    output.finish(draft)
    run.ended_at = draft.now
    draft.commands.finished = True
    draft.log("execution", status=run.status, degraded=run.degraded)


def _status(draft: Draft, *, reopened: bool = False) -> None:
    run = draft.execution
    if reopened or run.status not in EXECUTION_OVER:
        if run.intent == CANCEL:
            run.status = CANCELLING
        elif run.intent == PAUSE:
            run.status = PAUSING if in_flight(draft) else PAUSED
        else:
            waits = run.gate == GATE_PENDING or (run.live and run.waiting == run.live)
            run.status = WAITING if waits else RUNNING


def _submitted(draft: Draft, event: Event) -> None:
    run = draft.execution
    run.started_at = None if draft.plan.gate else draft.now
    try:
        for name, value in first_values(
            draft.plan, first_scopes(draft.plan, run, draft.kv(draft.plan.vars_kv))
        ):
            draft.publish(name, value, "", admit(draft, name, value))
        if draft.plan.gate:
            gate.ask(draft)
            return
    except TemplateError as problem:
        run.ended_badly, run.error_message = kind_of(problem), problem.message
        run.finally_at = len(draft.plan.finally_)
        return
    entries = frozenset(draft.plan.entries)
    for task in draft.plan.tasks.values():
        if task.name in entries:
            runnable(draft, task.name)
        elif task.is_entry:
            not_reached(draft, task.name)


def _job_ended(draft: Draft, event: Event) -> None:
    assert isinstance(event, JobEnded)
    job = draft.job(event.job)
    gone.note(draft, job, event)
    _ended(draft, job)
    gone.begin_held_back(draft, job)


def _ended(draft: Draft, job: JobState) -> None:
    if not job.settled and job.status in JOB_OVER:
        job.settled = True
        # A newer version of the workflow may no longer have its task.
        if job.task in draft.plan.tasks:
            _unit(draft, job)


def _unit(draft: Draft, job: JobState) -> None:
    """An attempt ended: try again, or the unit is over."""
    state, task = draft.task(job.task), draft.planned(job.task)
    if state.status in TASK_OVER:
        return
    if not _is_being_stopped(draft, job.task):
        wait = wait_before_retry(draft, task, job)
        if wait is not None:
            _retry(draft, task, job, wait)
            return
    if task.kind == "fanout":
        fanout.unit_over(draft, task, job)
        return
    if task.kind == "loop":
        loop.unit_over(draft, task, job)
        return
    _single_over(draft, task, job)


def _single_over(draft: Draft, task: PlanTask, job: JobState) -> None:
    fanout.count(draft.task(task.name), job.status)
    gone.count_on(draft, task, job)
    if job.status == CANCELLED and not _stop_was_asked(draft, task):
        problem = job.error or error("cancelled", "the job was cancelled on its node")
        settle(draft, task.name, FAILED, result=job.result, error=problem)
    else:
        settle(draft, task.name, job.status, result=job.result, error=job.error)


def _stop_was_asked(draft: Draft, task: PlanTask) -> bool:
    return draft.halted or (task.parent is not None and bool(draft.task(task.parent).stopping))


def _is_being_stopped(draft: Draft, name: str) -> bool:
    """Whether no attempt may follow. A cancel does not stop tasks of `finally`, unless it is forced."""
    task = draft.planned(name)
    goes_on = task.is_finally and draft.execution.halt != "forced"
    return bool(draft.task(name).stopping) or (_stop_was_asked(draft, task) and not goes_on)


def _retry(draft: Draft, task: PlanTask, job: JobState, wait: float) -> None:
    state = draft.task(task.name)
    state.retry_count += 1
    draft.log("retry", task=task.name, unit=job.unit, attempt=job.attempt + 1, wait=wait)
    if wait <= 0 and not draft.held:
        _next_attempt(draft, job)
        return
    if task.kind in ("job", "own"):
        draft.set_status(task.name, WAITING, "timer")
    draft.arm(task.name, job.unit, f"retry.{job.attempt}", draft.now + wait)


def _next_attempt(draft: Draft, job: JobState) -> None:
    task = draft.planned(job.task)
    if task.kind in ("job", "own"):
        draft.set_status(job.task, RUNNING)
    follower = draft.bear(job.task, job.unit, job.attempt + 1, job.node, job.queue_timeout, job.given)
    if task.runs_in_engine:
        own.run(draft, task, follower)
    else:
        draft.dispatch(follower)


def _timer_due(draft: Draft, event: Event) -> None:
    assert isinstance(event, TimerDue)
    if not event.task:
        gate.timer_due(draft, event)
        return
    if draft.held and event.is_a_start:
        return
    draft.changes.dropped_timers.append((event.task, event.unit, event.timer))
    state, task = draft.task(event.task), draft.planned(event.task)
    if state.status not in TASK_LIVE:
        return
    if event.timer == "delay":
        begin(draft, event.task)
    elif task.kind in ("loop", "own") and not event.timer.startswith("retry."):
        own.timer_due(draft, task, event.unit, event.timer)
    elif event.timer == "sleep":
        settle(draft, event.task, SUCCEEDED, result={})
    elif event.timer.startswith("retry."):
        attempt = int(event.timer.removeprefix("retry."))
        _next_attempt(draft, draft.attempt(event.task, event.unit, attempt))
    elif task.kind == "block":
        state.stopping = "timed_out"
        draft.to_stop.extend(task.children)
    else:
        settle(draft, event.task, TIMED_OUT, error=error("timeout", f"{event.task} took too long"))


def _cancel_asked(draft: Draft, event: Event) -> None:
    assert isinstance(event, CancelAsked)
    gate.close(draft)
    was_held = draft.held
    draft.execution.intent = CANCEL
    halt(draft, "forced" if event.forced else draft.execution.halt or "cancel")
    if draft.execution.halt == "fail_fast":
        halt(draft, "cancel")
    if was_held and not event.forced:
        let_finally_go_on(draft)


def _job_unknown(draft: Draft, event: Event) -> None:
    """E8: wait for the node's return or a person, unless `on_unknown: fail` (the default in a fan-out)."""
    assert isinstance(event, JobUnknown)
    job = draft.job(event.job)
    if job.settled or job.status in JOB_OVER:
        return
    job.status = UNKNOWN
    task = draft.planned(job.task)
    whose = "the call was cut short, and nobody knows" if task.is_call else f"node {job.node} does not say"
    job.error = error("unknown", f"{whose} what became of this job")
    if (task.on_unknown or ("fail" if task.kind == "fanout" else "wait")) == "wait":
        draft.set_status(job.task, WAITING, "unknown")
        return
    job.settled = True
    if task.kind == "fanout":
        fanout.unit_over(draft, task, job)
    elif task.kind == "loop":
        loop.unit_over(draft, task, job)
    else:
        gone.count_on(draft, task, job)
        settle(draft, task.name, FAILED, error=job.error)


def _job_resolved(draft: Draft, event: Event) -> None:
    """A person decided what an unknown job came to."""
    assert isinstance(event, JobResolved)
    job = draft.job(event.job)
    if job.status != UNKNOWN or job.settled:
        return
    job.settled = True
    job.ended_at = draft.now
    if draft.planned(job.task).kind in ("job", "loop"):
        draft.set_status(job.task, RUNNING)
    if event.outcome == "again":
        if _is_being_stopped(draft, job.task):
            job.status, job.error = CANCELLED, error("cancelled", "nothing starts again: it is being stopped")
            _unit(draft, job)
            return
        job.status = FAILED
        job.error = error("lost", f"started again by {event.person}: {event.reason}")
        _next_attempt(draft, job)
        return
    job.status = SUCCEEDED if event.outcome == "succeeded" else FAILED
    job.result = {"resolved_by": event.person, "reason": event.reason}
    job.error = (
        None
        if job.status == SUCCEEDED
        else error("resolved", f"marked failed by {event.person}: {event.reason}")
    )
    _unit(draft, job)


def _decided(draft: Draft, event: Event) -> None:
    assert isinstance(event, Decided)
    if gate.is_about(draft.execution, event.job):
        gate.decided(draft, event)
    else:
        own.decided(draft, event)


def _child_ended(draft: Draft, event: Event) -> None:
    assert isinstance(event, ChildEnded)
    own.child_ended(draft, event)


def _node_away(draft: Draft, event: Event) -> None:
    assert isinstance(event, NodeAway)
    if draft.task(event.task).status == RUNNING:
        draft.set_status(event.task, WAITING, "node")


def _node_back(draft: Draft, event: Event) -> None:
    assert isinstance(event, NodeBack)
    state = draft.task(event.task)
    if state.status == WAITING and state.wait_reason in ("node", "unknown"):
        draft.set_status(event.task, RUNNING)


_TAKE: dict[type, Any] = {
    Submitted: _submitted,
    JobEnded: _job_ended,
    JobUnknown: _job_unknown,
    JobResolved: _job_resolved,
    TimerDue: _timer_due,
    CancelAsked: _cancel_asked,
    PauseAsked: pause_asked,
    ResumeAsked: resume_asked,
    Decided: _decided,
    ChildEnded: _child_ended,
    NodeAway: _node_away,
    NodeBack: _node_back,
}
