"""Saved scripts and their versions."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from flask import Response, jsonify, request, url_for
from flask_smorest import Blueprint
from werkzeug.exceptions import PreconditionFailed

from app.api import asked, asked_scripts, paging, shown_scripts, within
from app.api.gate import needs, person
from app.api.strict import Parser
from app.api.unchanged import if_unchanged
from app.api.wiring import control, reading
from app.errors import NotFound
from app.services import features, script_drafts
from app.services import scripts as service
from app.services.script_drafts import Draft
from app.services.scripts import CREATED, Saved
from app.store.scripts import SavedScript

scripts = Blueprint("scripts", __name__, description="Saved scripts and their versions.")
scripts.ARGUMENTS_PARSER = Parser()

_saved = shown_scripts.ScriptSavedSchema()


@scripts.route("/automation/scripts", methods=["POST"])
@needs("author", within.SCRIPTS)
@scripts.arguments(asked_scripts.ScriptSchema)
@scripts.response(201, shown_scripts.ScriptSavedSchema)
@scripts.alt_response(
    200, schema=shown_scripts.ScriptSavedSchema, description="It was there before", success=True
)
def save_script(draft: Draft) -> Response:
    """Create a script, or change it: a new version if what it does is another. If-Match and If-None-Match: * count."""
    expected = _expected(draft.name)
    return _answer(if_unchanged(lambda: service.save(control(), draft, person().login, expected=expected)))


@scripts.route("/automation/scripts/check", methods=["POST"])
@needs("author", within.SCRIPTS)
@scripts.arguments(asked_scripts.ScriptSchema)
@scripts.response(200, shown_scripts.ScriptCheckedSchema)
def check_script(draft: Draft) -> dict[str, Any]:
    """What would be said of a script, which is not saved."""
    features.need(control().settings, features.LIBRARY)
    return {"warnings": script_drafts.check(draft).warnings}


@scripts.route("/automation/scripts", methods=["GET"])
@needs("viewer", within.SCRIPTS)
@scripts.arguments(asked_scripts.ScriptsQuery, location="query")
@scripts.response(200, shown_scripts.ScriptListSchema)
def list_scripts(query: dict[str, Any]) -> Any:
    """Scripts in their newest versions, by name; `?prefix=` and `?tag=` narrow them down."""
    features.need(control().settings, features.LIBRARY)
    after = paging.behind(query["cursor"], str)
    with reading() as connection:
        found = service.list_scripts(
            connection, limit=query["limit"] + 1, after=after, prefix=query["prefix"], tag=query["tag"]
        )
    return paging.answer([asdict(one) for one in found], query["limit"], lambda row: [row["name"]])


@scripts.route("/automation/scripts/<script:id>", methods=["GET"])
@needs("viewer", within.SCRIPTS)
@scripts.etag
@scripts.response(200, shown_scripts.ScriptShownSchema)
def get_script(id: str) -> SavedScript:
    """A script in its newest version, by its id or its name."""
    found = _get(id)
    scripts.set_etag(_version(found))
    return found


@scripts.route("/automation/scripts/<script:id>", methods=["DELETE"])
@needs("author", within.SCRIPTS)
@scripts.response(204)
def delete_script(id: str) -> Response:
    """Forget a script with all its versions; executions keep what they ran. If-Match is heeded."""
    expected = _expected(id)
    if_unchanged(lambda: service.remove(control(), id, person().login, expected=expected))
    return Response(status=204)


@scripts.route("/automation/scripts/<script:id>/versions", methods=["GET"])
@needs("viewer", within.SCRIPTS)
@scripts.arguments(asked.PageQuery, location="query")
@scripts.response(200, shown_scripts.ScriptVersionsSchema)
def list_versions(query: dict[str, Any], id: str) -> Any:
    """The versions of a script, the newest first."""
    features.need(control().settings, features.LIBRARY)
    before = paging.behind(query["cursor"], int)
    with reading() as connection:
        found = service.list_versions(connection, id, limit=query["limit"] + 1, before=before)
    return paging.answer(found, query["limit"], lambda row: [row["version"]])


@scripts.route("/automation/scripts/<script:id>/versions/<number:number>", methods=["GET"])
@needs("viewer", within.SCRIPTS)
@scripts.response(200, shown_scripts.ScriptShownSchema)
def get_version(id: str, number: int) -> SavedScript:
    """One version of a script."""
    return _get(id, number)


@scripts.route("/automation/scripts/<script:id>/versions/<number:old>/diff/<number:new>", methods=["GET"])
@needs("viewer", within.SCRIPTS)
@scripts.response(200, shown_scripts.ScriptDiffSchema)
def diff_versions(id: str, old: int, new: int) -> dict[str, Any]:
    """What changed from one version to another."""
    features.need(control().settings, features.LIBRARY)
    with reading() as connection:
        return service.diff(connection, id, old, new)


@scripts.route("/automation/scripts/<script:id>/rollback", methods=["POST"])
@needs("author", within.SCRIPTS)
@scripts.arguments(asked_scripts.RollbackSchema)
@scripts.response(200, shown_scripts.ScriptSavedSchema)
def rollback(body: dict[str, Any], id: str) -> Response:
    """Make what an older version did a new version. If-Match is heeded."""
    expected = _expected(id)
    back = if_unchanged(
        lambda: service.rollback(control(), id, body["version"], person().login, expected=expected)
    )
    return _answer(back)


def _get(script: str, version: int | None = None) -> SavedScript:
    features.need(control().settings, features.LIBRARY)
    with reading() as connection:
        return service.get(connection, script, version)


def _answer(saved: Saved) -> Response:
    script = {**asdict(saved.script), "change": saved.change, "warnings": saved.warnings}
    response = jsonify(_saved.dump(script))
    response.status_code = 201 if saved.change == CREATED else 200
    response.headers["Location"] = url_for("scripts.get_script", id=saved.script.id)
    response.set_etag(_tag(saved.script))
    return response


def _expected(script: str) -> int | None:
    """The revision that the caller's If-Match or If-None-Match is about; None where there is neither."""
    if not request.if_match and not request.if_none_match:
        return None
    try:
        known = _get(script)
    except NotFound:
        known = None
    if request.if_match:
        if known is None or not (request.if_match.star_tag or _tag(known) in request.if_match):
            raise PreconditionFailed
        return known.revision
    if known is not None and (request.if_none_match.star_tag or _tag(known) in request.if_none_match):
        raise PreconditionFailed
    return service.NEVER if known is None else known.revision


def _version(found: SavedScript) -> dict[str, Any]:
    """What an ETag is made of: a script that was deleted and made again has another id."""
    return {"id": found.id, "revision": found.revision}


def _tag(found: SavedScript) -> str:
    tag: str = scripts._generate_etag(_version(found))
    return tag
