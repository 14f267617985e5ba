"""The gate: people are asked before anything of an execution runs, at its submission and at each retry (semantics E6).

The question belongs to no task and has no job's row: its id says how often the execution was asked for.
"""

from __future__ import annotations

from typing import Final

from app.engine.draft import Draft
from app.engine.events import Decided, TimerDue
from app.engine.pause import go_on
from app.engine.question import APPROVE, question
from app.engine.settle import end_badly, halt
from app.engine.state import Ask, ExecutionState
from app.engine.status import GATE_APPROVED, GATE_CLOSED, GATE_EXPIRED, GATE_PENDING, GATE_REJECTED, PAUSE

_TIMER: Final = "expiry"
REFUSED: Final = frozenset({GATE_REJECTED, GATE_EXPIRED})


def question_id(execution: str, number: int) -> str:
    """What stands for a job's id in the question: for reading only, never parsed."""
    return f"{execution}.gate.{number}"


def is_about(run: ExecutionState, job: str) -> bool:
    """Whether a question is, or was, that of the execution itself."""
    return any(job == question_id(run.id, number) for number in range(run.gates, 0, -1))


def ask(draft: Draft) -> None:
    """Ask people for the whole execution. Raises TemplateError where the plan's gate makes no sense."""
    run = draft.execution
    asked = question(draft.plan.gate or {})
    run.gates += 1
    run.gate = GATE_PENDING
    expires_at = None
    if asked.wait is not None:
        expires_at = draft.now + asked.wait
        draft.arm("", 0, f"{_TIMER}.{run.gates}", expires_at)
    job = question_id(run.id, run.gates)
    more = (asked.prompt, asked.approvers, asked.quorum, expires_at)
    draft.changes.asks.append(Ask(job, "", 0, "approval", *more))
    draft.log("gate", status=GATE_PENDING)


def decided(draft: Draft, event: Decided) -> None:
    """The people's word. One about an earlier question, or one that is closed, changes nothing."""
    run = draft.execution
    if run.gate != GATE_PENDING or event.job != question_id(run.id, run.gates):
        return
    _leave(draft, GATE_APPROVED if event.outcome == "approved" else GATE_REJECTED)
    if run.gate == GATE_APPROVED:
        _open(draft)
    else:
        reason = f": {event.reason}" if event.reason else ""
        _refuse(draft, f"rejected by {', '.join(event.people)}{reason}")


def timer_due(draft: Draft, event: TimerDue) -> None:
    """Nobody decided in time."""
    run = draft.execution
    if run.gate != GATE_PENDING or event.timer != f"{_TIMER}.{run.gates}":
        return
    draft.changes.closed.append(question_id(run.id, run.gates))
    if question(draft.plan.gate or {}).on_expire == APPROVE:
        _leave(draft, GATE_APPROVED)
        _open(draft)
    else:
        _leave(draft, GATE_EXPIRED)
        _refuse(draft, "nobody decided in time")


def close(draft: Draft) -> None:
    """Nobody need decide any more: the execution is cancelled, and nothing of it runs, not even `finally`."""
    run = draft.execution
    if run.gate == GATE_PENDING:
        draft.changes.closed.append(question_id(run.id, run.gates))
        _leave(draft, GATE_CLOSED)
        run.finally_at = len(draft.plan.finally_)


def _leave(draft: Draft, gate: str) -> None:
    run = draft.execution
    run.gate = gate
    draft.changes.dropped_timers.append(("", 0, f"{_TIMER}.{run.gates}"))
    draft.log("gate", status=gate)


def _open(draft: Draft) -> None:
    """What may run starts; in a pause whoever resumes starts it."""
    run = draft.execution
    if run.started_at is None:
        run.started_at = draft.now
    if run.intent != PAUSE:
        go_on(draft)


def _refuse(draft: Draft, message: str) -> None:
    """Nothing starts. What a retry had made ready is taken back; it is tried again by the next one."""
    run = draft.execution
    end_badly(draft, run.gate, message)
    run.finally_at = len(draft.plan.finally_)
    halt(draft, run.gate)
