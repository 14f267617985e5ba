"""The segments of compact tokens, read strictly: one text for one value.

Base64 decoders that forgive let several texts stand for one token: a changed character in the unused bits of
a signature's end would still verify. Duplicate header names let two readers see two headers.
"""

from __future__ import annotations

import binascii
import json
from typing import Any

_HEADER_BYTES = 1024
_TO_URL = bytes.maketrans(b"+/", b"-_")
# What is no base64url, padding included, becomes `!`, which the strict decoder refuses.
_FROM_URL = bytes.maketrans(b"-_+/=", b"+/!!!")
_LAST = {2: b"AQgw", 3: b"AEIMQUYcgkosw048"}
"""The characters whose unused bits are zero, by the length of the last group."""


class Malformed(ValueError):
    """A segment that no honest writer makes."""


def encode(value: bytes) -> bytes:
    """`value` as unpadded base64url."""
    return binascii.b2a_base64(value, newline=False).translate(_TO_URL).rstrip(b"=")


def decode(segment: bytes) -> bytes:
    """What `segment` stands for. Raises Malformed unless it is unpadded base64url in its bytes' one spelling."""
    rest = len(segment) % 4
    try:
        value = binascii.a2b_base64(segment.translate(_FROM_URL) + b"=" * (-rest % 4), strict_mode=True)
    except binascii.Error:
        raise Malformed("a segment is no base64url") from None
    if rest and segment[-1] not in _LAST[rest]:
        raise Malformed("a segment's unused bits are not zero")
    return value


def header(segment: bytes) -> dict[str, Any]:
    """The JSON object of a header segment, 1 kB at the most, no name twice. Raises Malformed."""
    if not segment or len(segment) > _HEADER_BYTES:
        raise Malformed(f"a header segment of {len(segment)} bytes")
    text = decode(segment)
    try:
        # As text: of bytes, `json.loads` would take UTF-16 too.
        found = _JSON.decode(text.decode())
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


_JSON = json.JSONDecoder(object_pairs_hook=_unique)
