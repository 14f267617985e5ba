"""JSON as it may come in: bounded in depth, without NaN, repeated names, NUL or lone surrogates.

Python's own reader takes all of these. PostgreSQL then refuses them with five kinds of errors, SQLite stores them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any, ClassVar, NoReturn

from flask import Request
from flask.json.provider import DefaultJSONProvider
from marshmallow import RAISE, Schema, ValidationError
from webargs.core import missing
from webargs.flaskparser import FlaskParser
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType

from app import marks
from app.errors import InvalidInput
from app.language.problems import nearest
from app.language.scalars import LARGEST

DEPTH = 64
_LONGEST_NUMBER = 64
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[\]{},:]|[^\s"\[\]{},:]+', re.DOTALL)
_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[\]{}]', re.DOTALL)
_CONSTANTS = ("NaN", "Infinity", "-Infinity")


class BadJson(InvalidInput):
    """A body that is no JSON, or none that we take. `errors` says where."""

    code = "bad-json"
    status = 400


class _Refused(ValueError):
    """Raised inside of the reader, which does not know where it is; `where` finds out."""

    def __init__(self, reason: str, what: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.what = what


def loads(raw: bytes) -> Any:
    """The value of a JSON text in UTF-8. Raises BadJson with line and column, or with a pointer."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8", "replace")
        raise _bad("the body is not UTF-8", "send it as UTF-8", **_place(before, len(before))) from None
    _check_depth(text)
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_bounded,
        )
    except _Refused as error:
        raise _bad(error.reason, "leave it out, or send it as a text", **_where(text, error.what)) from None
    except json.JSONDecodeError as error:
        hint = "send a JSON value" if text.strip() else "send a JSON object, or no body at all"
        raise _bad(
            f"the body is not JSON: {error.msg}", hint, line=error.lineno, column=error.colno
        ) from None
    if "\\u" in text:
        _check_texts(value)
    return value


def _bad(detail: str, hint: str, **place: Any) -> BadJson:
    return BadJson(detail, hint=hint, errors=[{"detail": detail, "hint": hint, **place}])


def _check_depth(text: str) -> None:
    depth = 0
    for found in _BRACKET.finditer(text):
        bracket = found[0]
        if bracket in "[{":
            depth += 1
            if depth > DEPTH:
                raise _bad(
                    f"the body is nested deeper than {DEPTH} levels",
                    "make it flatter",
                    **_place(text, found.start()),
                )
        elif bracket in "]}":
            depth -= 1


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _Refused(f"the name {name[:80]!r} stands twice in one object", json.dumps(name))
            seen.add(name)
    return found


def _no_constant(name: str) -> NoReturn:
    raise _Refused(f"{name} is no JSON value", name)


def _finite(text: str) -> float:
    value = float(text) if len(text) <= _LONGEST_NUMBER else float("inf")
    if value in (float("inf"), float("-inf")):
        raise _Refused(f"the number {text[:40]} is too large", text)
    return value


def _bounded(text: str) -> int:
    if len(text) > _LONGEST_NUMBER or abs(int(text)) > LARGEST:
        raise _Refused(f"the number {text[:40]} is too large", text)
    return int(text)


def _where(text: str, what: str) -> dict[str, int]:
    """Where a token stands: for a repeated name the second time that it names something in one object."""
    names: list[set[str]] = []
    tokens = list(_TOKEN.finditer(text))
    for token, following in zip(tokens, [*tokens[1:], None], strict=True):
        word = token[0]
        if word == "{":
            names.append(set())
        elif word == "}":
            names.pop()
        elif word.startswith('"') and following is not None and following[0] == ":":
            name = json.dumps(json.loads(word, strict=False))
            if name == what and name in names[-1]:
                return _place(text, token.start())
            names[-1].add(name)
        elif word == what and not word.startswith('"'):
            return _place(text, token.start())
    return {}


def _place(text: str, position: int) -> dict[str, int]:
    before = text[:position]
    return {"line": before.count("\n") + 1, "column": len(before) - (before.rfind("\n") + 1) + 1}


def _check_texts(value: Any) -> None:
    for pointer, text in _texts(value, ""):
        if "\0" in text:
            raise _bad("a text holds the character NUL", "remove it", pointer=_shown(pointer))
        if any("\ud800" <= character <= "\udfff" for character in text):
            detail = "a text holds half of a surrogate pair, which is no character"
            raise _bad(detail, "send the whole character", pointer=_shown(pointer))


def _texts(value: Any, pointer: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield pointer, value
    elif isinstance(value, dict):
        for name, one in value.items():
            at = f"{pointer}/{escaped(name)}"
            yield at, name
            yield from _texts(one, at)
    elif isinstance(value, list):
        for index, one in enumerate(value):
            yield from _texts(one, f"{pointer}/{index}")


def escaped(name: str) -> str:
    """A name as a step of a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1")


def _shown(pointer: str) -> str:
    """A pointer that any JSON reader and any database takes."""
    return pointer.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")[:200]


class StrictJson(DefaultJSONProvider):
    """What Flask itself reads JSON with; writing is Flask's own, in the order given, without marks."""

    sort_keys = False

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        text = super().dumps(obj, **kwargs)
        # No row that is answered with should hold a mark; whatever does, shows what it stands for.
        return super().dumps(marks.shown(json.loads(text)), **kwargs) if "\\ufdd" in text else text

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        return loads(s.encode("utf-8", "surrogatepass") if isinstance(s, str) else s)


def is_json(request: Request) -> bool:
    """Whether the body says that it is JSON in UTF-8."""
    charset = request.mimetype_params.get("charset", "utf-8").lower()
    return request.mimetype == "application/json" and charset in ("utf-8", "utf8", "us-ascii")


def raw_body(request: Request) -> bytes:
    """The bytes of the body. Raises RequestEntityTooLarge."""
    raw = request.get_data(cache=True)
    # A body in chunks does not say how long it is, and werkzeug ends it at the limit without a word.
    if request.content_length is None and len(raw) >= (request.max_content_length or len(raw) + 1):
        raise RequestEntityTooLarge
    return raw


def body_of(request: Request) -> Any:
    """The JSON value of the body; no body at all counts as {}. Raises BadJson, UnsupportedMediaType."""
    raw = raw_body(request)
    if not raw and not request.mimetype:
        return {}
    if not is_json(request):
        raise UnsupportedMediaType("send the body as application/json, in UTF-8")
    return loads(raw) if raw else {}


@cache
def _one(schema: type[Schema]) -> Schema:
    return schema()


class Parser(FlaskParser):
    """Arguments of a request, read strictly; what is wrong with them is InvalidInput."""

    DEFAULT_VALIDATION_STATUS = 422
    # A misspelled filter that is ignored would answer another question.
    DEFAULT_UNKNOWN_BY_LOCATION: ClassVar[dict[str, str | None]] = {
        **FlaskParser.DEFAULT_UNKNOWN_BY_LOCATION,
        "query": RAISE,
    }

    def _get_schema(self, argmap: Any, req: Request) -> Schema:
        # Made once: to make one takes longer than to read a request with it.
        return _one(argmap) if isinstance(argmap, type) else super()._get_schema(argmap, req)

    def _raw_load_json(self, req: Request) -> Any:
        value = body_of(req)
        return missing if value is None else value

    def handle_error(self, error: ValidationError, req: Any, schema: Any, **options: Any) -> NoReturn:
        """Raises InvalidInput with a pointer for each field that is wrong."""
        messages = error.messages if isinstance(error.messages, dict) else {"json": error.messages}
        errors = [
            {"pointer": pointer or "", **_told(pointer, detail, schema)}
            for location, found in messages.items()
            for pointer, detail in _flat(found, "?" if location == "query" else "", location)
        ]
        first = errors[0]
        place = f"{first['pointer']}: " if first["pointer"] else ""
        more = f" (and {len(errors) - 1} more)" if errors[1:] else ""
        raise InvalidInput(
            f"{place}{first['detail']}{more}",
            hint=first.get("hint", ""),
            code="invalid-request",
            errors=errors,
        )


def _told(pointer: str, detail: str, schema: Any) -> dict[str, str]:
    if detail != "Unknown field.":
        return {"detail": detail}
    name = pointer.lstrip("?/").rpartition("/")[2]
    known = [field.data_key or key for key, field in schema.fields.items()]
    near = nearest(name[:100], known)
    hint = f"did you mean `{near}`?" if near else f"known here: {', '.join(known) or 'nothing'}"
    return {"detail": "this is not known", "hint": hint}


def _flat(messages: Any, pointer: str, location: str) -> Iterator[tuple[str, str]]:
    if isinstance(messages, dict):
        for name, one in messages.items():
            if name == "_schema":
                yield from _flat(one, pointer, location)
            elif location == "query":
                yield from _flat(one, f"?{_shown(str(name))}", "")
            else:
                yield from _flat(one, f"{pointer}/{_shown(escaped(str(name)))}", location)
    elif isinstance(messages, list):
        for one in messages:
            yield from _flat(one, pointer, location)
    else:
        yield pointer, str(messages)
