"""Hosts as a workflow names them: `user@host:port`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Host:
    """`user` is "" and `port` 0 where the configuration of ssh decides."""

    name: str
    user: str = ""
    port: int = 0

    @property
    def login(self) -> str:
        """As `ssh` takes it, without the port."""
        return f"{self.user}@{self.name}" if self.user else self.name


def read(text: str) -> Host:
    """A host whose form the loader has checked. Brackets around an address of IPv6 are taken off."""
    user, _, rest = text.rpartition("@")
    if rest.startswith("["):
        name, _, port = rest[1:].partition("]")
        port = port.removeprefix(":")
    else:
        name, _, port = rest.partition(":")
    return Host(name, user, int(port or 0))
