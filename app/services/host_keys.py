"""Host keys of SSH servers as text: `ssh-ed25519 AAAA…`, and the fingerprint that people compare. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import Final

from app.errors import InvalidInput

FINGERPRINT: Final = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
MOST_CHARACTERS: Final = 8192
"""The longest key that is taken from a server: RSA with 16384 bits has about 2800."""

_KEY = re.compile(r"(?P<kind>[a-z0-9@.-]{1,64}) (?P<blob>[A-Za-z0-9+/]+={0,2})")


def check(key: str) -> str:
    """The key as kind and base64, without a comment. Raises InvalidInput for what is none."""
    found = _KEY.match(key) if len(key) <= MOST_CHARACTERS else None
    if found is None:
        raise InvalidInput(f"{key[:80]!r} is not a host key", hint="it is as in known_hosts: kind and base64")
    _blob(found["blob"])
    return found[0]


def fingerprint(key: str) -> str:
    """`SHA256:…` as ssh-keygen -l prints it; empty where there is no key."""
    if not key:
        return ""
    digest = hashlib.sha256(_blob(check(key).split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def _blob(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise InvalidInput("a host key is not base64", hint="it is as in known_hosts") from None
