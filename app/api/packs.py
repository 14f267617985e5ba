"""Packs: registered, shown, configured, deleted; and everything that a task can call."""

from __future__ import annotations

from functools import partial
from typing import Any

from flask import Response, jsonify, url_for
from flask_smorest import Blueprint

from app.api import asked, paging, shown_packs, within
from app.api.gate import needs, person
from app.api.strict import Parser
from app.api.unchanged import if_unchanged
from app.api.wiring import control, reading
from app.language.problems import as_json
from app.services import pack_config, pack_queries, scope
from app.services import packs as service

packs = Blueprint(
    "packs", __name__, description="Packs, their configuration, and the actions that they bring."
)
packs.ARGUMENTS_PARSER = Parser()

_registered = shown_packs.RegisteredSchema()


@packs.route("/packs", methods=["GET"])
@needs("viewer", within.ANYTHING)
@packs.response(200, shown_packs.PacksSchema)
def list_packs() -> dict[str, Any]:
    """Every pack, with the number of its actions and workflows."""
    with reading() as connection:
        return {"items": pack_queries.list_packs(connection, scope.packs_of(person())), "next_cursor": None}


@packs.route("/packs", methods=["POST"])
@needs("author")
@packs.arguments(asked.RegisterSchema)
@packs.response(201, shown_packs.RegisteredSchema)
@packs.alt_response(200, schema=shown_packs.RegisteredSchema, description="It was known before", success=True)
def register(body: dict[str, Any]) -> Response:
    """Register a pack from its files: all of it is checked, then all of it is kept, or nothing."""
    done = service.register(control(), body["files"], person().login)
    response = jsonify(_registered.dump({**_told(done), "warnings": [as_json(one) for one in done.warnings]}))
    response.status_code = 201 if done.created else 200
    response.headers["Location"] = url_for("packs.get_pack", pack=done.ref)
    return response


def _told(done: service.Registered) -> dict[str, Any]:
    names = ("ref", "revision", "created", "changed", "disabled", "files")
    return {name: getattr(done, name) for name in names}


@packs.route("/packs/<pack:pack>", methods=["GET"])
@needs("viewer", within.PACK)
@packs.response(200, shown_packs.PackSchema)
def get_pack(pack: str) -> dict[str, Any]:
    """A pack with its actions, workflows, rules, sensors, tests and files."""
    with reading() as connection:
        return pack_queries.get_pack(connection, pack)


@packs.route("/packs/<pack:pack>", methods=["DELETE"])
@needs("author", within.PACK)
@packs.response(204)
def delete_pack(pack: str) -> Response:
    """Forget a pack with all that came with it; refused while its workflows are executed."""
    service.delete_pack(control(), pack, person().login)
    return Response(status=204)


@packs.route("/packs/<pack:pack>/files/<path:path>", methods=["GET"])
@needs("viewer", within.PACK)
@packs.response(200, {"type": "string"}, content_type="text/plain")
def get_file(pack: str, path: str) -> Response:
    """One file of a pack as it was registered last, as text."""
    with reading() as connection:
        text = pack_queries.get_file(connection, pack, path)
    return Response(text, mimetype="text/plain")


@packs.route("/packs/<pack:pack>/config", methods=["GET"])
@needs("viewer", within.PACK)
@packs.etag
@packs.response(200, shown_packs.PackConfigSchema)
def get_config(pack: str) -> dict[str, Any]:
    """The keys of a pack's configuration and the values that were set."""
    with reading() as connection:
        found = pack_config.get(connection, pack)
    packs.set_etag(found)
    return found


@packs.route("/packs/<pack:pack>/config", methods=["PUT"])
@needs("author", within.PACK)
@packs.etag
@packs.arguments(asked.ConfigSchema)
@packs.response(200, shown_packs.PackConfigSchema)
def put_config(body: dict[str, Any], pack: str) -> dict[str, Any]:
    """Set the whole configuration of a pack, in place of the one that If-Match names."""
    with reading() as connection:
        known = pack_config.get(connection, pack)
    packs.check_etag(known)
    login, expected = person().login, known["config"]
    if_unchanged(lambda: pack_config.put(control(), pack, body["config"], login, expected=expected))
    with reading() as connection:
        found = pack_config.get(connection, pack)
    packs.set_etag(found)
    return found


@packs.route("/actions", methods=["GET"])
@needs("viewer", within.ANYTHING)
@packs.arguments(asked.ActionsQuery, location="query")
@packs.response(200, shown_packs.ActionsSchema)
def list_actions(query: dict[str, Any]) -> Any:
    """Everything that a task can call, by name: core actions, actions of packs, and workflows."""
    after = paging.behind(query["cursor"], str)
    with reading() as connection:
        found = pack_queries.list_actions(
            connection,
            limit=query["limit"] + 1,
            after=after,
            pack=query["pack"],
            within=partial(scope.actions_of, person()),
        )
    return paging.answer(found, query["limit"], lambda row: [row["ref"]])


@packs.route("/actions/<ref:ref>", methods=["GET"])
@needs("viewer", within.ACTION)
@packs.response(200, shown_packs.ActionSchema)
def get_action(ref: str) -> dict[str, Any]:
    """An action with its parameters."""
    with reading() as connection:
        return pack_queries.get_action(connection, ref)
