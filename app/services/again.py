"""An execution that is over is tried again: what failed and what follows is reset, what succeeded is kept (R1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from sqlalchemy import select, update

from app.compiler.plan import PLAN_VERSION, Plan
from app.engine import replan
from app.engine.context import first_scopes
from app.engine.events import ResumeAsked, RetryAsked
from app.engine.reach import broken, broken_at_the_end
from app.engine.status import EXECUTION_OVER, GATE_CLOSED, GATE_EXPIRED, GATE_REJECTED, RUNNING
from app.errors import Conflict, InvalidInput
from app.language.expressions import TemplateError
from app.language.parameters import bind
from app.services import audit, features, kv, pack_config, scope, workspaces
from app.services.control import Control
from app.services.guard import STORED
from app.services.run import Run
from app.services.runnable import Runnable, as_it_is
from app.services.submit import declared, refuse_local
from app.store import executions as rows
from app.store import pins
from app.store.tables import Execution, table

executions = table(Execution)

LATEST: Final = "latest"

MOST_TOLD = 20
"""Tasks that are named as reasons against a newer version."""

NOT_OPENED: Final = (GATE_REJECTED, GATE_EXPIRED, GATE_CLOSED)
"""Where the gate of an execution was that people, or a cancel, ended before it began: a retry asks anew."""

_ENDS_AGAIN = ("output", "output_too_large")
"""What fails an execution without a task: a newer version may mend it though there is no task to run again."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """`from_`: tasks to run again beside those that failed. `mark_ok`: failed tasks, and the result each is to have.

    `units`: fan-outs that put up with failures, whose failed nodes are to run again. `reset`: loops, fan-outs and
    blocks that failed run again as a whole. `version`: the newest one of its workflow
    takes the place of the one that is pinned; None leaves that.
    """

    from_: tuple[str, ...] = ()
    mark_ok: Mapping[str, Any] = field(default_factory=dict)
    reset: bool = False
    reason: str = ""
    version: Literal["latest"] | None = None
    units: tuple[str, ...] = ()


def retry(
    control: Control, execution: str, person: str, wanted: Wanted, *, parent_job: str | None = None
) -> str:
    """Reset and go on. Returns the status after it. `parent_job` is the job that it answers to from now on.

    Raises UnknownExecution, InvalidInput (a name that is no task of it), NotAllowed (another's, and the person is held
    to nodes) and Conflict where the execution is not over, has nothing to try again, or is the child of a job that does
    not wait for it any more; FeatureOff where people would be asked anew and approvals are switched off; with a version
    also NotFound, NotAllowed (another's, and it would be a newer one), and Conflict where what is kept, or the
    parameters, do not go with it.
    """
    with control.store.write() as connection:
        run = Run.lock(control, connection, execution)
        if parent_job is None:
            scope.check_again(control, connection, person, run.head.requester)
        state = run.head.state
        if state.status not in EXECUTION_OVER:
            message = f"execution {run.execution} is {state.status}: only one that is over can be tried again"
            raise Conflict(message, hint="cancel it first, or wait for its end", code="execution-not-over")
        if run.plan.gate:
            features.need(control.settings, features.APPROVAL)
        before = run.head.plan_digest
        newest = _newest(run, person) if wanted.version == LATEST else None
        event = RetryAsked(
            wanted.from_,
            dict(wanted.mark_ok),
            wanted.reset,
            reason=wanted.reason,
            person=person,
            units=wanted.units,
        )
        if newest is not None:
            config = pack_config.for_execution(connection, newest.plan)
            event = replace(event, plan=newest.plan.digest, config=config)
        _check(run, event, run.plan if newest is None else newest.plan)
        _check_parent(run, parent_job)
        if newest is not None:
            _check_version(run, event, newest.plan)
            digest = rows.store_plan(connection, newest.plan, newest.source, PLAN_VERSION, run.now)
            run.turn_to(newest.plan, digest)
        if parent_job is None:
            _add_asker(run, person)
        run.take(event)
        workspaces.unpin(run)
        if newest is not None:
            pins.turn_to(connection, run.head, before, newest.plan, newest.revision)
        # Anew, so that nothing of what was reset is remembered: variables above all.
        run = Run.lock(control, connection, execution)
        run.take(ResumeAsked(person))
        detail: dict[str, Any] = {
            "from": list(wanted.from_),
            "mark_ok": sorted(wanted.mark_ok),
            "reason": wanted.reason,
        }
        if newest is not None:
            detail |= {"version": newest.plan.version, "revision": newest.revision}
        audit.record(connection, person, "execution.retry", execution, "accepted", detail)
        status = run.head.state.status
    control.nudge([execution])
    return status


def _add_asker(run: Run, person: str) -> None:
    """Have a person as the last who had a hand in it, for what it asks from now on."""
    mine = executions.c.id == run.execution
    known = run.connection.execute(select(executions.c.askers).where(mine)).scalar_one()
    askers = [*(one for one in known if one != person), person]
    run.connection.execute(update(executions).where(mine).values(askers=askers))


def _newest(run: Run, person: str) -> Runnable | None:
    """The newest version of the workflow, None where that is the one that is pinned. Raises NotAllowed."""
    if run.head.origin != STORED:
        message = f"the workflow of execution {run.execution} came with it: there is no newer version"
        raise Conflict(message, hint="try it again without a version", code="not-stored")
    found = as_it_is(run.control, run.connection, run.plan.ref)
    if found.plan.digest == run.head.plan_digest:
        return None
    scope.check_newer(run.connection, person, run.head.requester)
    return found


def _check_parent(run: Run, new: str | None) -> None:
    """What nobody waits for would be cancelled at once. The job that waits cannot change until this is committed."""
    if run.head.parent is None:
        return
    mine = executions.c.id == run.execution
    job = new or run.connection.execute(select(executions.c.parent_job).where(mine)).scalar()
    waits = None if job is None else rows.load_job(run.connection, job)
    if waits is None or waits.status != RUNNING:
        raise Conflict(
            f"execution {run.execution} is a child of {run.head.parent}, which does not wait for it any more",
            hint=f"try that one again: `muster execution retry {run.head.parent}`",
            code="parent-does-not-wait",
        )
    if new is not None:
        run.connection.execute(update(executions).where(mine).values(parent_job=new))


def _check(run: Run, event: RetryAsked, plan: Plan) -> None:
    """That there is something to try again, by the plan that is to hold."""
    top = set(replan.top(plan))
    for name in (*event.from_, *event.mark_ok):
        if name not in top:
            hint = "a block is tried again by its own name; `finally` tasks run again by themselves"
            message = f"{name} is no task of {plan.ref} that can be tried again"
            raise InvalidInput(message, hint=hint, code="unknown-task")
    run.load_tasks(run.plan.tasks)
    statuses = {name: run.slice.tasks[name].status for name in run.plan.tasks}
    failed = broken(run.plan, statuses)
    for name in event.mark_ok:
        if name not in failed:
            message = (
                f"{name} is {statuses.get(name, 'new')}: only a task that failed can be marked as succeeded"
            )
            raise InvalidInput(message, code="not-failed")
    ends_again = bool(event.plan) and run.head.state.ended_badly in _ENDS_AGAIN
    last = broken_at_the_end(run.plan, statuses, run.head.state.ended_badly)
    refused = run.head.state.gate in NOT_OPENED
    asked = failed or last or event.from_ or event.units or ends_again or refused
    if not (asked or top - run.plan.tasks.keys()):
        hint = "name the tasks to run again with `from`"
        message = f"nothing of execution {run.execution} failed"
        raise Conflict(message, hint=hint, code="nothing-to-retry")


def _check_version(run: Run, event: RetryAsked, plan: Plan) -> None:
    """That what is kept, and the parameters, go with the newer version."""
    found = list(replan.conflicts(run.plan, plan, run.slice.tasks, event))
    if found:
        told = "; ".join(f"{one.task}: {one.why}" for one in found[:MOST_TOLD])
        more = f" (and {len(found) - MOST_TOLD} more)" if found[MOST_TOLD:] else ""
        hint = "name them with `from` to run them again, or try again without `version`"
        message = f"the newest version of {plan.ref} does not go with what was kept: {told}{more}"
        raise Conflict(message, hint=hint, code="kept-tasks-changed")
    refuse_local(run.control, plan)
    given = run.head.state.parameters
    wanted = {one["name"] for one in plan.parameters}
    try:
        bound = bind(declared(plan), {name: value for name, value in given.items() if name in wanted})
        changed = [name for name, value in bound.items() if name in given and value != given[name]]
        if changed:
            raise InvalidInput(f"{', '.join(changed)} would have another value")
        secret = [name for name in plan.secret_parameters - given.keys() if bound.get(name) is not None]
        if secret:
            raise InvalidInput(f"{', '.join(secret)}, a secret, would be a default that stands in the text")
        state = run.head.state
        turned = replace(
            state, parameters=replan.with_defaults(plan, given), config={**event.config, **state.config}
        )
        read = kv.values(run.connection, plan.vars_kv, run.now)
        list(replan.first_values(plan, first_scopes(plan, turned, read)))
    except (InvalidInput, TemplateError) as problem:
        message = f"the newest version of {plan.ref} does not go with the parameters: {problem.message}"
        raise Conflict(message, hint="execute it anew", code="parameters-changed") from None
