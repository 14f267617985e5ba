"""Stored workflows."""

from __future__ import annotations

from typing import Any

from flask import Response, jsonify, request, url_for
from flask_smorest import Blueprint
from sqlalchemy import RowMapping
from werkzeug.exceptions import PreconditionFailed

from app.api import asked, definitions, paging, shown, within
from app.api.gate import needs, person
from app.api.strict import Parser
from app.api.unchanged import if_unchanged
from app.api.wiring import control, reading
from app.services import library, pack_queries, scope

workflows = Blueprint("workflows", __name__, description="Stored workflows.")
workflows.ARGUMENTS_PARSER = Parser()

_YAML_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/yaml": {"schema": {"type": "string"}},
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["definition"],
                    "properties": {"definition": {"type": ["string", "object"]}},
                }
            },
        },
    }
}
_shown = shown.WorkflowSchema()


@workflows.route("/packs/<pack:pack>/workflows", methods=["GET"])
@needs("viewer", within.ANYTHING)
@workflows.arguments(asked.PageQuery, location="query")
@workflows.response(200, shown.WorkflowsSchema)
def list_of_pack(query: dict[str, Any], pack: str) -> Any:
    """The workflows of a pack by name."""
    with reading() as connection:
        pack_queries.require(connection, pack)
    return _list(query, pack)


@workflows.route("/workflows", methods=["GET"])
@needs("viewer", within.ANYTHING)
@workflows.arguments(asked.PageQuery, location="query")
@workflows.response(200, shown.WorkflowsSchema)
def list_workflows(query: dict[str, Any]) -> Any:
    """Every stored workflow by name."""
    return _list(query, None)


def _list(query: dict[str, Any], pack: str | None) -> Any:
    after = paging.behind(query["cursor"], str)
    with reading() as connection:
        found = library.list_workflows(
            connection,
            limit=query["limit"] + 1,
            after=after,
            pack=pack,
            within=scope.workflows_of(person()),
        )
    return paging.answer(found, query["limit"], lambda row: [row["ref"]])


@workflows.route("/packs/<pack:pack>/workflows", methods=["POST"])
@needs("author", within.INTO_PACK)
@workflows.doc(**_YAML_BODY)
@workflows.response(201, shown.WorkflowSchema)
@workflows.alt_response(200, schema=shown.WorkflowSchema, description="It was the same text", success=True)
def store_workflow(pack: str) -> Response:
    """Store a workflow as a new revision; the pack is made when it is first used."""
    source = definitions.from_request(request)
    stored = library.store_workflow(control(), pack, source, person().login)
    with reading() as connection:
        found = library.get(connection, stored.ref, stored.revision)
    response = _answer(found, 201 if stored.created else 200)
    response.headers["Location"] = url_for("workflows.get_workflow", ref=stored.ref)
    return response


@workflows.route("/workflows/<ref:ref>", methods=["GET"])
@needs("viewer", within.WORKFLOW)
@workflows.etag
@workflows.arguments(asked.RevisionQuery, location="query")
@workflows.response(200, shown.WorkflowSchema)
def get_workflow(query: dict[str, Any], ref: str) -> RowMapping:
    """A workflow with its source; its newest revision, or the one asked for."""
    with reading() as connection:
        found = library.get(connection, ref, query["revision"])
    workflows.set_etag(_version(found))
    return found


@workflows.route("/workflows/<ref:ref>", methods=["PUT"])
@needs("author", within.WORKFLOW)
@workflows.etag
@workflows.doc(**_YAML_BODY)
@workflows.response(200, shown.WorkflowSchema)
def put_workflow(ref: str) -> Response:
    """Change a workflow: a new revision on top of the one that If-Match names."""
    source = definitions.from_request(request)
    with reading() as connection:
        known = library.get(connection, ref)
    workflows.check_etag(_version(known))
    pack = ref.partition(".")[0]
    stored = if_unchanged(
        lambda: library.store_workflow(
            control(), pack, source, person().login, expected=known["revision"], ref=ref
        )
    )
    with reading() as connection:
        found = library.get(connection, ref, stored.revision)
    workflows.set_etag(_version(found))
    return _answer(found, 200)


@workflows.route("/workflows/<ref:ref>", methods=["DELETE"])
@needs("author", within.WORKFLOW)
@workflows.response(204)
def delete_workflow(ref: str) -> Response:
    """Forget a workflow with all its revisions; refused while it is executed. If-Match is heeded."""
    expected = None
    if request.if_match:
        with reading() as connection:
            known = library.get(connection, ref)
        if _tag(known) not in request.if_match:
            raise PreconditionFailed
        expected = known["revision"]
    if_unchanged(lambda: library.delete_workflow(control(), ref, person().login, expected=expected))
    return Response(status=204)


@workflows.route("/workflows/<ref:ref>/versions", methods=["GET"])
@needs("viewer", within.WORKFLOW)
@workflows.arguments(asked.PageQuery, location="query")
@workflows.response(200, shown.VersionsSchema)
def list_versions(query: dict[str, Any], ref: str) -> Any:
    """The revisions of a workflow, the newest first."""
    before = paging.behind(query["cursor"], int)
    with reading() as connection:
        found = library.list_versions(connection, ref, limit=query["limit"] + 1, before=before)
    return paging.answer(found, query["limit"], lambda row: [row["revision"]])


def _version(found: RowMapping) -> dict[str, Any]:
    """What an ETag is made of: a workflow that was deleted and made again starts at revision 1 again."""
    return {"ref": found["ref"], "revision": found["revision"], "source": found["source"]}


def _tag(found: RowMapping) -> str:
    tag: str = workflows._generate_etag(_version(found))
    return tag


def _answer(found: RowMapping, status: int) -> Response:
    response = jsonify(_shown.dump(found))
    response.status_code = status
    response.set_etag(_tag(found))
    return response
