"""Schedules: made, changed, switched on and off, and what became of their times."""

from __future__ import annotations

from typing import Any

from flask import Response, jsonify, request, url_for
from flask_smorest import Blueprint
from sqlalchemy import RowMapping

from app.api import asked, asked_schedules, paging, shown_schedules, within
from app.api.gate import needs, person
from app.api.strict import Parser
from app.api.unchanged import check_match, if_unchanged
from app.api.wiring import control, reading
from app.services import cron, features
from app.services import schedules as service
from app.services.cron import Cron
from app.services.schedule_targets import SCRIPT, WORKFLOW, Target
from app.services.schedules import Wanted

schedules = Blueprint("schedules", __name__, description="What starts by itself, and when.")
schedules.ARGUMENTS_PARSER = Parser()

_shown = shown_schedules.ScheduleSchema()
_SPLIT = 1_000_000
"""A time is two numbers of a cursor, for one may not be as large."""
_LAST = 32_503_680_000.0
"""The year 3000: whatever a cursor says, it is a time that a database takes."""
_WHERE = ("host_ids", "labels", "batch", "max_failures")


@schedules.before_request
def _need() -> None:
    features.need(control().settings, features.SCHEDULE)


@schedules.route("/automation/schedules", methods=["GET"])
@needs("viewer", within.ANYTHING)
@schedules.arguments(asked_schedules.SchedulesQuery, location="query")
@schedules.response(200, shown_schedules.SchedulesSchema)
def list_schedules(query: dict[str, Any]) -> Any:
    """Schedules by name; `?enabled=` narrows them down."""
    after = paging.behind(query["cursor"], str)
    with reading() as connection:
        found = service.list_schedules(
            connection, person(), limit=query["limit"] + 1, after=after, enabled=query["enabled"]
        )
    return paging.answer(found, query["limit"], lambda row: [row["name"]])


@schedules.route("/automation/schedules", methods=["POST"])
@needs("operator", within.ANYTHING)
@schedules.arguments(asked_schedules.WriteScheduleSchema)
@schedules.response(201, shown_schedules.ScheduleSchema)
def create(body: dict[str, Any]) -> Response:
    """Make a schedule, looked at whole before it is kept; who makes it is whom its executions are for."""
    return _answer(service.create(control(), _wanted(body), person()), 201)


@schedules.route("/automation/schedules/check", methods=["POST"])
@needs("viewer", within.ANYTHING)
@schedules.arguments(asked_schedules.CheckExpressionSchema)
@schedules.response(200, shown_schedules.TimesSchema)
def check(body: dict[str, Any]) -> dict[str, Any]:
    """When an expression would fire; nothing is kept."""
    return _times(cron.read(body["cron"], body["zone"], control().clock()), body["count"])


@schedules.route("/automation/schedules/<schedule:id>", methods=["GET"])
@needs("viewer", within.ANYTHING)
@schedules.etag
@schedules.response(200, shown_schedules.ScheduleSchema)
def get_schedule(id: str) -> RowMapping:
    """A schedule by its id or name. Its ETag changes when people change it, not as it fires."""
    with reading() as connection:
        found = service.get(connection, id, person())
    schedules.set_etag(_version(found))
    return found


@schedules.route("/automation/schedules/<schedule:id>", methods=["PUT"])
@needs("operator", within.ANYTHING)
@schedules.arguments(asked_schedules.WriteScheduleSchema)
@schedules.response(200, shown_schedules.ScheduleSchema)
def put_schedule(body: dict[str, Any], id: str) -> Response:
    """Write a schedule anew; only its owner or an administrator may. If-Match is heeded."""
    with reading() as connection:
        known = service.get(connection, id, person())["id"]
    expected, asker = _expected(id), person()
    if_unchanged(lambda: service.change(control(), known, _wanted(body), asker, expected=expected))
    return _answer(known, 200)


@schedules.route("/automation/schedules/<schedule:id>", methods=["DELETE"])
@needs("operator", within.ANYTHING)
@schedules.response(204)
def delete_schedule(id: str) -> Response:
    """Forget a schedule with its history; its executions stay. If-Match is heeded."""
    expected, asker = _expected(id), person()
    if_unchanged(lambda: service.remove(control(), id, asker, expected=expected))
    return Response(status=204)


@schedules.route("/automation/schedules/<schedule:id>/enable", methods=["POST"])
@needs("operator", within.ANYTHING)
@schedules.response(200, shown_schedules.ScheduleSchema)
def enable(id: str) -> Response:
    """Let it fire again from its next time on. Of one that is enabled nothing changes."""
    service.enable(control(), id, person())
    return _answer(id, 200)


@schedules.route("/automation/schedules/<schedule:id>/disable", methods=["POST"])
@needs("operator", within.ANYTHING)
@schedules.response(200, shown_schedules.ScheduleSchema)
def disable(id: str) -> Response:
    """Let it fire no more. Of one that is disabled nothing changes."""
    service.disable(control(), id, person())
    return _answer(id, 200)


@schedules.route("/automation/schedules/<schedule:id>/next", methods=["GET"])
@needs("viewer", within.ANYTHING)
@schedules.arguments(asked_schedules.NextQuery, location="query")
@schedules.response(200, shown_schedules.TimesSchema)
def next_times(query: dict[str, Any], id: str) -> dict[str, Any]:
    """The next times of a schedule, whether or not it is enabled."""
    with reading() as connection:
        found = service.get(connection, id, person())
    return _times(Cron(found["cron"], found["zone"]), query["count"])


@schedules.route("/automation/schedules/<schedule:id>/history", methods=["GET"])
@needs("viewer", within.ANYTHING)
@schedules.arguments(asked.PageQuery, location="query")
@schedules.response(200, shown_schedules.TicksSchema)
def history(query: dict[str, Any], id: str) -> Any:
    """What became of its times, the newest first."""
    place = paging.decode(query["cursor"], int, int)
    before = min(_LAST, abs(place[0] * _SPLIT + place[1])) if place else None
    with reading() as connection:
        found = service.history(connection, id, person(), limit=query["limit"] + 1, before=before)
    return paging.answer(found, query["limit"], lambda row: divmod(int(row["fire_time"]), _SPLIT))


def _times(times: Cron, count: int) -> dict[str, Any]:
    found = cron.next_times(times, control().clock(), count)
    items = [{"at": moment, "local": cron.local(moment, times.zone)} for moment in found]
    return {"cron": times.expression, "zone": times.zone, "items": items}


def _wanted(body: dict[str, Any]) -> Wanted:
    kind = WORKFLOW if "workflow" in body else SCRIPT
    nodes = {name: body[name] for name in _WHERE if body.get(name) is not None}
    return Wanted(
        name=body["name"],
        target=Target(kind, body[kind], body["version"], nodes, body["parameters"]),
        cron=body["cron"],
        zone=body["zone"],
        description=body["description"],
        enabled=body["enabled"],
        misfire=body["misfire"],
        most=body["misfire_most"],
        grace=body["misfire_grace"],
        overlap=body["overlap"],
        jitter=body["jitter"],
    )


def _expected(id: str) -> int | None:
    """The revision that the caller's If-Match is about; None where there is none. Raises PreconditionFailed."""
    if not request.if_match:
        return None
    with reading() as connection:
        known = service.get(connection, id, person())
    check_match(_tag(known))
    return int(known["revision"])


def _version(found: RowMapping) -> dict[str, Any]:
    """What an ETag is made of."""
    return {"id": found["id"], "revision": found["revision"]}


def _tag(found: RowMapping) -> str:
    tag: str = schedules._generate_etag(_version(found))
    return tag


def _answer(id: str, status: int) -> Response:
    with reading() as connection:
        found = service.get(connection, id, person())
    response = jsonify(_shown.dump(found))
    response.status_code = status
    if status == 201:
        response.headers["Location"] = url_for("schedules.get_schedule", id=found["id"])
    response.set_etag(_tag(found))
    return response
