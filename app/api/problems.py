"""Every refusal as problem+json (RFC 9457), with no inside of the server in it."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from flask import Flask, Response, current_app, request
from flask_smorest import Api
from flask_smorest.utils import prepare_response
from marshmallow import Schema, fields
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException

from app.errors import MusterError
from app.settings import Settings, environment_name

log = logging.getLogger(__name__)

PROBLEM = "application/problem+json"
TYPE = "urn:muster:problem:"
_ERROR_KEYS = {"path": "pointer", "message": "detail"}
_ERROR_FIELDS = ("file", "pointer", "detail", "hint", "line", "column", "code", "severity")


class ProblemErrorSchema(Schema):
    """One of the things that are wrong, with its place."""

    pointer = fields.String(
        metadata={"description": "JSON pointer into the body; `?name` for a query parameter"}
    )
    detail = fields.String(required=True)
    hint = fields.String()
    file = fields.String()
    line = fields.Integer()
    column = fields.Integer()
    code = fields.String()
    severity = fields.String()


class ProblemSchema(Schema):
    """RFC 9457, with the stable `code` and a `hint` that says what to do next."""

    type = fields.String(required=True)
    title = fields.String(required=True)
    status = fields.Integer(required=True)
    detail = fields.String()
    instance = fields.String()
    code = fields.String(required=True)
    hint = fields.String()
    errors = fields.List(fields.Nested(ProblemErrorSchema))


class ProblemApi(Api):
    """flask-smorest's API that answers and documents errors as problem+json."""

    ERROR_SCHEMA = ProblemSchema

    def handle_http_exception(self, error: HTTPException) -> Response:
        return of_http(error)

    def _register_responses(self) -> None:
        for status in HTTPStatus:
            has_body = status >= 200 and status not in (204, 304)
            self._document(status.name, status.phrase, has_body)
        self._document(self.DEFAULT_ERROR_RESPONSE_NAME, "What went wrong", True)

    def _document(self, name: str, description: str, has_body: bool) -> None:
        response: dict[str, Any] = {"description": description}
        if has_body:
            response["schema"] = self.ERROR_SCHEMA
        prepare_response(response, self.spec, PROBLEM)
        self.spec.components.response(name, response, lazy=True)


def register(app: Flask) -> None:
    """Answer our own errors, those of the database and the unexpected ones; the API answers HTTP's."""
    app.register_error_handler(MusterError, of_error)
    for kind in (OperationalError, InterfaceError, PoolTimeout):
        app.register_error_handler(kind, _of_database)
    app.register_error_handler(Exception, _of_surprise)


def of_error(error: MusterError) -> Response:
    errors = [_entry(one) for one in error.detail.get("errors", ()) if isinstance(one, dict)]
    return problem(error.status, error.code, error.message, hint=error.hint, errors=errors)


def _entry(one: dict[str, Any]) -> dict[str, Any]:
    renamed = {_ERROR_KEYS.get(name, name): value for name, value in one.items()}
    if str(renamed.get("file", "")).startswith("<"):
        del renamed["file"]  # the only text that was sent
    return {name: renamed[name] for name in _ERROR_FIELDS if renamed.get(name) not in (None, "")}


def of_http(error: HTTPException) -> Response:
    """What werkzeug, Flask and flask-smorest refuse."""
    if error.code is None or error.response is not None:
        return Response(status=500) if error.response is None else error.response  # type: ignore[return-value]
    if error.code == 304:
        return Response(status=304)
    detail, hint = _HTTP.get(error.code, (error.description or "", ""))
    if error.code == 413:
        hint = f"keep it below the limit ({_limit()})"
    if error.code == 415 and error.description:
        detail = error.description
    response = problem(error.code, HTTPStatus(error.code).phrase.lower().replace(" ", "-"), detail, hint=hint)
    for name, value in error.get_headers():
        if name.lower() in ("allow", "retry-after"):
            response.headers[name] = value
    return response


def _limit() -> str:
    """The setting that bounds the body of the route that was asked for."""
    view = current_app.view_functions.get(request.endpoint or "")
    name = getattr(view, "muster_body", "body_limit")
    return environment_name(name if name in Settings.__dataclass_fields__ else "body_limit")


_HTTP = {
    400: ("the request cannot be read", "check its form"),
    404: ("there is nothing at this path", "is the name or id right? /api/v1/openapi.json lists the paths"),
    405: ("this method is not for this path", "the header Allow lists those that are"),
    412: ("it was changed since you read it", "read it again, and repeat the change with its new ETag"),
    413: ("the body is too large", ""),
    428: ("say which state you change", "read it, and send its ETag as If-Match"),
}


def _of_database(error: Exception) -> Response:
    log.error("the database does not answer: %s", type(error).__name__, exc_info=error)
    return problem(503, "database-unavailable", "the database does not answer", hint="try again in a moment")


def _of_surprise(error: Exception) -> Response:
    # The edge of the API: whatever was not foreseen is logged whole and answered without any of it.
    log.error("%s %s failed", request.method, ascii(request.path), exc_info=error)
    return problem(500, "internal", "something failed inside of Muster", hint="the log of the API says what")


def problem(
    status: int, code: str, detail: str, *, hint: str = "", errors: list[Any] | None = None
) -> Response:
    """A response; empty fields are left out."""
    body: dict[str, Any] = {
        "type": TYPE + code,
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
        "instance": quote(request.path),
    }
    if hint:
        body["hint"] = hint
    if errors:
        body["errors"] = errors
    response = current_app.response_class(
        current_app.json.dumps(body) + "\n", status=status, mimetype=PROBLEM
    )
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="muster"'
    return response
