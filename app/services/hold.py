"""Pause and resume: durable intents of an operator (semantics C1)."""

from __future__ import annotations

from app.engine.events import Event, PauseAsked, ResumeAsked
from app.engine.status import CANCEL, EXECUTION_OVER
from app.errors import Conflict
from app.services import audit
from app.services.control import Control
from app.services.run import Run


def pause(control: Control, execution: str, person: str, reason: str = "") -> str:
    """Ask that nothing new starts. Returns the status after it; asking twice changes nothing.

    Raises UnknownExecution, and Conflict when the execution is over or is being cancelled.
    """
    return _ask(control, execution, PauseAsked(person), "execution.pause", reason)


def resume(control: Control, execution: str, person: str, reason: str = "") -> str:
    """Let a paused execution go on. Returns the status after it; of one that is not paused nothing changes.

    Raises as `pause`.
    """
    return _ask(control, execution, ResumeAsked(person), "execution.resume", reason)


def _ask(control: Control, execution: str, event: PauseAsked | ResumeAsked, action: str, reason: str) -> str:
    with control.store.write() as connection:
        run = Run.lock(control, connection, execution)
        state = run.head.state
        if state.status in EXECUTION_OVER:
            hint = "try it again with `muster execution retry`"
            raise Conflict(
                f"execution {execution} is over ({state.status})", hint=hint, code="execution-over"
            )
        if state.intent == CANCEL:
            message = f"execution {execution} is being cancelled"
            raise Conflict(message, hint="a cancel beats everything else", code="execution-cancelling")
        _take(run, event)
        audit.record(connection, event.person, action, execution, "accepted", {"reason": reason})
        status = run.head.state.status
    control.nudge([execution])
    return status


def _take(run: Run, event: Event) -> None:
    run.take(event)
    # Whoever settles hands over what is queued: the API holds no key.
    run.dispatch.clear()
