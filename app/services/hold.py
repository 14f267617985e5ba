"""Pause and resume: durable intents of an operator (semantics C1)."""

from __future__ import annotations

from sqlalchemy import update

from app.engine.events import Event, PauseAsked, ResumeAsked
from app.engine.status import CANCEL, EXECUTION_OVER
from app.errors import Conflict
from app.services import audit
from app.services.control import Control
from app.services.run import Run
from app.store.tables import Execution, table

executions = table(Execution)


def pause(control: Control, execution: str, person: str, reason: str = "", *, held: bool = False) -> str:
    """Ask that nothing new starts. Returns the status after it; asking twice changes nothing.

    `held` says that it is paused because its caller is, and goes on when that does.

    Raises UnknownExecution, and Conflict when the execution is over or is being cancelled.
    """
    return _ask(control, execution, PauseAsked(person), "execution.pause", reason, held)


def resume(control: Control, execution: str, person: str, reason: str = "") -> str:
    """Let a paused execution go on. Returns the status after it; of one that is not paused nothing changes.

    Raises as `pause`.
    """
    return _ask(control, execution, ResumeAsked(person), "execution.resume", reason)


def _ask(
    control: Control,
    execution: str,
    event: PauseAsked | ResumeAsked,
    action: str,
    reason: str,
    held: bool = False,
) -> str:
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
        connection.execute(update(executions).where(executions.c.id == execution).values(held=held))
        _take(run, event)
        audit.record(connection, event.person, action, execution, "accepted", {"reason": reason})
        status = run.head.state.status
    control.nudge([execution])
    return status


def _take(run: Run, event: Event) -> None:
    run.take(event)
    # Whoever settles hands over what is queued: the API holds no key.
    run.dispatch.clear()
