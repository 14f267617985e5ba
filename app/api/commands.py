"""One command on a node, or on many: the remote shell of the fleet."""

from __future__ import annotations

import re
import time
from typing import Any

from flask import Response, jsonify, request, url_for
from flask_smorest import Blueprint

from app.api import asked, asked_commands, held, shown, within
from app.api.command_stream import CommandFollower, Place
from app.api.executions import STARTED, check_nodes, start, submission
from app.api.gate import needs
from app.api.live import PATIENCE
from app.api.strict import Parser
from app.api.wiring import control, reading, wiring
from app.services import adhoc, scope
from app.services.adhoc import Command, Result
from app.services.submit import Accepted, submit
from app.services.targets import Targets

commands = Blueprint("commands", __name__, description="Commands on nodes, outside of workflows.")
commands.ARGUMENTS_PARSER = Parser()

_PREFERRED = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?([0-9]{1,4})\"?")
_LATE_LOOK = 0.02
_shown = shown.CommandSchema()
_LAST_EVENT = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "The id of the last event seen: the stream goes on behind it",
    "schema": {"type": "string"},
}


@commands.route("/nodes/<node:name>/execute", methods=["POST"])
@needs("operator", within.COMMAND)
@commands.arguments(asked_commands.NodeCommandSchema)
@commands.arguments(asked_commands.CommandWaitQuery, location="query")
@commands.arguments(asked.IdempotencySchema, location="headers")
@commands.response(200, shown.CommandSchema, **STARTED)
@commands.alt_response(202, schema=shown.CommandSchema, description="It goes on", success=True)
@commands.alt_response(200, schema={"type": "string"}, content_type=held.EVENTS, success=True)
def execute(body: dict[str, Any], query: dict[str, Any], headers: dict[str, Any], name: str) -> Response:
    """Run one command on one node, and answer with what became of it, or with a stream while it runs.

    A client that leaves cancels nothing.
    """
    runnable = adhoc.on_node(control(), name, _command(body))
    asked_for = {"node": name, **body}
    wanted = submission(runnable, {}, headers["key"] or "", asked_for, "adhoc")
    if not body["stream_output"]:
        accepted = submit(control(), wanted)
        found = _waited(accepted.execution, name, _seconds(query["wait"]))
        return _headed(_answer(found), accepted)
    # Before anything is stored: a stream that cannot be had must not leave a command behind.
    held.take_seat()
    try:
        accepted = submit(control(), wanted)
    except BaseException:
        wiring().seats.give_back()
        raise
    return _headed(held.stream(_follower(accepted.execution, name, Place()).frames()), accepted)


@commands.route("/nodes/<node:name>/execute/<ulid:id>", methods=["GET"])
@needs("viewer", within.RESULT)
@commands.doc(parameters=[_LAST_EVENT])
@commands.arguments(asked_commands.CommandWaitQuery, location="query")
@commands.response(200, shown.CommandSchema)
@commands.alt_response(202, schema=shown.CommandSchema, description="It goes on", success=True)
@commands.alt_response(200, schema={"type": "string"}, content_type=held.EVENTS, success=True)
def result(query: dict[str, Any], name: str, id: str) -> Response:
    """What became of a command so far; with `Accept: text/event-stream` its stream, from `Last-Event-ID` on."""
    with reading() as connection:
        found = adhoc.result(connection, id, name)
    if held.wants_stream(request):
        last = request.headers.get("Last-Event-ID", "")
        place = Place.read(last) if last else Place()
        held.take_seat()
        return held.stream(_follower(id, name, place).frames())
    if not found.complete and query["wait"]:
        found = _waited(id, name, query["wait"])
    return _answer(found)


@commands.route("/nodes/execute", methods=["POST"])
@needs("operator", within.ANYTHING)
@commands.arguments(asked_commands.FleetCommandSchema)
@commands.arguments(asked.WaitQuery, location="query")
@commands.arguments(asked.IdempotencySchema, location="headers")
@commands.response(201, shown.ExecutionSchema, **STARTED)
@commands.alt_response(
    200, schema=shown.ExecutionSchema, description="The key had made it before", success=True
)
@commands.alt_response(202, schema=shown.ExecutionSchema, description="It goes on", success=True)
def execute_on_many(body: dict[str, Any], query: dict[str, Any], headers: dict[str, Any]) -> Response:
    """Run one command on many nodes, each with a row of its own in the execution's tasks."""
    targets = Targets(
        body.get("nodes"), body.get("labels"), body["batch"], body["max_failures"], body["allow_unknown"]
    )
    check_nodes(targets.names, scope.pack_of(adhoc.REF), "/nodes")
    runnable = adhoc.on_nodes(control(), targets, _command(body))
    return start(runnable, {}, headers["key"] or "", body, query["wait"], origin="adhoc")


def _command(body: dict[str, Any]) -> Command:
    return Command(
        command=body.get("command"),
        script=body.get("script"),
        language=body["language"],
        timeout=body["timeout"],
        cwd=body["cwd"],
        stdin=body["stdin"],
    )


def _seconds(wanted: float | None) -> float:
    """How long to wait: `?wait=`, else `Prefer: wait=N` (RFC 7240), else as long as the server ever does."""
    if wanted is not None:
        return wanted
    preferred = _PREFERRED.search(request.headers.get("Prefer", ""))
    return float(preferred[1]) if preferred else control().settings.execute_wait


def _waited(execution: str, node: str, seconds: float) -> Result:
    """The result once the command is over and its output stored, or as it is when the time is up."""
    if seconds:
        held.until_over(execution, seconds)
    until = time.monotonic() + min(PATIENCE, seconds)
    while True:
        with reading() as connection:
            found = adhoc.result(connection, execution, node)
        if found.complete or not found.over or time.monotonic() > until:
            return found
        time.sleep(_LATE_LOOK)


def _answer(found: Result) -> Response:
    response = jsonify(_shown.dump(found.shown))
    response.status_code = 200 if found.over else 202
    return response


def _headed(response: Response, accepted: Accepted) -> Response:
    response.headers["Location"] = url_for("executions.get_execution", id=accepted.execution)
    if not accepted.created:
        response.headers["Idempotent-Replay"] = "true"
    return response


def _follower(execution: str, node: str, place: Place) -> CommandFollower:
    resume = url_for("commands.result", name=node, id=execution)
    return CommandFollower(control().store, wiring().redis, execution, node, resume, place)
