"""Where a machine is and how it is logged in to."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from app.errors import InvalidInput

Backend = Literal["asyncssh", "openssh"]

_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,63}")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,254}|::[0-9A-Fa-f:.]{0,40}")
_HOST_KEY = re.compile(r"[a-z0-9@.-]{1,64} [A-Za-z0-9+/]{16,8192}={0,2}")


class BadTarget(InvalidInput):
    """An address or a key that cannot be one."""

    code = "bad-target"


@dataclass(frozen=True, slots=True)
class Target:
    """`private_key` is its text, without a passphrase; `host_key` is the one key that is trusted, `TYPE BASE64`.

    `base` is an absolute directory on the machine for what Muster keeps there; "" is
    `${XDG_STATE_HOME:-$HOME/.local/state}/muster/<installation>/<node>`.
    """

    user: str
    host: str
    port: int = 22
    private_key: str = field(default="", repr=False)
    host_key: str = ""
    backend: Backend = "asyncssh"
    base: str = ""

    def __post_init__(self) -> None:
        if not _USER.fullmatch(self.user):
            raise BadTarget(f"{self.user[:80]!r} cannot be a user's name")
        if not _HOST.fullmatch(self.host):
            raise BadTarget(f"{self.host[:80]!r} cannot be the name or the address of a machine")
        if not 0 < self.port < 65536:
            raise BadTarget(f"{self.port} is not a port")
        if self.host_key and not _HOST_KEY.fullmatch(self.host_key):
            raise BadTarget("a host key is its type and its base64 text, as in known_hosts")
        if self.base and (not self.base.startswith("/") or not self.base.isprintable()):
            raise BadTarget(f"the directory {self.base[:80]!r} must be an absolute path in plain characters")

    @property
    def address(self) -> str:
        """`user@host:port`, the host in brackets where it has colons."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.user}@{host}:{self.port}"


def read_address(text: str) -> tuple[str, str, int]:
    """User, host and port of `user@host[:port]`. Raises `BadTarget`."""
    user, at, place = text.rpartition("@")
    found = re.fullmatch(r"\[([^\]]+)\](?::(\d{1,5}))?|([^:\[\]]+)(?::(\d{1,5}))?", place)
    if not at or found is None:
        raise BadTarget(f"{text[:120]!r} is not an address", hint="write user@host or user@host:port")
    target = Target(user, found[1] or found[3], int(found[2] or found[4] or 22))
    return target.user, target.host, target.port
