"""Blobs: the bytes of files, one by one or many as a bundle, for people and for nodes with a pass."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

from flask import Response, jsonify, request
from flask_smorest import Blueprint

from app.api import asked_files, problems, shown_files, transfers, within
from app.api.gate import bearer, needs
from app.api.strict import Parser
from app.api.wiring import control, reading
from app.errors import Conflict
from app.files.bundles import Source
from app.services import blobs as service
from app.services import snapshots
from app.store.blobs.local import unknown

blobs = Blueprint("blobs", __name__, description="Bytes of files by their sha256.")
blobs.ARGUMENTS_PARSER = Parser()
blobs.after_request(transfers.drain)

_BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {transfers.OCTETS: {"schema": transfers.BYTES}}}
}
_stored, _put = shown_files.StoredSchema(), shown_files.PutSchema()


@blobs.route("/blobs/sha256:<sha256:digest>", methods=["GET"])
@needs("viewer", within.ANYTHING, passes=True)
@blobs.arguments(asked_files.BlobPlaceSchema, location="query")
@blobs.response(200, transfers.BYTES, content_type=transfers.OCTETS)
@blobs.alt_response(206, schema=transfers.BYTES, content_type=transfers.OCTETS, success=True)
def get_blob(query: dict[str, Any], digest: str) -> Any:
    """The bytes, or with Range a part of them. Where it is not whole yet, a 404 with `Upload-Offset`."""
    with reading() as connection:
        known = service.sizes(connection, snapshots.readable(connection, bearer(), [digest], **query))
    if digest not in known:
        return transfers.absent(unknown(digest), service.progress(control(), bearer(), digest))
    return transfers.file_of(partial(service.open_blob, control(), digest), known[digest], digest)


@blobs.route("/blobs/sha256:<sha256:digest>", methods=["PUT"])
@needs("operator", within.ANYTHING, passes=True, body="blob_limit")
@blobs.doc(**_BODY)
@blobs.response(201, shown_files.PutSchema)
@blobs.alt_response(202, schema=shown_files.PutSchema, description="A part of it is here", success=True)
def put_blob(digest: str) -> Response:
    """Put a blob whole, or with Content-Range the next part; 409 with the right `Upload-Offset` for another one."""
    part = transfers.part_of()
    try:
        with transfers.seated():
            whole = service.put_part(control(), bearer(), digest, part, cast(Source, request.stream))
    except Conflict as error:
        response = problems.of_error(error)
        response.headers["Upload-Offset"] = str(error.detail.get("offset", ""))
        return response
    offset = part.total if whole else service.progress(control(), bearer(), digest)
    response = jsonify(_put.dump({"digest": digest, "complete": whole, "offset": offset}))
    response.status_code = 201 if whole else 202
    response.headers["Upload-Offset"] = str(offset)
    return response


@blobs.route("/blobs/missing", methods=["POST"])
@needs("operator", within.ANYTHING, passes=True, body="documents_limit")
@blobs.arguments(asked_files.AskMissingSchema)
@blobs.response(200, shown_files.MissingSchema)
def list_missing(body: dict[str, Any]) -> dict[str, Any]:
    """Which of these are to be put before they can be used. The others stay for a day at the least."""
    with reading() as connection:
        known = snapshots.known_of(connection, bearer())
    return {"missing": service.missing(control(), bearer(), body["digests"], known)}


@blobs.route("/blobs/bundle", methods=["POST"])
@needs("operator", within.ANYTHING, passes=True, body="workspace_bytes")
@blobs.doc(**_BODY)
@blobs.response(200, shown_files.StoredSchema)
def put_bundle() -> Response:
    """Put many blobs as one zstd stream of frames: 32 bytes of sha256, 8 of the size, the bytes; then 40 zeros."""
    with transfers.seated():
        stored = service.put_bundle(control(), bearer(), cast(Source, request.stream))
    return jsonify(_stored.dump(stored))


@blobs.route("/blobs/fetch", methods=["POST"])
@needs("viewer", within.ANYTHING, passes=True, body="documents_limit")
@blobs.arguments(asked_files.FetchBlobsSchema)
@blobs.response(200, transfers.BYTES, content_type=transfers.OCTETS)
def fetch(body: dict[str, Any]) -> Response:
    """Many blobs as one bundle, of the form in which they are put."""
    digests = body.pop("digests")
    with reading() as connection:
        mine = snapshots.readable(connection, bearer(), digests, **body)
    for digest in digests:
        if digest not in mine:
            raise unknown(digest)
    return transfers.outgoing(service.bundle_of(control(), digests))
