"""Cancel: a durable intent that beats every race; only `finally` tasks run after it (semantics C2)."""

from __future__ import annotations

from sqlalchemy import Connection

from app.engine.events import CancelAsked
from app.engine.status import EXECUTION_OVER
from app.errors import Conflict
from app.services import audit
from app.services.control import Control
from app.services.run import Run


def cancel(control: Control, execution: str, person: str, *, forced: bool = False, reason: str = "") -> str:
    """Ask that an execution ends. A second, forced cancel stops its finally tasks as well.

    Returns the status after it. Raises UnknownExecution, and Conflict when the execution is over. Asking twice
    changes nothing.
    """
    with control.store.write() as connection:
        status = ask(control, connection, execution, person, forced=forced, reason=reason)
    control.nudge([execution])
    return status


def ask(
    control: Control,
    connection: Connection,
    execution: str,
    person: str,
    *,
    forced: bool = False,
    reason: str = "",
) -> str:
    """The same in a transaction of the caller's, who nudges behind it."""
    run = Run.lock(control, connection, execution)
    if run.head.state.status in EXECUTION_OVER:
        raise Conflict(
            f"execution {execution} is over ({run.head.state.status})",
            hint="there is nothing left to cancel",
            code="execution-over",
        )
    detail = {"forced": forced, "reason": reason}
    audit.record(connection, person, "execution.cancel", execution, "accepted", detail)
    run.take(CancelAsked(forced, person))
    return run.head.state.status
