"""Workflows that workflows call: each call is an execution of its own, linked to the job that made it.

The rows say what is to be done, and `align` does it, as often as it is asked: after a settle, at the end of a child,
and by the tick. Parent and child are never locked together: each step is a transaction of one of them.
"""

from __future__ import annotations

import logging
from typing import Any

from sqlalchemy import exists, or_, select, update

from app.compiler.plan import ASK_ACTIONS, ENGINE_ACTIONS, Plan, PlanTask
from app.engine.events import ChildEnded
from app.engine.status import (
    CANCEL,
    EXECUTION_OVER,
    JOB_OVER,
    PAUSE,
    RUN,
    RUNNING,
)
from app.errors import Conflict, InvalidInput, MusterError
from app.services import again, hold
from app.services.cancel import cancel
from app.services.control import Control
from app.services.library import runnable
from app.services.run import Run
from app.services.submit import Caller, Submission, submit
from app.store import executions as rows
from app.store.tables import Approval, Execution, Job, Task, table

log = logging.getLogger(__name__)

executions, jobs, tasks, approvals = table(Execution), table(Job), table(Task), table(Approval)

AT_ONCE = 200
"""Calls of one execution that are seen to at once; the next look takes the others."""

LEFT_ALONE = 1.0
"""Seconds after which a call without an execution means that a nudge was lost."""

_NOT_CALLED = ENGINE_ACTIONS | ASK_ACTIONS


def has_calls(plan: Plan) -> bool:
    """Whether any of its tasks calls a workflow."""
    return any(_calls_a_workflow(task) for task in plan.tasks.values())


def _calls_a_workflow(task: PlanTask) -> bool:
    return task.runs_in_engine and task.kind != "engine" and task.action not in _NOT_CALLED


def align(control: Control, execution: str) -> None:
    """Start what is called, hand back what is over, and let cancel, pause and resume reach the children. Idempotent."""
    with control.store.read() as connection:
        parent: Any = connection.execute(_PARENT.where(executions.c.id == execution)).first()
        if parent is None:
            return
        plan = rows.plan(connection, parent.plan_digest)
        made: list[Any] = list(
            connection.execute(_CHILDREN.where(child.c.parent == execution).limit(AT_ONCE))
        )
        wanted: list[Any] = [
            row
            for row in connection.execute(_UNMADE.where(jobs.c.execution == execution).limit(AT_ONCE))
            if _calls_a_workflow(plan.tasks[row.task])
        ]
    for job in wanted:
        _call(control, parent, plan, job)
    for row in made:
        if row.job_status == RUNNING and row.status in EXECUTION_OVER:
            _hand_back(control, execution, row)
        elif row.status not in EXECUTION_OVER:
            _follow(control, parent, row)


child = executions.alias("child")
_PARENT = select(
    executions.c.id,
    executions.c.plan_digest,
    executions.c.requester,
    executions.c.trace_id,
    executions.c.intent,
    executions.c.depth,
)
_CHILDREN = select(
    child.c.id,
    child.c.status,
    child.c.intent,
    child.c.held,
    child.c.output,
    child.c.error_message,
    jobs.c.id.label("job"),
    jobs.c.status.label("job_status"),
).join(jobs, jobs.c.id == child.c.parent_job)
_UNMADE = (
    select(jobs.c.id, jobs.c.task, jobs.c.given, tasks.c.input)
    .join(tasks, (tasks.c.execution == jobs.c.execution) & (tasks.c.name == jobs.c.task))
    .where(jobs.c.node == "", jobs.c.status == RUNNING, ~exists().where(child.c.parent_job == jobs.c.id))
)


def _call(control: Control, parent: Any, plan: Plan, row: Any) -> None:
    """The execution that a job asks for; what cannot be called fails the job."""
    given = row.given or {}
    try:
        if given.get("retry_of") and _try_again(control, given["retry_of"], row.id, parent.requester):
            return
        if parent.depth >= control.settings.call_depth:
            message = (
                f"workflows call each other {parent.depth + 1} deep, {control.settings.call_depth} is allowed"
            )
            raise InvalidInput(message, hint="look for a workflow that calls itself", code="too-deep")
        found = runnable(control, plan.tasks[row.task].action)
        parameters = given["input"] if row.given is not None else row.input or {}
        caller = Caller(parent.id, row.id, parent.depth + 1, parent.trace_id)
        submit(
            control,
            Submission(found.plan, found.source, parent.requester, parameters, found.revision, caller=caller),
        )
    except MusterError as error:
        log.info("a call could not be made: %s", error.code)
        _end(control, parent.id, ChildEnded(row.id, "", "failed", message=error.message))


def _try_again(control: Control, old: str, new: str, person: str) -> bool:
    """R1: the child of an earlier attempt goes on under the new one. False where it has nothing to try again."""
    with control.store.write() as connection:
        linked = update(executions).where(executions.c.parent_job == old).values(parent_job=new)
        if not connection.execute(linked).rowcount:
            return False
        id_ = connection.execute(select(executions.c.id).where(executions.c.parent_job == new)).scalar_one()
    try:
        again.retry(control, id_, person, again.Wanted(reason="the execution that called it is tried again"))
    except Conflict:
        with control.store.write() as connection:
            connection.execute(update(executions).where(executions.c.id == id_).values(parent_job=old))
        return False
    return True


def _hand_back(control: Control, execution: str, row: Any) -> None:
    message = row.error_message or ""
    _end(control, execution, ChildEnded(row.job, row.id, row.status, row.output or {}, message))


def _end(control: Control, execution: str, event: ChildEnded) -> None:
    with control.store.write() as connection:
        run = Run.lock(control, connection, execution)
        if run.head.state.status in EXECUTION_OVER:
            return
        run.take(event)
    control.nudge([execution])


def _follow(control: Control, parent: Any, row: Any) -> None:
    """What was asked of the caller is asked of the child."""
    who = parent.requester
    try:
        if row.job_status in JOB_OVER:
            if row.intent != CANCEL:
                cancel(control, row.id, who, reason="the execution that called it no longer waits")
        elif parent.intent == PAUSE and row.intent == RUN:
            hold.pause(control, row.id, who, "the execution that called it is paused", held=True)
        elif parent.intent == RUN and row.held:
            hold.resume(control, row.id, who, "the execution that called it goes on")
    except Conflict:
        # It has come to its end in the meantime.
        log.debug("a child was over before it could be told")


def left_alone(control: Control) -> list[str]:
    """Executions with a call that nobody has seen to: for the tick."""
    before = control.clock() - LEFT_ALONE
    unmade = (
        select(jobs.c.execution)
        .join(tasks, (tasks.c.execution == jobs.c.execution) & (tasks.c.name == jobs.c.task))
        .where(jobs.c.node == "", jobs.c.status == RUNNING, jobs.c.started_at < before)
        .where(or_(tasks.c.wait_reason == "child", jobs.c.given.is_not(None)))
        .where(
            ~exists().where(child.c.parent_job == jobs.c.id), ~exists().where(approvals.c.job == jobs.c.id)
        )
    )
    unsaid = (
        select(jobs.c.execution)
        .join(child, child.c.parent_job == jobs.c.id)
        .where(
            or_(
                child.c.status.in_(EXECUTION_OVER) & (jobs.c.status == RUNNING),
                child.c.status.not_in(EXECUTION_OVER)
                & jobs.c.status.in_(JOB_OVER)
                & (child.c.intent != CANCEL),
            )
        )
    )
    with control.store.read() as connection:
        found = {row[0] for query in (unmade, unsaid) for row in connection.execute(query.limit(AT_ONCE))}
    return sorted(found)
