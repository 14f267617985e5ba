"""Where an SSH node is: `user@host[:port]`. Pure.

Both parts go on a command line and into a known_hosts file, so neither may look like an option or a pattern.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

from app.errors import InvalidInput

PORT: Final = 22
MOST_CHARACTERS: Final = 255

_USER = re.compile(r"[A-Za-z_][A-Za-z0-9._-]{0,63}\$?")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?"
_HOST = re.compile(rf"(?=.{{1,190}}\Z){_LABEL}(?:\.{_LABEL})*\.?")
_WHOLE = re.compile(r"(?P<user>[^@]+)@(?:\[(?P<six>[^\]]+)\]|(?P<host>[^:\[\]]+))(?::(?P<port>[0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class Address:
    """Who logs in where. `host` is a name or an IP address, without brackets."""

    user: str
    host: str
    port: int = PORT

    @property
    def place(self) -> str:
        """`host:port`, an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.user}@{self.place}"


def parse(text: str) -> Address:
    """Raises InvalidInput, which says what is wrong."""
    found = _WHOLE.fullmatch(text) if len(text) <= MOST_CHARACTERS else None
    if found is None:
        raise _wrong(text, "is not `user@host` or `user@host:port`")
    user, host, port = found["user"], found["six"] or found["host"], int(found["port"] or PORT)
    if not _USER.fullmatch(user):
        raise _wrong(text, "has no user's name in front of the @")
    if not (_is_six(host) if found["six"] else _HOST.fullmatch(host)):
        raise _wrong(text, "has no host's name or IP address behind the @")
    if not 1 <= port <= 65535:
        raise _wrong(text, "has a port that is not one of 1 to 65535")
    return Address(user, host, port)


def _is_six(host: str) -> bool:
    try:
        return not ipaddress.IPv6Address(host).scope_id
    except ValueError:
        return False


def _wrong(text: str, why: str) -> InvalidInput:
    error = {"pointer": "/address", "detail": f"{text[:80]!r} {why}"}
    hint = "for example deploy@web-1.example.org, or deploy@[2001:db8::1]:2222"
    return InvalidInput(f"{text[:80]!r} {why}", hint=hint, code="bad-address", errors=[error])
