"""Children: workflows that tasks run, each as an execution of its own, linked to the job that started it.

The rows say what is to be done, and `align` does it, as often as it is asked: after a settle, at the end of a child,
and by the tick. Parent and child are never locked together: each step is a transaction of one of them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from sqlalchemy import bindparam, exists, or_, select

from app import marks
from app.compiler.plan import Plan
from app.engine.events import ChildEnded
from app.engine.status import (
    CANCEL,
    EXECUTION_OVER,
    EXECUTION_STATUSES,
    JOB_OVER,
    PAUSE,
    RUN,
    RUNNING,
)
from app.errors import Conflict, InvalidInput, MusterError
from app.services import again, hold
from app.services.cancel import cancel
from app.services.control import Control
from app.services.run import Run
from app.services.runnable import runnable
from app.services.submit import Parent, Submission, submit
from app.store import executions as rows
from app.store.looks import Look
from app.store.prepared import one_of
from app.store.tables import Approval, Execution, Job, Task, Timer, table

log = logging.getLogger(__name__)

executions, jobs, tasks = table(Execution), table(Job), table(Task)
approvals, timers = table(Approval), table(Timer)

AT_ONCE = 200
"""Children of one execution that are seen to at once; the next look takes the others."""

LEFT_ALONE = 1.0
"""Seconds after which a job without its child means that a nudge was lost."""


def has_children(plan: Plan) -> bool:
    """Whether any of its tasks has a child: a workflow that runs as an execution of its own."""
    return any(task.has_child for task in plan.tasks.values())


def align(control: Control, execution: str) -> None:
    """Start children, hand back those that are over, let cancel, pause and resume reach the others. Idempotent."""
    with control.store.read() as connection:
        parent: Any = connection.execute(_PARENT.where(caller.c.id == execution)).first()
        if parent is None:
            return
        plan = rows.plan(connection, parent.plan_digest)
        made: list[Any] = list(
            connection.execute(_CHILDREN.where(child.c.parent == execution, _is_unsaid).limit(AT_ONCE))
        )
        with_child = [name for name, task in plan.tasks.items() if task.has_child]
        unmade = _UNMADE.where(jobs.c.execution == execution, jobs.c.task.in_(with_child))
        wanted: list[Any] = list(connection.execute(unmade.limit(AT_ONCE)))
    for job in wanted:
        _start(control, parent, plan, job)
    for row in made:
        if row.job_status == RUNNING and row.status in EXECUTION_OVER:
            _hand_back(control, execution, row)
        elif row.status not in EXECUTION_OVER:
            _follow(control, parent, row)


caller, child = executions.alias("caller"), executions.alias("child")
_PARENT = select(
    caller.c.id,
    caller.c.plan_digest,
    caller.c.requester,
    caller.c.trace_id,
    caller.c.intent,
    caller.c.depth,
)
_CHILDREN = (
    select(
        child.c.id,
        child.c.status,
        child.c.intent,
        child.c.held,
        jobs.c.id.label("job"),
        jobs.c.status.label("job_status"),
    )
    .join(jobs, jobs.c.id == child.c.parent_job)
    .join(caller, caller.c.id == jobs.c.execution)
)
_lives = child.c.status.not_in(EXECUTION_OVER)
_is_untold = or_(
    one_of(jobs.c.status, JOB_OVER) & (child.c.intent != CANCEL),
    (caller.c.intent == PAUSE) & (child.c.intent == RUN),
    (caller.c.intent == RUN) & child.c.held,
)
_is_unsaid = or_(~_lives & (jobs.c.status == RUNNING), _lives & _is_untold)
"""One of both has not been told of what became of the other."""
_UNMADE = (
    select(jobs.c.id, jobs.c.task, jobs.c.given, tasks.c.input)
    .join(tasks, (tasks.c.execution == jobs.c.execution) & (tasks.c.name == jobs.c.task))
    .where(jobs.c.node == "", jobs.c.status == RUNNING, ~exists().where(child.c.parent_job == jobs.c.id))
)


def _start(control: Control, parent: Any, plan: Plan, row: Any) -> None:
    """The execution that a job asks for; what cannot be started fails the job."""
    given = row.given or {}
    try:
        if given.get("retry_of") and _try_again(control, given["retry_of"], row.id, parent.requester):
            return
        if parent.depth >= control.settings.child_depth:
            message = (
                f"children of children, {parent.depth + 1} deep, {control.settings.child_depth} is allowed"
            )
            raise InvalidInput(
                message, hint="look for a workflow that calls itself", code="children-too-deep"
            )
        found = runnable(control, plan.tasks[row.task].action)
        parameters = given["input"] if row.given is not None else row.input or {}
        given_on = _given_on(found.plan, parameters)
        asked = Submission(
            found.plan,
            found.source,
            parent.requester,
            {name: value for name, value in parameters.items() if name not in given_on},
            found.revision,
            parent=Parent(parent.id, row.id, parent.depth + 1, parent.trace_id),
            given_on=given_on,
        )
        submit(control, asked)
    except MusterError as error:
        log.info("a child could not be started: %s", error.code)
        _end(control, parent.id, ChildEnded(row.id, "", "failed", message=error.message))


def _given_on(plan: Plan, parameters: Mapping[str, Any]) -> dict[str, str]:
    """The secrets that are given on, as references by parameter. Raises InvalidInput for one that may not be."""
    found: dict[str, str] = {}
    for name, value in parameters.items():
        reference = marks.reference_of(value)
        if reference is not None and name in plan.secret_parameters:
            found[name] = reference
        elif reference is not None or any(marks.references(value)):
            message = f"{plan.ref} may not have a secret in `{name}`: that parameter has not the type secret"
            raise InvalidInput(message, hint="give it `type: secret` there", code="secret")
    return found


def _try_again(control: Control, old: str, new: str, person: str) -> bool:
    """R1: the child of an earlier attempt goes on under the new one. False where it has nothing to try again."""
    with control.store.read() as connection:
        id_ = connection.execute(select(executions.c.id).where(executions.c.parent_job == old)).scalar()
    if id_ is None:
        return False
    try:
        wanted = again.Wanted(reason="the execution that started it is tried again")
        again.retry(control, id_, person, wanted, parent_job=new)
    except Conflict:
        return False
    return True


def _hand_back(control: Control, execution: str, row: Any) -> None:
    """Say how a child ended, if it is still over now that the job that called it cannot change."""
    with control.store.write() as connection:
        run = Run.lock(control, connection, execution)
        rows.load_job(connection, row.job)
        query = select(child.c.id, child.c.status, child.c.output, child.c.error_message)
        mine = (child.c.id == row.id, child.c.parent_job == row.job, ~_lives)
        ended = connection.execute(query.where(*mine)).first()
        if ended is None or run.head.state.status in EXECUTION_OVER:
            return
        run.take(ChildEnded(row.job, ended.id, ended.status, ended.output or {}, ended.error_message or ""))
    control.nudge([execution])


def _end(control: Control, execution: str, event: ChildEnded) -> None:
    with control.store.write() as connection:
        run = Run.lock(control, connection, execution)
        if run.head.state.status in EXECUTION_OVER:
            return
        run.take(event)
    control.nudge([execution])


def _follow(control: Control, parent: Any, row: Any) -> None:
    """What was asked of the parent is asked of the child."""
    who = parent.requester
    try:
        if row.job_status in JOB_OVER:
            if row.intent != CANCEL:
                cancel(control, row.id, who, reason="the execution that started it no longer waits")
        elif parent.intent == PAUSE and row.intent == RUN:
            hold.pause(control, row.id, who, "the execution that started it is paused", held=True)
        elif parent.intent == RUN and row.held:
            hold.resume(control, row.id, who, "the execution that started it goes on")
    except Conflict:
        # It has come to its end in the meantime.
        log.debug("a child was over before it could be told")


_asleep = exists().where(
    timers.c.execution == jobs.c.execution,
    timers.c.task == jobs.c.task,
    timers.c.unit == jobs.c.unit,
    timers.c.kind.startswith("sleep."),
)
_NOT_STARTED = Look(
    select(jobs.c.execution)
    .join(tasks, (tasks.c.execution == jobs.c.execution) & (tasks.c.name == jobs.c.task))
    .where(jobs.c.node == "", jobs.c.status == RUNNING, jobs.c.started_at < bindparam("before"), ~_asleep)
    .where(or_(tasks.c.wait_reason == "child", jobs.c.given.is_not(None)))
    .where(~exists().where(child.c.parent_job == jobs.c.id), ~exists().where(approvals.c.job == jobs.c.id))
    .distinct(),
    AT_ONCE,
)
# Both begin with what is open, which is little, and never with all that was kept.
_NOT_HANDED_BACK = Look(
    select(jobs.c.execution)
    .where(jobs.c.status == RUNNING)
    .where(exists().where(child.c.parent_job == jobs.c.id, one_of(child.c.status, EXECUTION_OVER)))
    .distinct(),
    AT_ONCE,
)
_NOT_TOLD = Look(
    select(jobs.c.execution)
    .select_from(child)
    .join(jobs, jobs.c.id == child.c.parent_job)
    .join(caller, caller.c.id == jobs.c.execution)
    .where(one_of(child.c.status, set(EXECUTION_STATUSES) - EXECUTION_OVER), _is_untold)
    .distinct(),
    AT_ONCE,
)


def left_alone(control: Control) -> list[str]:
    """Executions with a child that nobody has seen to: for the tick."""
    found = _NOT_STARTED.rows(control.store, before=control.clock() - LEFT_ALONE)
    found += _NOT_HANDED_BACK.rows(control.store) + _NOT_TOLD.rows(control.store)
    return sorted({row.execution for row in found})
