"""Scripts on many nodes: executed, looked at, cancelled, tried again where they failed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flask import Response, jsonify, url_for
from flask_smorest import Blueprint

from app.api import asked, asked_automation, held, paging, shown, shown_automation, within
from app.api.executions import STARTED, check_nodes, request_of, submission
from app.api.gate import needs, person
from app.api.strict import Parser
from app.api.wiring import control, reading
from app.errors import Conflict
from app.services import adhoc, audit, features, scope, script_results, script_retry, scripted
from app.services.cancel import cancel as ask_to_cancel
from app.services.guard import STORED, Origin
from app.services.runnable import Runnable
from app.services.submit import Accepted, made_before, submit
from app.services.targets import Targets

automation = Blueprint("automation", __name__, description="Scripts on many nodes.")
automation.ARGUMENTS_PARSER = Parser()

_shown = shown_automation.ScriptExecutionSchema()
_ALSO = {"schema": shown_automation.ScriptExecutionSchema, "success": True}


@automation.route("/automation/scripts/<script:id>/execute", methods=["POST"])
@needs("operator", within.SCRIPTS)
@automation.arguments(asked_automation.ScriptExecuteSchema)
@automation.arguments(asked.WaitQuery, location="query")
@automation.arguments(asked.IdempotencySchema, location="headers")
@automation.response(201, shown_automation.ScriptExecutionSchema, **STARTED)
@automation.alt_response(200, description="The key had made it before", **_ALSO)
@automation.alt_response(202, description="It goes on", **_ALSO)
def execute(body: dict[str, Any], query: dict[str, Any], headers: dict[str, Any], id: str) -> Response:
    """Run a saved script on many nodes, each with a row of its own from the first moment."""
    asked_for = {"script": id, **body}
    check_nodes(body.get("host_ids"), scripted.PACK, "/host_ids")
    known = _made_before(headers["key"], asked_for, f"{scripted.PACK}.{id}")
    if known is not None:
        return _wait(known, query["wait"])
    found = scripted.saved(control(), id, body["version"], _targets(body), body["parameter_values"])
    return _start(found.runnable, dict(found.values), headers["key"], asked_for, query["wait"], STORED)


@automation.route("/automation/execute", methods=["POST"])
@needs("operator", within.COMMANDS)
@automation.arguments(asked_automation.ScriptBodySchema)
@automation.arguments(asked.WaitQuery, location="query")
@automation.arguments(asked.IdempotencySchema, location="headers")
@automation.response(201, shown_automation.ScriptExecutionSchema, **STARTED)
@automation.alt_response(200, description="The key had made it before", **_ALSO)
@automation.alt_response(202, description="It goes on", **_ALSO)
def execute_body(body: dict[str, Any], query: dict[str, Any], headers: dict[str, Any]) -> Response:
    """Run a script that is not saved on many nodes. It is held to the allowlist."""
    check_nodes(body.get("host_ids"), scope.pack_of(adhoc.REF), "/host_ids")
    known = _made_before(headers["key"], body, adhoc.REF)
    if known is not None:
        return _wait(known, query["wait"])
    given = scripted.Body(body["shell"], body["body"], body["timeout"])
    found = scripted.given(control(), given, _targets(body))
    return _start(found, {}, headers["key"], body, query["wait"], "adhoc")


def _targets(body: dict[str, Any]) -> Targets:
    return Targets(
        body.get("host_ids"), body.get("labels"), body["batch"], body["max_failures"], body["allow_unknown"]
    )


def _made_before(key: str | None, asked_for: dict[str, Any], subject: str) -> Accepted | None:
    """What the key made: the script or a node that it was made from may be another one by now, or gone."""
    features.need(control().settings, features.EXEC)
    if not key:
        return None
    login = person().login
    with audit.refusals(control(), login, "execution.submit", subject, (Conflict,)):
        known = made_before(control(), login, key, request_of(asked_for))
    return None if known is None else Accepted(known, created=False)


def _start(
    runnable: Runnable,
    values: dict[str, Any],
    key: str | None,
    asked_for: dict[str, Any],
    wait: float,
    origin: Origin,
) -> Response:
    wanted = submission(runnable, values, key or "", asked_for, origin)
    # A gate is there at once: who asks is told that somebody has to decide.
    is_put_off = runnable.plan.gate is None
    wanted = replace(wanted, reason=asked_for["reason"], is_put_off=is_put_off)
    with audit.refusals(control(), wanted.requester, "execution.submit", runnable.plan.ref, (Conflict,)):
        accepted = submit(control(), wanted)
    return _wait(accepted, wait)


def _wait(accepted: Accepted, wait: float) -> Response:
    finished = bool(wait) and held.until_over(accepted.execution, wait)
    return _answer(accepted, goes_on=bool(wait) and not finished)


def _answer(accepted: Accepted, *, goes_on: bool) -> Response:
    with reading() as connection:
        found = script_results.execution(connection, accepted.execution)
    response = jsonify(_shown.dump(found))
    response.status_code = 202 if goes_on else 201 if accepted.created else 200
    response.headers["Location"] = url_for("automation.get_execution", id=accepted.execution)
    if not accepted.created:
        response.headers["Idempotent-Replay"] = "true"
    return response


@automation.route("/automation/executions", methods=["GET"])
@needs("viewer", within.ANYTHING)
@automation.arguments(asked_automation.ScriptExecutionsQuery, location="query")
@automation.response(200, shown_automation.ScriptExecutionsSchema)
def list_executions(query: dict[str, Any]) -> Any:
    """Executions of scripts, the newest first."""
    features.need(control().settings, features.EXEC)
    before = paging.behind(query["cursor"], str)
    with reading() as connection:
        found = script_results.list_executions(
            connection,
            limit=query["limit"] + 1,
            before=before,
            words=query["status"],
            script=query["script"],
            within=scope.executions_of(person()),
        )
    return paging.answer(found, query["limit"], lambda row: [row["id"]])


@automation.route("/automation/executions/<ulid:id>", methods=["GET"])
@needs("viewer", within.SCRIPT_EXECUTION)
@automation.arguments(asked_automation.FoldQuery, location="query")
@automation.response(200, shown_automation.ScriptExecutionSchema)
def get_execution(query: dict[str, Any], id: str) -> dict[str, Any]:
    """What became of a script on each node, and one word for all of them."""
    features.need(control().settings, features.EXEC)
    with reading() as connection:
        return script_results.execution(connection, id, folded=query["fold"] is not None)


@automation.route("/automation/executions/<ulid:id>/cancel", methods=["POST"])
@needs("operator", within.SCRIPT_EXECUTION)
@automation.arguments(asked.CancelSchema)
@automation.response(202, shown.StatusSchema)
def cancel(body: dict[str, Any], id: str) -> dict[str, str]:
    """Ask that a script ends on every node; asking twice changes nothing."""
    features.need(control().settings, features.EXEC)
    with reading() as connection:
        script_results.check(connection, id)
    login = person().login
    with audit.refusals(control(), login, "execution.cancel", id):
        ask_to_cancel(control(), id, login, forced=body["force"], reason=body["reason"])
    return _status(id)


@automation.route("/automation/executions/<ulid:id>/retry", methods=["POST"])
@needs("operator", within.SCRIPT_EXECUTION)
@automation.arguments(asked.ReasonSchema)
@automation.response(202, shown.StatusSchema)
def retry(body: dict[str, Any], id: str) -> dict[str, str]:
    """Run a script that is over again on the nodes where it did not succeed; what succeeded keeps its result."""
    login = person().login
    with audit.refusals(control(), login, "execution.retry", id):
        script_retry.retry(control(), id, login, body["reason"])
    return _status(id)


def _status(execution: str) -> dict[str, str]:
    with reading() as connection:
        return {"status": script_results.word(connection, execution)}


@automation.route("/features", methods=["GET"])
@needs("viewer", within.ANYTHING)
@automation.response(200, shown_automation.FeaturesSchema)
def list_features() -> dict[str, dict[str, bool]]:
    """Which parts of the automation engine are switched on here."""
    settings = control().settings
    return {"features": {feature: features.is_on(settings, feature) for feature in features.FEATURES}}
