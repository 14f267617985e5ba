"""The segments of compact tokens, read strictly: one text for one value.

Base64 decoders that forgive let several texts stand for one token: a changed character in the unused bits of
a signature's end would still verify. Duplicate header names let two readers see two headers.
"""

from __future__ import annotations

import base64
import json
import re
from typing import Any

_HEADER_BYTES = 1024
_ALPHABET = re.compile(rb"[A-Za-z0-9_-]*")


class Malformed(ValueError):
    """A segment that no honest writer makes."""


def check(segment: bytes) -> None:
    """Raises Malformed unless `segment` is unpadded base64url in its bytes' one spelling."""
    tail = segment[len(segment) // 4 * 4 :]
    if not _ALPHABET.fullmatch(segment) or len(tail) == 1:
        raise Malformed("a segment is no base64url")
    if tail and base64.urlsafe_b64encode(_bytes(tail)).rstrip(b"=") != tail:
        raise Malformed("a segment's unused bits are not zero")


def header(segment: bytes) -> dict[str, Any]:
    """The JSON object of a header segment, 1 kB at the most, no name twice. Raises Malformed."""
    if not segment or len(segment) > _HEADER_BYTES:
        raise Malformed(f"a header segment of {len(segment)} bytes")
    check(segment)
    try:
        found = json.loads(_bytes(segment), object_pairs_hook=_unique)
    except Malformed:
        raise
    except (ValueError, RecursionError) as error:
        raise Malformed(f"a header is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise Malformed("a header is no JSON object")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Malformed("a header names something twice")
    return found


def _bytes(segment: bytes) -> bytes:
    return base64.urlsafe_b64decode(segment + b"=" * (-len(segment) % 4))
