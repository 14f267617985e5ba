"""What workflows read while they run: values under keys, and secrets, which nobody reads back."""

from __future__ import annotations

from typing import Any

from flask import Response, jsonify
from flask_smorest import Blueprint
from sqlalchemy import RowMapping

from app.api import asked, paging, shown
from app.api.gate import needs, person
from app.api.strict import Parser
from app.api.unchanged import Known, expected, if_unchanged
from app.api.wiring import control, reading
from app.errors import NotFound
from app.services import kv
from app.services import secrets as service

kept = Blueprint("kept", __name__, description="Values under keys, and secrets.")
kept.ARGUMENTS_PARSER = Parser()

_shown = shown.KeyValueSchema()


@kept.route("/kv", methods=["GET"])
@needs("viewer")
@kept.arguments(asked.KeysQuery, location="query")
@kept.response(200, shown.KeyValuesSchema)
def list_keys(query: dict[str, Any]) -> Any:
    """Keys with their values, in order; `?prefix=` narrows them down."""
    after = paging.behind(query["cursor"], str)
    with reading() as connection:
        found = kv.list_keys(
            connection, control().clock(), limit=query["limit"] + 1, after=after, prefix=query["prefix"]
        )
    return paging.answer(found, query["limit"], lambda row: [row["key"]])


@kept.route("/kv/<key:key>", methods=["GET"])
@needs("viewer")
@kept.etag
@kept.response(200, shown.KeyValueSchema)
def get_key(key: str) -> RowMapping:
    """The value under a key."""
    with reading() as connection:
        found = kv.get(connection, key, control().clock())
    kept.set_etag(_version(found))
    return found


@kept.route("/kv/<key:key>", methods=["PUT"])
@needs("author")
@kept.arguments(asked.SetKeySchema)
@kept.response(200, shown.KeyValueSchema)
@kept.alt_response(201, schema=shown.KeyValueSchema, description="There was nothing under it", success=True)
def put_key(body: dict[str, Any], key: str) -> Response:
    """Keep a value under a key. If-Match, and If-None-Match: *, are heeded."""
    revision = _expected(key)
    created = if_unchanged(
        lambda: kv.put(
            control(),
            key,
            body["value"],
            person().login,
            expires_in=body["expires_in"],
            expected=revision,
        )
    )
    with reading() as connection:
        found = kv.get(connection, key, control().clock())
    response = jsonify(_shown.dump(found))
    response.status_code = 201 if created else 200
    response.set_etag(_tag(found))
    return response


@kept.route("/kv/<key:key>", methods=["DELETE"])
@needs("author")
@kept.response(204)
def delete_key(key: str) -> Response:
    """Forget what is under a key. If-Match is heeded."""
    revision = _expected(key)
    if_unchanged(lambda: kv.remove(control(), key, person().login, expected=revision))
    return Response(status=204)


@kept.route("/secrets", methods=["GET"])
@needs("operator")
@kept.arguments(asked.PageQuery, location="query")
@kept.response(200, shown.SecretsSchema)
def list_secrets(query: dict[str, Any]) -> Any:
    """Names, versions and who may use them; never a value."""
    after = paging.behind(query["cursor"], str)
    with reading() as connection:
        found = service.list_secrets(connection, limit=query["limit"] + 1, after=after)
    return paging.answer(found, query["limit"], lambda row: [row["name"]])


@kept.route("/secrets/<key:name>", methods=["PUT"])
@needs("author")
@kept.arguments(asked.SetSecretSchema)
@kept.response(200, shown.SecretSetSchema)
def put_secret(body: dict[str, Any], name: str) -> dict[str, Any]:
    """Set a secret, and who may use it; the value cannot be read back."""
    found = service.put(control(), name, body["value"], body["users"], person().login)
    return {**found, "warnings": service.warnings_of(body["value"])}


@kept.route("/secrets/<key:name>", methods=["DELETE"])
@needs("author")
@kept.response(204)
def delete_secret(name: str) -> Response:
    """Forget a secret. Jobs that name it fail from then on."""
    service.remove(control(), name, person().login)
    return Response(status=204)


def _expected(key: str) -> int | None:
    def look() -> Known | None:
        with reading() as connection:
            try:
                found = kv.get(connection, key, control().clock())
            except NotFound:
                return None
        return Known(_tag(found), found["revision"])

    return expected(look)


def _version(found: RowMapping) -> dict[str, Any]:
    """What an ETag is made of: a key that was deleted and set again starts at revision 1 again."""
    return {name: found[name] for name in ("key", "revision", "value")}


def _tag(found: RowMapping) -> str:
    tag: str = kept._generate_etag(_version(found))
    return tag
