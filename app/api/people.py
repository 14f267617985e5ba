"""People, their tokens, the audit trail, and what is kept."""

from __future__ import annotations

from typing import Any

from flask import Response
from flask_smorest import Blueprint

from app.api import asked, asked_people, paging, shown, shown_people, within
from app.api.gate import needs, person
from app.api.strict import Parser
from app.api.wiring import control, reading
from app.services import audit as trail
from app.services import chain, retention
from app.services import people as service

people = Blueprint("people", __name__, description="People, their tokens, and what they did.")
people.ARGUMENTS_PARSER = Parser()


@people.route("/users", methods=["POST"])
@needs("admin")
@people.arguments(asked_people.UserSchema)
@people.response(201, shown_people.PersonSchema)
def create_user(body: dict[str, Any]) -> Any:
    """Make a person known, with a role everywhere or with grants."""
    login, grants = person().login, body["grants"]
    return service.create_user(control(), body["login"], body["role"], login, grants=grants)


@people.route("/users", methods=["GET"])
@needs("admin")
@people.response(200, shown_people.PeopleSchema)
def list_users() -> dict[str, Any]:
    """Everybody with what they may."""
    with reading() as connection:
        return {"items": service.list_users(connection)}


@people.route("/users/<login:login>", methods=["GET"])
@needs("admin")
@people.response(200, shown_people.PersonSchema)
def get_user(login: str) -> Any:
    """One person with what they may."""
    with reading() as connection:
        return service.get_user(connection, login)


@people.route("/users/<login:login>", methods=["PATCH"])
@needs("admin")
@people.arguments(asked_people.ChangeUserSchema)
@people.response(200, shown_people.PersonSchema)
def change_user(body: dict[str, Any], login: str) -> Any:
    """Give a person another role or other grants, or switch them on or off; that counts at once."""
    return service.change_user(control(), login, service.Change(**body), person().login)


@people.route("/me", methods=["GET"])
@needs("viewer", within.ANYTHING)
@people.response(200, shown_people.MeSchema)
def me() -> dict[str, Any]:
    """Who asks, and what they may."""
    asks = person()
    return {"login": asks.login, "role": asks.role, "grants": asks.grants, "token": asks.token}


@people.route("/me/tokens", methods=["GET"])
@needs("viewer", within.ANYTHING)
@people.arguments(asked.PageQuery, location="query")
@people.response(200, shown.TokensSchema)
def list_own_tokens(query: dict[str, Any]) -> Any:
    """The tokens of who asks, without their secrets, the newest first."""
    return _tokens(query, person().login)


@people.route("/me/tokens/<ulid:id>", methods=["DELETE"])
@needs("viewer", within.ANYTHING)
@people.response(204)
def revoke_own_token(id: str) -> Response:
    """Revoke a token of one's own, at once."""
    login = person().login
    service.revoke_token(control(), id, login, of=login)
    return Response(status=204)


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
    return _tokens(query, None)


def _tokens(query: dict[str, Any], of: str | None) -> Any:
    before = paging.behind(query["cursor"], str)
    with reading() as connection:
        found = service.list_tokens(connection, limit=query["limit"] + 1, before=before, of=of)
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


@people.route("/audit/sealed", methods=["GET"])
@needs("admin")
@people.arguments(asked_people.SealedQuery, location="query")
@people.response(200, shown.AuditSchema)
def list_sealed(query: dict[str, Any]) -> Any:
    """Entries in the order of the chain, the oldest first; what was not sealed yet is not there."""
    after = paging.behind(query["cursor"], int) or query["after"]
    with reading() as connection:
        found = chain.list_sealed(connection, limit=query["limit"] + 1, after=after)
    return paging.answer(found, query["limit"], lambda row: [row["seq"]])


@people.route("/audit/verify", methods=["GET"])
@needs("admin")
@people.arguments(asked_people.VerifyQuery, location="query")
@people.response(200, shown_people.VerifiedSchema)
def verify_audit(query: dict[str, Any]) -> chain.Verified:
    """Whether the audit trail is as it was sealed; a long one is looked at in pages."""
    behind, head = (
        None if place is None else chain.Place(*place) for place in (query["cursor"], query["head"])
    )
    return chain.verify(control(), behind=behind, head=head, limit=query["limit"])
