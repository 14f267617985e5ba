"""The text of a workflow as requests bring it: YAML, YAML inside of JSON, or a JSON object of the same form."""

from __future__ import annotations

import json
from typing import Any

from flask import Request
from werkzeug.exceptions import UnsupportedMediaType

from app.api import asked
from app.api.strict import Parser, raw_body
from app.errors import InvalidInput

YAML_TYPES = ("application/yaml", "text/yaml", "application/x-yaml", "text/x-yaml")

_parser = Parser()
_stored = asked.StoreSchema()


def text_of(definition: str | dict[str, Any]) -> str:
    """The text to read and to keep. JSON is YAML, so an object is its JSON text."""
    if isinstance(definition, str):
        return definition
    return json.dumps(definition, ensure_ascii=False, indent=2) + "\n"


def from_request(request: Request) -> str:
    """The text in a body of YAML or JSON. Raises InvalidInput, UnsupportedMediaType."""
    if request.mimetype in YAML_TYPES:
        return _yaml(raw_body(request))
    if request.mimetype != "application/json":
        raise UnsupportedMediaType(f"send the workflow as {YAML_TYPES[0]} or application/json")
    body = _parser.parse(_stored, request)
    return text_of(body["definition"])


def _yaml(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8", "replace")
        detail, hint = "the text is not UTF-8", "save it as UTF-8"
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        place = {"line": line, "column": column, "detail": detail, "hint": hint}
        raise InvalidInput(detail, hint=hint, code="bad-encoding", errors=[place]) from None
