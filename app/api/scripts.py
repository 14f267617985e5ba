"""Saved scripts, and what they were before."""

from __future__ import annotations

from typing import Any

from flask import Response, jsonify, url_for
from flask_smorest import Blueprint

from app.api import asked, asked_scripts, paging, shown_scripts, within
from app.api.gate import needs, person
from app.api.strict import Parser
from app.api.unchanged import Known, expected, if_unchanged
from app.api.wiring import control, reading
from app.language.script_form import Form
from app.services import script_queries
from app.services import scripts as service
from app.services.scripts import Saved
from app.store.scripts import SavedScript, load

scripts = Blueprint("scripts", __name__, description="Saved scripts.")
scripts.ARGUMENTS_PARSER = Parser()

_ROUTE = "/automation/scripts"
_shown = shown_scripts.ScriptSavedSchema()
_ALSO = {"schema": shown_scripts.ScriptSavedSchema, "success": True}


@scripts.route(_ROUTE, methods=["GET"])
@needs("viewer", within.SCRIPTS)
@scripts.arguments(asked_scripts.ScriptsQuery, location="query")
@scripts.response(200, shown_scripts.ScriptsSchema)
def list_scripts(query: dict[str, Any]) -> Any:
    """Saved scripts by name, without their bodies."""
    after = paging.behind(query["cursor"], str)
    with reading() as connection:
        found = script_queries.list_scripts(
            connection,
            control().settings,
            limit=query["limit"] + 1,
            after=after,
            prefix=query["prefix"],
            tag=query["tag"],
        )
    return paging.answer(found, query["limit"], lambda row: [row["name"]])


@scripts.route(_ROUTE, methods=["POST"])
@needs("author", within.SCRIPTS)
@scripts.arguments(asked_scripts.SaveScriptSchema)
@scripts.response(201, shown_scripts.ScriptSavedSchema)
@scripts.alt_response(200, description="It was there already", **_ALSO)
def save_script(body: dict[str, Any]) -> Response:
    """Make a script, or change the one of this name or `id`. If-Match, and If-None-Match: *, are heeded."""
    form: Form = body["form"]
    revision = _expected(body["script"] or form.name)
    saved = if_unchanged(
        lambda: service.save(control(), form, person().login, script=body["script"], expected=revision)
    )
    return _answer(saved)


@scripts.route(f"{_ROUTE}/check", methods=["POST"])
@needs("viewer", within.SCRIPTS)
@scripts.arguments(asked_scripts.ScriptSchema)
@scripts.response(200, shown_scripts.ScriptCheckedSchema)
def check_script(form: Form) -> dict[str, Any]:
    """What saving a script would say; nothing is stored."""
    return {"warnings": script_queries.check(control(), form)}


@scripts.route(f"{_ROUTE}/<script:id>", methods=["GET"])
@needs("viewer", within.SCRIPTS)
@scripts.etag
@scripts.response(200, shown_scripts.SavedScriptSchema)
def get_script(id: str) -> SavedScript:
    """A script by its id or name, in its newest version."""
    with reading() as connection:
        found = script_queries.get(connection, control().settings, id)
    scripts.set_etag(_version(found))
    return found


@scripts.route(f"{_ROUTE}/<script:id>", methods=["DELETE"])
@needs("author", within.SCRIPTS)
@scripts.response(204)
def delete_script(id: str) -> Response:
    """Forget a script with all its versions; executions keep what they ran. If-Match is heeded."""
    revision = _expected(id)
    if_unchanged(lambda: service.remove(control(), id, person().login, expected=revision))
    return Response(status=204)


@scripts.route(f"{_ROUTE}/<script:id>/versions", methods=["GET"])
@needs("viewer", within.SCRIPTS)
@scripts.arguments(asked.PageQuery, location="query")
@scripts.response(200, shown_scripts.ScriptVersionsSchema)
def list_versions(query: dict[str, Any], id: str) -> Any:
    """The versions of a script, the newest first."""
    before = paging.behind(query["cursor"], int)
    with reading() as connection:
        found = script_queries.list_versions(
            connection, control().settings, id, limit=query["limit"] + 1, before=before
        )
    return paging.answer(found, query["limit"], lambda row: [row["version"]])


@scripts.route(f"{_ROUTE}/<script:id>/versions/<version:n>", methods=["GET"])
@needs("viewer", within.SCRIPTS)
@scripts.response(200, shown_scripts.SavedScriptSchema)
def get_version(id: str, n: int) -> SavedScript:
    """A script as it was in one version."""
    with reading() as connection:
        return script_queries.get(connection, control().settings, id, n)


@scripts.route(f"{_ROUTE}/<script:id>/versions/<version:a>/diff/<version:b>", methods=["GET"])
@needs("viewer", within.SCRIPTS)
@scripts.response(200, shown_scripts.ScriptDiffSchema)
def diff_versions(id: str, a: int, b: int) -> dict[str, Any]:
    """What changed from one version to another."""
    with reading() as connection:
        found = script_queries.difference(connection, control().settings, id, a, b)
    others = {
        name: {"old": getattr(found.old, name), "new": getattr(found.new, name)}
        for name in found.changed
        if name != "body"
    }
    return {
        "id": found.new.id,
        "name": found.new.name,
        "old": a,
        "new": b,
        "changed": found.changed,
        "fields_": others,
        "diff": found.text,
    }


@scripts.route(f"{_ROUTE}/<script:id>/rollback", methods=["POST"])
@needs("author", within.SCRIPTS)
@scripts.arguments(asked_scripts.RollbackSchema)
@scripts.response(200, shown_scripts.ScriptSavedSchema)
def roll_back(body: dict[str, Any], id: str) -> Response:
    """Make a new version that runs what an old one ran. If-Match is heeded."""
    revision = _expected(id)
    saved = if_unchanged(
        lambda: service.roll_back(control(), id, body["version"], person().login, expected=revision)
    )
    return _answer(saved)


def _expected(script: str) -> int | None:
    def look() -> Known | None:
        with reading() as connection:
            found = load(connection, script)
        return None if found is None else Known(_tag(found), found.revision)

    return expected(look)


def _version(found: SavedScript) -> dict[str, Any]:
    """What an ETag is made of: one that was deleted and made again has another id."""
    return {"id": found.id, "revision": found.revision}


def _tag(found: SavedScript) -> str:
    tag: str = scripts._generate_etag(_version(found))
    return tag


def _answer(saved: Saved) -> Response:
    with reading() as connection:
        found = script_queries.get(connection, control().settings, saved.id, saved.version)
    result = "created" if saved.is_new else "updated" if saved.changed else "unchanged"
    told = {"result": result, "changed": saved.changed, "warnings": saved.warnings}
    fields = SavedScript.__dataclass_fields__
    response = jsonify(_shown.dump({**{name: getattr(found, name) for name in fields}, **told}))
    response.status_code = 201 if saved.is_new else 200
    response.set_etag(_tag(found))
    response.headers["Location"] = url_for("scripts.get_script", id=saved.id)
    return response
