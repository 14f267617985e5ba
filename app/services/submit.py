"""A workflow is asked for: one transaction makes the execution, its tasks and its first jobs. The answer means kept."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from app.compiler.build import static_node
from app.compiler.plan import LOCAL, PLAN_VERSION, Plan
from app.engine.events import Submitted
from app.engine.status import SCHEDULING
from app.errors import Conflict, InvalidInput
from app.ids import trace_of, ulid
from app.language.model import Parameter
from app.language.parameters import bind
from app.logs import scope
from app.services import audit, guard
from app.services.control import Control
from app.services.measures import CREATED
from app.services.run import Run
from app.store import executions as rows
from app.store.tables import Execution, IdempotencyKey, table

log = logging.getLogger(__name__)
keys, executions = table(IdempotencyKey), table(Execution)


@dataclass(frozen=True, slots=True)
class Caller:
    """The execution and job that call a workflow, how deep the call is, and the trace that it belongs to."""

    execution: str
    job: str
    depth: int
    trace_id: str


@dataclass(frozen=True, slots=True)
class Submission:
    """What is asked for, by whom. `request_sha256` is the digest of the request that carried the key.

    What does not come from the library (`origin`) is held to the allowlist.
    """

    plan: Plan
    source: str
    requester: str
    parameters: Mapping[str, Any]
    revision: int | None = None
    idempotency_key: str = ""
    request_sha256: str = ""
    origin: guard.Origin = guard.STORED
    caller: Caller | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """`created` is False where an Idempotency-Key named an execution that was there already."""

    execution: str
    created: bool


def submit(control: Control, submission: Submission) -> Accepted:
    """Commit a new execution and nudge the control workers.

    Raises InvalidInput (parameters, or `local` where it is switched off), NotAllowed (what the allowlist refuses)
    and Conflict (the key came with another request). When it returns, the execution is on disk. Its trace is that of
    the request, else one of its own.
    """
    plan = submission.plan
    if submission.idempotency_key:
        with control.store.read() as connection:
            known = _earlier(connection, submission)
        if known is not None:
            return Accepted(known, created=False)
    parameters = bind(_parameters(plan), submission.parameters)
    _refuse_local(control, plan)
    examined = _examine(control, submission)
    now = control.clock()
    execution = ulid(now)
    caller = submission.caller
    trace_id = caller.trace_id if caller else scope.current().get("trace_id") or trace_of(execution)
    with control.store.write() as connection:
        known = _claim_key(connection, submission, execution, now) or _called(connection, caller)
        if known is not None:
            return Accepted(known, created=False)
        digest = rows.store_plan(connection, plan, submission.source, PLAN_VERSION, now)
        values = {
            "id": execution,
            "workflow_ref": plan.ref,
            "workflow_revision": submission.revision,
            "plan_digest": digest,
            "requester": submission.requester,
            "origin": submission.origin,
            "guard": examined.guard,
            "trace_id": trace_id,
            **_family(caller),
            "status": SCHEDULING,
            "parameters": parameters,
            "created_at": now,
        }
        rows.create(connection, values, plan, now)
        _keep_in_audit(connection, submission, execution, examined, now)
        Run.lock(control, connection, execution).take(Submitted())
    scope.note(execution=execution, trace_id=trace_id)
    log.info("execution accepted", extra=scope.facts(workflow=plan.ref, revision=submission.revision))
    control.tally.count(CREATED)
    control.nudge([execution])
    return Accepted(execution, created=True)


def _called(connection: Connection, caller: Caller | None) -> str | None:
    """The execution that the job has called already, if it has."""
    if caller is None:
        return None
    return connection.execute(select(executions.c.id).where(executions.c.parent_job == caller.job)).scalar()


def _family(caller: Caller | None) -> dict[str, Any]:
    if caller is None:
        return {}
    return {"parent": caller.execution, "parent_job": caller.job, "depth": caller.depth}


def _examine(control: Control, submission: Submission) -> guard.Examined:
    """What it would run. Raises NotAllowed, which is kept in the audit trail and leaves nothing else."""
    examined = guard.examine(control, submission.plan, submission.origin)
    if examined.error is not None:
        detail = {"origin": submission.origin, **examined.detail}
        ref, person = submission.plan.ref, submission.requester
        audit.refuse(control, person, "execution.submit", ref, examined.error, detail)
        raise examined.error
    return examined


def _keep_in_audit(
    connection: Connection, submission: Submission, execution: str, examined: guard.Examined, now: float
) -> None:
    """With the execution itself, so that nothing runs that is not in the trail."""
    detail = {"workflow": submission.plan.ref, "revision": submission.revision, "origin": submission.origin}
    detail |= examined.detail
    person = submission.requester
    audit.record(connection, person, "execution.submit", execution, audit.ACCEPTED, detail, at=now)
    if examined.problems:
        problems = {"problems": examined.problems[: guard.MOST_TOLD]}
        audit.record(connection, person, "execution.check", execution, audit.WOULD_REFUSE, problems, at=now)


def _parameters(plan: Plan) -> tuple[Parameter, ...]:
    return tuple(
        Parameter(**{**one, "enum": None if one["enum"] is None else tuple(one["enum"])})
        for one in plan.parameters
    )


def _refuse_local(control: Control, plan: Plan) -> None:
    if control.settings.local_node:
        return
    for task in plan.tasks.values():
        if task.kind == "job" and task.runs_on_nodes and static_node(task) == LOCAL:
            raise InvalidInput(
                f"task {task.name} would run on `local`, which is switched off here",
                hint="give the task `delegate_to`, or set MUSTER_LOCAL_NODE=1",
                code="no-local",
            )


def _claim_key(connection: Connection, submission: Submission, execution: str, now: float) -> str | None:
    """The execution that this key made before, or None: then the key is now this execution's."""
    if not submission.idempotency_key:
        return None
    values = {
        "person": submission.requester,
        "key": submission.idempotency_key,
        "request_sha256": submission.request_sha256,
        "execution": execution,
        "created_at": now,
    }
    on_conflict = sqlite_insert if connection.dialect.name == "sqlite" else postgres_insert
    claim = on_conflict(keys).values(values).on_conflict_do_nothing().returning(keys.c.key)
    return None if connection.execute(claim).first() else _earlier(connection, submission)


def _earlier(connection: Connection, submission: Submission) -> str | None:
    """The execution that this person's key made before. Raises Conflict if that was another request."""
    if not submission.idempotency_key:
        return None
    row = connection.execute(
        select(keys.c.execution, keys.c.request_sha256).where(
            keys.c.person == submission.requester, keys.c.key == submission.idempotency_key
        )
    ).first()
    if row is None:
        return None
    if row.request_sha256 != submission.request_sha256:
        raise Conflict(
            "this Idempotency-Key came with another request before",
            hint="use a new key for a new request",
            code="idempotency-key-reused",
        )
    return str(row.execution)
