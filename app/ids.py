"""ULIDs: 26 characters that sort by time, unique for ever; trace ids; and random secrets."""

from __future__ import annotations

import hashlib
import re
import secrets
import time

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
_SHIFTS = range(120, -1, -10)
_TO_PYTHON = str.maketrans(_ALPHABET, "0123456789abcdefghijklmnopqrstuv")
"""From Crockford's digits to those that `int` reads."""
_TRACEPARENT = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-[0-9a-f]{2}(?P<more>-[!-~]{0,200})?"
)


def ulid(now: float | None = None) -> str:
    """A new ULID: 48 bits of milliseconds, 80 random bits, Crockford base 32."""
    moment = int((time.time() if now is None else now) * 1000)
    value = (moment & (1 << 48) - 1) << 80 | secrets.randbits(80)
    return "".join([_PAIRS[value >> shift & 1023] for shift in _SHIFTS])


def trace_of(id_: str) -> str:
    """The W3C trace id that belongs to a ULID: its 128 bits, as 32 hexadecimal digits."""
    return f"{int(id_.translate(_TO_PYTHON), 32) & (1 << 128) - 1:032x}"


def trace_in(traceparent: str) -> tuple[str, str]:
    """The trace id and the span id in a W3C `traceparent` header; both "" where it is no valid one."""
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None or found["version"] == "ff" or not int(found["trace"], 16) or not int(found["span"], 16):
        return "", ""
    # Version 00 ends behind its flags; a later one may go on.
    if found["version"] == "00" and found["more"]:
        return "", ""
    return found["trace"], found["span"]


def span_of(id_: str) -> str:
    """The W3C span id of what has this id: 64 bits of its SHA-256, the same in every process."""
    return hashlib.sha256(id_.encode()).hexdigest()[:16]


def traceparent(trace_id: str, id_: str) -> str:
    """The W3C header that hands on the trace, from the span of what has this id."""
    return f"00-{trace_id}-{span_of(id_)}-01"


def secret(prefix: str) -> str:
    """A random bearer secret of 256 bits, with a prefix that says what it is for."""
    return f"{prefix}_{secrets.token_urlsafe(32)}"


def fingerprint(text: str) -> str:
    """How a secret is stored and looked up: its SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()
