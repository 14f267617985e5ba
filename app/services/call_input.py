"""The inputs of calls, rendered: what may be asked, and what of the answer a workflow sees."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from app.errors import InvalidInput
from app.language.shelltext import value_text
from app.transport.fetch import Request, Response
from app.transport.messages import canonical
from app.transport.wires import HEADER_BYTES

LONGEST: Final = 3600.0
"""Seconds that a request may take at the most: it holds a thread."""

MONTH: Final = 30 * 86400.0
"""Seconds that a foreign task may take at the most: it holds nothing."""

DEPTH: Final = 64
"""Levels of a JSON value that comes from outside."""

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,200}")
_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
_OURS = frozenset({"host", "content-length", "transfer-encoding", "connection", "te", "upgrade", "expect"})
_GOOD = frozenset(range(200, 300))
# Only charsets of text: of Python's other codecs some refuse "replace", and one takes minutes for a megabyte.
_CHARSET = re.compile(
    r"charset=\"?((?:utf|us-ascii|ascii|iso-8859|latin|windows|cp|koi8|iso-2022|euc|gb|big5|shift|mac|tis)"
    r"[A-Za-z0-9._:-]{0,30})",
    re.I,
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, the statuses that count as success, and the seconds that it may take."""

    request: Request
    expected: frozenset[int]
    seconds: float


def read(given: Mapping[str, Any], *, seconds: float, limit: int) -> Asked:
    """From a rendered input. `seconds` are for a request that names none, `limit` bounds the body in bytes.

    Raises InvalidInput.
    """
    body, kind = _body(given, limit)
    headers = _headers(given.get("headers") or {})
    if kind and not any(name.lower() == "content-type" for name in headers):
        headers["Content-Type"] = kind
    wanted = given.get("expected_status")
    expected = _GOOD if wanted is None else _statuses(wanted)
    method = str(given.get("method") or "GET")
    final = frozenset() if wanted is None else expected
    request = Request(str(given.get("url") or ""), method, headers, body, final)
    return Asked(request, expected, seconds_of(given.get("timeout"), seconds, LONGEST))


def seconds_of(value: Any, otherwise: float, most: float) -> float:
    """`timeout` of an input, which a template may have given as text. Raises InvalidInput."""
    if value is None:
        return otherwise
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = 0.0
    if isinstance(value, bool) or not 0 < found <= most:
        raise InvalidInput(f"timeout must be a number of seconds up to {most:g}, got {str(value)[:80]!r}")
    return found


def is_shallow(value: Any) -> bool:
    """Whether a JSON value is nested no deeper than what workflows compute with."""
    level: list[Any] = [value]
    for _ in range(DEPTH):
        level = [
            part
            for one in level
            if isinstance(one, dict | list)
            for part in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return True
    return False


def result_of(response: Response) -> dict[str, Any]:
    """What a workflow sees: `json` is None where the body is none, or was cut."""
    kind = response.headers.get("content-type", "")
    charset = _CHARSET.search(kind)
    try:
        text = response.body.decode(charset[1] if charset else "utf-8", "replace")
    except LookupError:
        text = response.body.decode("utf-8", "replace")
    is_json = "json" in kind.partition(";")[0].lower() and not response.truncated
    return {
        "status": response.status,
        "headers": dict(response.headers),
        "body": text,
        "json": _parsed(response.body) if is_json else None,
        "truncated": response.truncated,
        "url": response.url,
    }


def _parsed(body: bytes) -> Any:
    try:
        found = json.loads(body, parse_constant=_no_number)
        # As deep and as large as it may be stored: half of a surrogate pair or 1e999 may not.
        json.dumps(found, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    return found if is_shallow(found) else None


def _no_number(name: str) -> Any:
    raise ValueError(name)


def _body(given: Mapping[str, Any], limit: int) -> tuple[bytes | None, str]:
    if given.get("body") is not None and "json" in given:
        raise InvalidInput("a request has `body` or `json`, not both")
    body, kind = None, ""
    if "json" in given:
        body, kind = canonical(given["json"]), "application/json"
    elif given.get("body") is not None:
        body, kind = value_text(given["body"]).encode(), "text/plain; charset=utf-8"
    if body is not None and len(body) > limit:
        raise InvalidInput(f"the body has {len(body)} bytes; {limit} are the most")
    return body, kind


def _headers(given: Any) -> dict[str, str]:
    if not isinstance(given, Mapping):
        raise InvalidInput("headers must be a map of texts")
    found = {}
    for name, value in given.items():
        text = value_text(value)
        if not _NAME.fullmatch(str(name)) or not _VALUE.fullmatch(text):
            raise InvalidInput(f"the header {str(name)[:80]!r} has a character that no header may have")
        if str(name).lower() in _OURS:
            raise InvalidInput(f"the header {name!r} is set by Muster and cannot be given")
        found[str(name)] = text
    if sum(len(name) + len(text.encode()) for name, text in found.items()) > HEADER_BYTES:
        raise InvalidInput(f"the headers have more than {HEADER_BYTES} bytes")
    return found


def _statuses(wanted: Any) -> frozenset[int]:
    rows = wanted if isinstance(wanted, Sequence) and not isinstance(wanted, str) else [wanted]
    try:
        found = frozenset(int(row) for row in rows if not isinstance(row, bool))
    except (TypeError, ValueError):
        found = frozenset()
    if not found or not all(100 <= status <= 599 for status in found):
        raise InvalidInput(f"expected_status must be statuses from 100 to 599, got {str(wanted)[:80]}")
    return found
