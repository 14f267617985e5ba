"""An execution that is over is tried again: what failed and what follows is reset, what succeeded is kept (R1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.engine.again import broken
from app.engine.events import ResumeAsked, RetryAsked
from app.engine.status import EXECUTION_OVER, REJECTED
from app.errors import Conflict, InvalidInput
from app.services import audit
from app.services.control import Control
from app.services.run import Run


@dataclass(frozen=True, slots=True)
class Wanted:
    """`from_`: tasks to run again beside those that failed. `mark_ok`: failed tasks, and the result each is to have.

    `reset`: loops, fan-outs and blocks that failed run again as a whole.
    """

    from_: tuple[str, ...] = ()
    mark_ok: Mapping[str, Any] = field(default_factory=dict)
    reset: bool = False
    reason: str = ""


def retry(control: Control, execution: str, person: str, wanted: Wanted) -> str:
    """Reset and go on. Returns the status after it.

    Raises UnknownExecution, InvalidInput (a name that is no task of it) and Conflict where the execution is not over,
    was rejected, or has nothing to try again.
    """
    with control.store.write() as connection:
        run = Run.lock(control, connection, execution)
        _check(run, wanted)
        detail = {"from": list(wanted.from_), "mark_ok": sorted(wanted.mark_ok), "reason": wanted.reason}
        run.take(
            RetryAsked(wanted.from_, dict(wanted.mark_ok), wanted.reset, reason=wanted.reason, person=person)
        )
        # Anew, so that nothing of what was reset is remembered: variables above all.
        run = Run.lock(control, connection, execution)
        run.take(ResumeAsked(person))
        audit.record(connection, person, "execution.retry", execution, "accepted", detail)
        status = run.head.state.status
    control.nudge([execution])
    return status


def _check(run: Run, wanted: Wanted) -> None:
    state, plan = run.head.state, run.plan
    if state.status not in EXECUTION_OVER or state.status == REJECTED:
        message = f"execution {run.execution} is {state.status}: only one that is over can be tried again"
        raise Conflict(message, hint="cancel it first, or wait for its end", code="execution-not-over")
    top = {name for name, task in plan.tasks.items() if task.parent is None and not task.is_finally}
    for name in (*wanted.from_, *wanted.mark_ok):
        if name not in top:
            hint = "a block is tried again by its own name; `finally` tasks always run again"
            message = f"{name} is no task of {plan.ref} that can be tried again"
            raise InvalidInput(message, hint=hint, code="unknown-task")
    run.load_tasks(plan.tasks)
    statuses = {name: run.slice.tasks[name].status for name in plan.tasks}
    failed = broken(plan, statuses)
    for name in wanted.mark_ok:
        if name not in failed:
            message = f"{name} is {statuses[name]}: only a task that failed can be marked as succeeded"
            raise InvalidInput(message, code="not-failed")
    if not failed and not wanted.from_:
        hint = "name the tasks to run again with `from`"
        message = f"nothing of execution {run.execution} failed"
        raise Conflict(message, hint=hint, code="nothing-to-retry")
