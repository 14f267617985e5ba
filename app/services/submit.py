"""A workflow is asked for: one transaction makes the execution, its tasks and its first jobs. The answer means kept."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection, select

from app.compiler.build import static_node
from app.compiler.plan import LOCAL, PLAN_VERSION, Plan
from app.engine.context import size_of
from app.engine.events import Submitted
from app.engine.status import RUNNING, SCHEDULING
from app.errors import Conflict, InvalidInput, NotAllowed, TooLarge
from app.ids import span_of, trace_of, ulid
from app.language.known import parameter_from_json
from app.language.model import Parameter
from app.language.parameters import bind
from app.logs import scope
from app.services import audit, guard, pack_config, vault
from app.services import scope as bounds
from app.services.control import Control
from app.services.measures import CREATED
from app.services.run import Run
from app.store import executions as rows
from app.store.births import Birth
from app.store.statements import insert_into
from app.store.tables import Execution, IdempotencyKey, table

log = logging.getLogger(__name__)
keys, executions = table(IdempotencyKey), table(Execution)


@dataclass(frozen=True, slots=True)
class Parent:
    """The execution and job that a child is started for, how deep it is below, and the trace that it belongs to."""

    execution: str
    job: str
    depth: int
    trace_id: str


@dataclass(frozen=True, slots=True)
class Submission:
    """What is asked for, by whom. `request` is what must be the same where the key comes again.

    `given_on` are the secret parameters that the parent gives on, as references. What does not come from the library
    (`origin`) is held to the allowlist. `kind` is workflow, script (with the id and version of the saved one) or adhoc.
    `schedule` is the id of the one whose time has come; its secrets are in `given_on` as well, by their names.
    `askers` are those who had a hand in it beside the requester.
    `reason` is for the audit trail. One that `is_put_off` has its first jobs born by a control worker and not by the
    request: there may be many. `workspace` is the snapshot that its files begin with, "" for none; it is there.
    """

    plan: Plan
    source: str
    requester: str
    parameters: Mapping[str, Any]
    revision: int | None = None
    idempotency_key: str = ""
    request: str = field(default="", repr=False)
    origin: guard.Origin = guard.STORED
    kind: str = "workflow"
    script: str = ""
    script_version: int = 0
    schedule: str = ""
    askers: tuple[str, ...] = ()
    reason: str = ""
    is_put_off: bool = False
    parent: Parent | None = None
    given_on: Mapping[str, str] = field(default_factory=dict)
    workspace: str = ""


@dataclass(frozen=True, slots=True)
class Accepted:
    """`created` is False where an Idempotency-Key named an execution that was there already. `run` is one that was
    created, as its transaction left it."""

    execution: str
    created: bool
    run: Run | None = field(default=None, repr=False, compare=False)


Claim = Callable[[Connection, str], None]
"""Called with a transaction and the id of the execution that it makes; what it raises leaves nothing of both."""


def _unclaimed(connection: Connection, execution: str) -> None:
    """For whoever asks by themselves."""


def submit(control: Control, submission: Submission, claim: Claim = _unclaimed) -> Accepted:
    """Commit a new execution and nudge the control workers. What `claim` writes is kept with it, or neither is.

    Raises InvalidInput (parameters, or `local` where it is switched off), TooLarge, NotAllowed (what the allowlist
    refuses) and Conflict (the key came with another request, or its pack lacks a value that it reads). When it returns,
    the execution is on disk. Its trace is that of the request, else one of its own.
    """
    plan, parent = submission.plan, submission.parent
    if submission.idempotency_key:
        with control.store.read() as connection:
            known = _earlier(control, connection, submission)
        if known is not None:
            return Accepted(known, created=False)
    bound = fitted(control, submission)
    if parent is None:
        _hold(control, submission)
    examined = _examine(control, submission)
    now = control.clock()
    execution = ulid(now)
    trace_id, parent_span = _trace(parent, execution)
    given_on = _given_on(control, submission, execution)
    sealed = vault.seal(control, execution, plan.secret_parameters, bound, given_on)

    def write(connection: Connection) -> Accepted:
        known = _claim_key(control, connection, submission, execution, now) or _child_of(connection, parent)
        if known is not None:
            return Accepted(known, created=False)
        scope.note(execution=execution, trace_id=trace_id)
        claim(connection, execution)
        columns = {
            "id": execution,
            **_columns(submission),
            "plan_digest": rows.store_plan(connection, plan, submission.source, PLAN_VERSION, now),
            "guard": examined.guard,
            "trace_id": trace_id,
            "parent_span": parent_span,
            "status": SCHEDULING,
            "parameters": sealed.parameters,
            "config": pack_config.for_execution(connection, plan),
            "created_at": now,
        }
        run = Run.new(control, connection, Birth(columns, plan))
        if submission.is_put_off or sealed.rows:
            run.be_born()
        vault.keep(connection, sealed)
        _keep_in_audit(connection, submission, execution, examined, now)
        if not submission.is_put_off:
            run.take(Submitted())
        return Accepted(execution, created=True, run=run)

    accepted = control.store.write_together(write)
    if accepted.created:
        log.info("execution accepted", extra=scope.facts(workflow=plan.ref, revision=submission.revision))
        control.tally.count(CREATED)
        control.nudge([execution])
    return accepted


def fitted(control: Control, submission: Submission) -> dict[str, Any]:
    """The values of all parameters that the plan takes. Raises InvalidInput and TooLarge, as `submit` does."""
    plan, given_on = submission.plan, submission.given_on
    bound = bind(declared(plan, given_on), {**submission.parameters, **given_on})
    _refuse_large(control, bound)
    refuse_local(control, plan)
    return bound


def _trace(parent: Parent | None, execution: str) -> tuple[str, str]:
    """The trace id, and the span that the execution stands under: that of the job that started it, or the request's."""
    if parent is not None:
        return parent.trace_id, span_of(parent.job)
    known = scope.current()
    return known.get("trace_id") or trace_of(execution), known.get("parent_span", "")


def _child_of(connection: Connection, parent: Parent | None) -> str | None:
    """The child that the job has already, if it has one. Raises Conflict where it does not wait for one any more.

    The job is locked: it cannot be stopped, nor start one more, until the new execution is there.
    """
    if parent is None:
        return None
    job = rows.load_job(connection, parent.job)
    if job is None or job.status != RUNNING:
        raise Conflict(f"{parent.job} waits for no workflow any more", code="parent-does-not-wait")
    return connection.execute(select(executions.c.id).where(executions.c.parent_job == parent.job)).scalar()


def _columns(submission: Submission) -> dict[str, Any]:
    """What its row says of what is asked for, by whom and by which schedule, and of what it is a child of."""
    parent = submission.parent
    family = {"parent": parent.execution, "parent_job": parent.job, "depth": parent.depth} if parent else {}
    return {
        "workflow_ref": submission.plan.ref,
        "workflow_revision": submission.revision,
        "kind": submission.kind,
        "script": submission.script,
        "script_version": submission.script_version,
        "requester": submission.requester,
        "schedule": submission.schedule or None,
        "askers": list(submission.askers),
        "origin": submission.origin,
        "workspace": submission.workspace,
        **family,
    }


def _hold(control: Control, submission: Submission) -> None:
    """Raises NotAllowed for what is outside of the requester's scope; it is kept in the audit trail.

    What a workflow calls is not asked for by the requester: its jobs are held to the scope as they are handed over.
    """
    plan, person = submission.plan, submission.requester
    if control.scoped.has_role(person):
        return
    try:
        with control.store.read() as connection:
            about = {"origin": submission.origin, "kind": submission.kind}
            bounds.check_submission(control, connection, person, plan, **about)
    except NotAllowed as error:
        audit.refuse(control, person, "execution.submit", plan.ref, error, {"origin": submission.origin})
        raise


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
    detail |= {"schedule": submission.schedule} if submission.schedule else {}
    detail |= {"workspace": submission.workspace} if submission.workspace else {}
    if submission.script:
        detail |= {"script": submission.script, "version": submission.script_version}
    if submission.reason:
        detail["reason"] = submission.reason
    person = submission.requester
    audit.record(connection, person, "execution.submit", execution, audit.ACCEPTED, detail, at=now)
    if examined.problems:
        problems = {"problems": examined.problems[: guard.MOST_TOLD]}
        audit.record(connection, person, "execution.check", execution, audit.WOULD_REFUSE, problems, at=now)


def declared(plan: Plan, given_on: Collection[str] = ()) -> tuple[Parameter, ...]:
    """The parameters that a plan takes. Of what a parent gives on nobody looks at the value here, so it may be any."""
    found = (parameter_from_json(one) for one in plan.parameters)
    return tuple(replace(one, enum=None) if one.name in given_on else one for one in found)


def _given_on(control: Control, submission: Submission, execution: str) -> Mapping[str, Mapping[str, Any]]:
    if not submission.given_on:
        return {}
    giver = submission.parent.execution if submission.parent else ""
    with control.store.read() as connection:
        return vault.give_on(control, connection, giver, execution, submission.given_on)


def _refuse_large(control: Control, parameters: Mapping[str, Any]) -> None:
    size, most = size_of(parameters), control.settings.parameters_limit
    if size > most:
        message = f"the parameters have {size} bytes, {most} are allowed"
        raise TooLarge(message, hint="hand over a path or an address instead", code="parameters-too-large")


def refuse_local(control: Control, plan: Plan) -> None:
    """Raises InvalidInput where the plan needs the node `local`, which is switched off here."""
    if control.settings.local_node:
        return
    for task in plan.tasks.values():
        if task.kind == "job" and task.runs_on_nodes and static_node(task) == LOCAL:
            raise InvalidInput(
                f"task {task.name} would run on `local`, which is switched off here",
                hint="give the task `delegate_to`, or set MUSTER_LOCAL_NODE=1",
                code="no-local",
            )


def _digests(control: Control, request: str) -> list[str]:
    """What is kept of the request, first, and what may have been kept of the same one earlier.

    A short secret could be guessed from a plain digest. Without keys no secret parameter is taken at all.
    """
    keys = control.keyring.find(control.settings)
    plain = hashlib.sha256(request.encode()).hexdigest()
    return [*(keys.digests(request) if keys is not None else ()), plain]


def _claim_key(
    control: Control, connection: Connection, submission: Submission, execution: str, now: float
) -> str | None:
    """The execution that this key made before, or None: then the key is now this execution's."""
    if not submission.idempotency_key:
        return None
    values = {
        "person": submission.requester,
        "key": submission.idempotency_key,
        "request_digest": _digests(control, submission.request)[0],
        "execution": execution,
        "created_at": now,
    }
    claim = insert_into(connection, keys).values(values).on_conflict_do_nothing().returning(keys.c.key)
    return None if connection.execute(claim).first() else _earlier(control, connection, submission)


def made_before(control: Control, requester: str, key: str, request: str) -> str | None:
    """The execution that this person's key made before, whatever became since of what it was made from.

    Raises Conflict if that was another request.
    """
    with control.store.read() as connection:
        return _find(control, connection, requester, key, request)


def _earlier(control: Control, connection: Connection, submission: Submission) -> str | None:
    key, request = submission.idempotency_key, submission.request
    return _find(control, connection, submission.requester, key, request) if key else None


def _find(control: Control, connection: Connection, requester: str, key: str, request: str) -> str | None:
    query = select(keys.c.execution, keys.c.request_digest)
    row = connection.execute(query.where(keys.c.person == requester, keys.c.key == key)).first()
    if row is None:
        return None
    if row.request_digest not in _digests(control, request):
        raise Conflict(
            "this Idempotency-Key came with another request before",
            hint="use a new key for a new request",
            code="idempotency-key-reused",
        )
    return str(row.execution)
