"""Workspaces of executions: their snapshots, what each job did to them, and the files that tasks keep."""

from __future__ import annotations

from functools import partial
from typing import Any
from urllib.parse import quote

from flask import Response, request
from flask_smorest import Blueprint

from app.api import asked_files, paging, shown_files, strict, transfers, within
from app.api.gate import bearer, needs
from app.api.strict import Parser
from app.api.wiring import control, reading
from app.services import artifacts, blobs, snapshots
from app.services import workspace_steps as service
from app.store import snapshots as states

workspaces = Blueprint("workspaces", __name__, description="Files of executions.")
workspaces.ARGUMENTS_PARSER = Parser()
workspaces.after_request(transfers.drain)

_MANIFEST: dict[str, Any] = {"type": "object"}
_BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": _MANIFEST}}}
}


@workspaces.route("/snapshots", methods=["POST"])
@needs("operator", within.ANYTHING, body="documents_limit")
@workspaces.doc(**_BODY)
@workspaces.response(200, shown_files.PostedSchema)
def post_snapshot() -> dict[str, Any]:
    """Say what a directory holds, by its manifest in canonical form; the answer tells which blobs are to be put."""
    digest, missing = snapshots.post(control(), bearer(), strict.raw_body(request))
    return {"digest": digest, "missing": missing}


@workspaces.route("/snapshots/<sha256:digest>", methods=["GET"])
@needs("viewer", within.ANYTHING, passes=True)
@workspaces.arguments(asked_files.SnapshotQuery, location="query")
@workspaces.response(200, _MANIFEST)
def get_snapshot(query: dict[str, Any], digest: str) -> Any:
    """The manifest of a snapshot. Whoever's role is bounded names an execution that it belongs to, or posted it."""
    with reading() as connection:
        if not snapshots.may_see(connection, bearer(), digest, query["execution"]):
            raise snapshots.unknown(digest)
        found = states.load(connection, digest)
    response = Response(found.to_bytes(), content_type="application/json")
    response.set_etag(digest)
    return response.make_conditional(request)


@workspaces.route("/workflow-executions/<ulid:id>/workspace", methods=["GET"])
@needs("viewer", within.EXECUTION)
@workspaces.arguments(asked_files.StepsQuery, location="query")
@workspaces.response(200, shown_files.WorkspaceSchema)
def get_workspace(query: dict[str, Any], id: str) -> Any:
    """The state of an execution's files, and what each job did to them, in order."""
    limit, after = query["limit"], paging.behind(query["cursor"], int)
    with reading() as connection:
        state = service.state(connection, id)
        steps = service.list_steps(connection, id, limit=limit + 1, after=after, paths=query["paths"])
    page, status, headers = paging.answer(steps, limit, lambda row: [row["seq"]])
    return {**state, "steps": page["items"], "next_cursor": page["next_cursor"]}, status, headers


@workspaces.route("/workflow-executions/<ulid:id>/artifacts", methods=["GET"])
@needs("viewer", within.EXECUTION)
@workspaces.arguments(asked_files.ArtifactsQuery, location="query")
@workspaces.response(200, shown_files.ArtifactsSchema)
def list_artifacts(query: dict[str, Any], id: str) -> Any:
    """The files that its tasks keep for people, and what failed tasks had changed."""
    limit, after = query.pop("limit"), paging.behind(query.pop("cursor"), str)
    with reading() as connection:
        found = artifacts.list_artifacts(connection, id, limit=limit + 1, after=after, **query)
    return paging.answer(found, limit, lambda row: [row["id"]])


@workspaces.route("/workflow-executions/<ulid:id>/artifacts/<ulid:artifact>", methods=["GET"])
@needs("viewer", within.EXECUTION)
@workspaces.response(200, transfers.BYTES, content_type=transfers.OCTETS)
@workspaces.alt_response(206, schema=transfers.BYTES, content_type=transfers.OCTETS, success=True)
def get_artifact(id: str, artifact: str) -> Response:
    """The bytes of an artifact, or with Range a part of them."""
    with reading() as connection:
        found = artifacts.get(connection, id, artifact)
    opened = partial(blobs.open_blob, control(), found["sha256"])
    response = transfers.file_of(opened, found["size"], found["sha256"])
    name = quote(found["path"].rpartition("/")[2])
    response.headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{name}"
    return response
