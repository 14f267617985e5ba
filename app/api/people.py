"""People, their tokens, the audit trail, and what is kept."""

from __future__ import annotations

from typing import Any

from flask import Response
from flask_smorest import Blueprint

from app.api import asked, paging, shown
from app.api.gate import needs, person
from app.api.strict import Parser
from app.api.wiring import control, reading
from app.services import audit as trail
from app.services import people as service
from app.services import retention

people = Blueprint("people", __name__, description="People, their tokens, and what they did.")
people.ARGUMENTS_PARSER = Parser()


@people.route("/users", methods=["POST"])
@needs("admin")
@people.arguments(asked.UserSchema)
@people.response(201, shown.PersonSchema)
def create_user(body: dict[str, Any]) -> Any:
    """Make a person known."""
    return service.create_user(control(), body["login"], body["role"], person().login)


@people.route("/users", methods=["GET"])
@needs("admin")
@people.response(200, shown.PeopleSchema)
def list_users() -> dict[str, Any]:
    """Everybody with their role."""
    with reading() as connection:
        return {"items": service.list_users(connection)}


@people.route("/tokens", methods=["POST"])
@needs("admin")
@people.arguments(asked.TokenSchema)
@people.response(201, shown.NewTokenSchema)
def create_token(body: dict[str, Any]) -> dict[str, Any]:
    """Make a token for a person; it is shown here and never again."""
    made = service.create_token(control(), body["login"], body["name"], body["expires_in"], person().login)
    return {**made.row, "token": made.token}


@people.route("/tokens", methods=["GET"])
@needs("admin")
@people.arguments(asked.PageQuery, location="query")
@people.response(200, shown.TokensSchema)
def list_tokens(query: dict[str, Any]) -> Any:
    """Tokens without their secrets, the newest first."""
    before = paging.behind(query["cursor"], str)
    with reading() as connection:
        found = service.list_tokens(connection, limit=query["limit"] + 1, before=before)
    return paging.answer(found, query["limit"], lambda row: [row["id"]])


@people.route("/tokens/<ulid:id>", methods=["DELETE"])
@needs("admin")
@people.response(204)
def revoke_token(id: str) -> Response:
    """Revoke a token, at once."""
    service.revoke_token(control(), id, person().login)
    return Response(status=204)


@people.route("/prune", methods=["POST"])
@needs("admin")
@people.arguments(asked.PruneSchema)
@people.response(200, shown.PrunedSchema)
def prune(body: dict[str, Any]) -> Any:
    """Delete what its retention no longer keeps, now; the tick does so every hour.

    `older_than` (seconds) stands in for the setting, for executions that have ended.
    """
    return retention.prune(control(), person().login, older_than=body["older_than"])


@people.route("/audit", methods=["GET"])
@needs("admin")
@people.arguments(asked.AuditQuery, location="query")
@people.response(200, shown.AuditSchema)
def list_audit(query: dict[str, Any]) -> Any:
    """Who did what, refusals too; the newest first."""
    before = paging.behind(query["cursor"], int)
    with reading() as connection:
        filters = {name: query[name] for name in ("person", "action", "subject")}
        found = trail.list_entries(connection, limit=query["limit"] + 1, before=before, **filters)
    return paging.answer(found, query["limit"], lambda row: [row["id"]])
