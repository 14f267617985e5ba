"""ULIDs: 26 characters that sort by time, unique for ever; and random secrets."""

from __future__ import annotations

import hashlib
import secrets
import time

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def ulid(now: float | None = None) -> str:
    """A new ULID: 48 bits of milliseconds, 80 random bits, Crockford base 32."""
    moment = int((time.time() if now is None else now) * 1000)
    value = (moment & (1 << 48) - 1) << 80 | secrets.randbits(80)
    return "".join(_ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))


def secret(prefix: str) -> str:
    """A random bearer secret of 256 bits, with a prefix that says what it is for."""
    return f"{prefix}_{secrets.token_urlsafe(32)}"


def fingerprint(text: str) -> str:
    """How a secret is stored and looked up: its SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()
