"""What an execution left behind and what it says while it runs: output and events."""

from __future__ import annotations

from typing import Any

from flask import Response, request
from flask_smorest import Blueprint

from app.api import asked, held, paging, shown, within
from app.api.gate import needs
from app.api.live import Follower, Listener
from app.api.strict import Parser
from app.api.wiring import control, reading, wiring
from app.errors import InvalidInput
from app.services import history as service
from app.services import queries
from app.services import replay as replaying

DIFFERENCES = 100
"""So many are told at the most."""

history = Blueprint("history", __name__, description="Output and events of executions.")
history.ARGUMENTS_PARSER = Parser()


@history.route("/workflow-executions/<ulid:id>/output", methods=["GET"])
@needs("viewer", within.EXECUTION)
@history.arguments(asked.OutputQuery, location="query")
@history.response(200, shown.OutputsSchema)
def list_output(query: dict[str, Any], id: str) -> Any:
    """What was kept of every job's output, as text; large executions come in pages of a few MB."""
    after = paging.decode(query["cursor"], int, int, int, str)
    wanted = service.OutputFilter(query["task"], query["node"], query["stream"], query["text"])
    place = (after[0], after[1], after[2], after[3]) if after else None
    with reading() as connection:
        items, following = service.list_output(connection, id, wanted, limit=query["limit"], after=place)
    return paging.answer_to(items, following)


@history.route("/workflow-executions/<ulid:id>/jobs/<job:job>/output/<stream:stream>", methods=["GET"])
@needs("viewer", within.EXECUTION)
@history.response(200, {"type": "string", "format": "binary"}, content_type="application/octet-stream")
def raw_output(id: str, job: str, stream: str) -> Response:
    """Every byte that was kept of one stream, to be saved, never to be shown by a browser."""
    with reading() as connection:
        queries.state(connection, id)
        content = service.raw_output(connection, id, job, stream)
    response = Response(content, content_type="application/octet-stream")
    response.headers["Content-Disposition"] = f'attachment; filename="{job}.{stream}"'
    return response


@history.route("/workflow-executions/<ulid:id>/events", methods=["GET"])
@needs("viewer", within.EXECUTION)
@history.doc(
    parameters=[
        {
            "name": "Last-Event-ID",
            "in": "header",
            "description": "The number of the last event seen; wins over `after`",
            "schema": {"type": "string"},
        }
    ]
)
@history.arguments(asked.EventsQuery, location="query")
@history.response(200, shown.EventsSchema)
@history.alt_response(200, schema={"type": "string"}, content_type=held.EVENTS, success=True)
def events(query: dict[str, Any], id: str) -> Any:
    """What happened, in order: a list, or server-sent events until the execution is over.

    With `Accept: text/event-stream` there are `event` (a row, its `id` the number to go on from), with `output=1`
    also `output`, and at last `end`.
    """
    after = _last_seen(query["after"])
    with reading() as connection:
        queries.state(connection, id)
        if not held.wants_stream(request):
            return {"items": service.list_events(connection, id, after=after, limit=query["limit"])}
    store = control().store
    listener = Listener(store, wiring().redis, id) if query["output"] else None
    held.take_seat()
    return held.stream(Follower(store, wiring().ends, id, after, listener).frames())


@history.route("/workflow-executions/<ulid:id>/replay", methods=["GET"])
@needs("operator", within.EXECUTION)
@history.response(200, shown.ReplaySchema)
def replay(id: str) -> dict[str, Any]:
    """Puts the events through the engine once more: whether they give the state that is stored, and where not."""
    with reading() as connection:
        found = replaying.replayed(connection, id)
    return {
        "execution": found.execution,
        "status": found.status,
        "events": found.events,
        "is_same": not found.differences,
        "differences": [
            {"place": one.place, "column": one.column} for one in found.differences[:DIFFERENCES]
        ],
    }


def _last_seen(after: int | None) -> int:
    given = request.headers.get("Last-Event-ID", "")
    if not given:
        return after or 0
    if not given.isascii() or not given.isdigit() or len(given) > 10 or int(given) > asked.LARGEST_NUMBER:
        detail = "Last-Event-ID must be the number of an event"
        raise InvalidInput(detail, hint="send the last `id` that you got", code="bad-event-id")
    return int(given)
