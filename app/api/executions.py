"""Executions: started, looked at, cancelled, resolved."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from flask import Response, jsonify, url_for
from flask_smorest import Blueprint

from app.api import asked, definitions, held, paging, shown, within
from app.api.gate import bearer, needs, person
from app.api.strict import Parser
from app.api.wiring import control, reading
from app.errors import Conflict
from app.services import again, audit, hold, queries, scope, snapshots
from app.services.cancel import cancel as ask_to_cancel
from app.services.guard import STORED, Origin
from app.services.resolve import resolve as resolve_job
from app.services.runnable import Runnable, inline, kind_of
from app.services.runnable import runnable as stored
from app.services.submit import Accepted, Submission, submit

executions = Blueprint("executions", __name__, description="Invocations of workflows.")
executions.ARGUMENTS_PARSER = Parser()

_shown = shown.ExecutionSchema()
STARTED: dict[str, Any] = {
    "headers": {
        "Location": {"description": "Where the execution is", "schema": {"type": "string"}},
        "Idempotent-Replay": {
            "description": "`true` where the key had made it before",
            "schema": {"type": "string"},
        },
    }
}


@executions.route("/workflows/<ref:ref>/execute", methods=["POST"])
@needs("operator", within.WORKFLOW)
@executions.arguments(asked.ExecuteSchema)
@executions.arguments(asked.WaitQuery, location="query")
@executions.arguments(asked.IdempotencySchema, location="headers")
@executions.response(201, shown.ExecutionSchema, **STARTED)
@executions.alt_response(
    200, schema=shown.ExecutionSchema, description="The key had made it before", success=True
)
@executions.alt_response(202, schema=shown.ExecutionSchema, description="It goes on", success=True)
def execute(body: dict[str, Any], query: dict[str, Any], headers: dict[str, Any], ref: str) -> Response:
    """Execute a stored workflow."""
    with audit.refusals(control(), person().login, "execution.submit", ref, (Conflict,)):
        found = stored(control(), ref, body["version"])
    asked_for, key = {"ref": ref, **body}, headers["key"] or ""
    return start(found, body["parameters"], key, asked_for, query["wait"], workspace=body["workspace"])


@executions.route("/workflow-executions", methods=["POST"])
@needs("author", within.ANYTHING)
@executions.arguments(asked.InlineSchema)
@executions.arguments(asked.WaitQuery, location="query")
@executions.arguments(asked.IdempotencySchema, location="headers")
@executions.response(201, shown.ExecutionSchema, **STARTED)
@executions.alt_response(
    200, schema=shown.ExecutionSchema, description="The key had made it before", success=True
)
@executions.alt_response(202, schema=shown.ExecutionSchema, description="It goes on", success=True)
def execute_inline(body: dict[str, Any], query: dict[str, Any], headers: dict[str, Any]) -> Response:
    """Execute a workflow that is not stored."""
    found = inline(control(), definitions.text_of(body["definition"]))
    key, workspace = headers["key"] or "", body["workspace"]
    return start(found, body["parameters"], key, body, query["wait"], origin="inline", workspace=workspace)


def start(
    runnable: Runnable,
    parameters: dict[str, Any],
    key: str,
    asked_for: dict[str, Any],
    wait: float,
    *,
    origin: Origin = STORED,
    workspace: str = "",
) -> Response:
    """Submit, wait so many seconds for the end if that is wanted, and answer with the execution."""
    if workspace:
        snapshots.ready(control(), bearer(), workspace)
    wanted = replace(submission(runnable, parameters, key, asked_for, origin), workspace=workspace)
    with audit.refusals(control(), wanted.requester, "execution.submit", runnable.plan.ref, (Conflict,)):
        accepted = submit(control(), wanted)
    finished = bool(wait) and held.until_over(accepted.execution, wait)
    return _answer(accepted, waited=bool(wait), finished=finished)


def check_nodes(names: Sequence[str] | None, pack: str, at: str) -> None:
    """Raises NotAllowed for nodes that a request names at the pointer `at`, and that are out of the person's bounds."""
    if not person().is_scoped:
        return
    with audit.refusals(control(), person().login, "execution.submit", pack), reading() as connection:
        scope.check_nodes(control(), connection, person(), names or (), pack, at)


def submission(
    runnable: Runnable,
    parameters: dict[str, Any],
    key: str,
    asked_for: dict[str, Any],
    origin: Origin,
) -> Submission:
    """What this person asks for. `asked_for` is what must be the same where a key comes again."""
    return Submission(
        plan=runnable.plan,
        source=runnable.source,
        requester=person().login,
        parameters=parameters,
        revision=runnable.revision,
        idempotency_key=key,
        request=request_of(asked_for) if key else "",
        origin=origin,
        kind=kind_of(runnable, origin),
        script=runnable.script,
        script_version=runnable.script_version,
    )


def request_of(asked_for: dict[str, Any]) -> str:
    """The text of a request that tells whether a key comes again with another one."""
    return json.dumps(asked_for, sort_keys=True, separators=(",", ":"))


def _answer(accepted: Accepted, *, waited: bool, finished: bool) -> Response:
    if accepted.run is not None and not waited:
        found = queries.just_made(accepted.run)
    else:
        with reading() as connection:
            found = queries.execution(connection, accepted.execution)
    response = jsonify(_shown.dump(found))
    response.status_code = 202 if waited and not finished else 201 if accepted.created else 200
    response.headers["Location"] = url_for("executions.get_execution", id=accepted.execution)
    if not accepted.created:
        response.headers["Idempotent-Replay"] = "true"
    return response


@executions.route("/workflow-executions", methods=["GET"])
@needs("viewer", within.ANYTHING)
@executions.arguments(asked.ExecutionsQuery, location="query")
@executions.response(200, shown.ExecutionsSchema)
def list_executions(query: dict[str, Any]) -> Any:
    """Executions, the newest first."""
    return _list(query, query["workflow"])


@executions.route("/workflows/<ref:ref>/executions", methods=["GET"])
@needs("viewer", within.ANYTHING)
@executions.arguments(asked.OfWorkflowQuery, location="query")
@executions.response(200, shown.ExecutionsSchema)
def list_of_workflow(query: dict[str, Any], ref: str) -> Any:
    """The executions of one workflow, the newest first; also of one that was deleted."""
    return _list(query, ref)


def _list(query: dict[str, Any], workflow: str | None) -> Any:
    before = paging.behind(query["cursor"], str)
    with reading() as connection:
        found = queries.list_executions(
            connection,
            limit=query["limit"] + 1,
            before=before,
            statuses=query["status"],
            workflow=workflow,
            within=scope.executions_of(person()),
        )
    return paging.answer(found, query["limit"], lambda row: [row["id"]])


@executions.route("/workflow-executions/<ulid:id>", methods=["GET"])
@needs("viewer", within.EXECUTION)
@executions.response(200, shown.ExecutionSchema)
def get_execution(id: str) -> dict[str, Any]:
    """An execution with its parameters, variables and the graph of its tasks."""
    with reading() as connection:
        return queries.execution(connection, id)


@executions.route("/workflow-executions/<ulid:id>/tasks", methods=["GET"])
@needs("viewer", within.EXECUTION)
@executions.response(200, shown.UnitsSchema)
def list_units(id: str) -> dict[str, Any]:
    """A row for every unit of every task."""
    with reading() as connection:
        return {"items": queries.units(connection, id)}


@executions.route("/workflow-executions/<ulid:id>/cancel", methods=["POST"])
@needs("operator", within.EXECUTION)
@executions.arguments(asked.CancelSchema)
@executions.response(202, shown.StatusSchema)
def cancel(body: dict[str, Any], id: str) -> dict[str, str]:
    """Ask that an execution ends; asking twice changes nothing, with `force` its finally tasks are stopped too."""
    login = person().login
    with audit.refusals(control(), login, "execution.cancel", id):
        return {"status": ask_to_cancel(control(), id, login, forced=body["force"], reason=body["reason"])}


@executions.route("/workflow-executions/<ulid:id>/pause", methods=["POST"])
@needs("operator", within.EXECUTION)
@executions.arguments(asked.ReasonSchema)
@executions.response(202, shown.StatusSchema)
def pause(body: dict[str, Any], id: str) -> dict[str, str]:
    """Ask that nothing new starts; what runs goes on and is settled. Asking twice changes nothing."""
    with audit.refusals(control(), person().login, "execution.pause", id):
        return {"status": hold.pause(control(), id, person().login, body["reason"])}


@executions.route("/workflow-executions/<ulid:id>/resume", methods=["POST"])
@needs("operator", within.EXECUTION)
@executions.arguments(asked.ReasonSchema)
@executions.response(202, shown.StatusSchema)
def resume(body: dict[str, Any], id: str) -> dict[str, str]:
    """Let a paused execution go on. Of one that is not paused nothing changes."""
    with audit.refusals(control(), person().login, "execution.resume", id):
        return {"status": hold.resume(control(), id, person().login, body["reason"])}


@executions.route("/workflow-executions/<ulid:id>/retry", methods=["POST"])
@needs("operator", within.EXECUTION)
@executions.arguments(asked.RetrySchema)
@executions.response(202, shown.StatusSchema)
def retry(body: dict[str, Any], id: str) -> dict[str, str]:
    """Try an execution that is over again from what failed; what succeeded keeps its result."""
    wanted = again.Wanted(
        from_=tuple(body["from_"]),
        mark_ok=body["mark_ok"],
        reset=body["reset"],
        reason=body["reason"],
        version=body["version"],
    )
    with audit.refusals(control(), person().login, "execution.retry", id):
        return {"status": again.retry(control(), id, person().login, wanted)}


@executions.route("/workflow-executions/<ulid:id>/tasks/<task:name>/resolve", methods=["POST"])
@needs("operator", within.EXECUTION)
@executions.arguments(asked.ResolveSchema)
@executions.response(202, shown.StatusSchema)
def resolve(body: dict[str, Any], id: str, name: str) -> dict[str, str]:
    """Say what became of a job that nobody knows about."""
    with audit.refusals(control(), person().login, "job.resolve", id):
        resolve_job(control(), id, name, body["unit"], body["outcome"], body["reason"], person().login)
    with reading() as connection:
        return {"status": queries.state(connection, id).status}
