"""A line: one connection to a host, over which commands are asked for, and how each of its backends opens one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from app.flows.model import Result

CONNECT_WITHIN = 10.0
"""Seconds in which a host must answer, and in which it must have let us in."""

ALIVE_EVERY = 15.0
ALIVE_MISSED = 3

MOST_SAID = 65_536
"""Bytes of stderr that are kept of one command."""


@dataclass(frozen=True, slots=True)
class Said:
    """How a command ended on a host."""

    status: int
    out: bytes
    err: bytes


class NoLine(Exception):
    """There is no connection; `result` says why, as what becomes of a flow."""

    def __init__(self, result: Result) -> None:
        super().__init__((result.error or {}).get("message", ""))
        self.result = result


class LineLost(Exception):
    """The connection went while a command ran."""


class Line(Protocol):
    """One connection. Closed by `close`, which never raises."""

    async def ask(
        self, command: str, given: bytes = b"", *, most: int, held: asyncio.Event | None = None
    ) -> Said:
        """Run a command with `given` on its stdin, and read at most `most` bytes of what it writes, and no more.

        With `held` stdin stays open until that is set, or the command ends. Raises LineLost.
        """

    async def close(self) -> None:
        """End it, with whatever still runs over it."""


Connect = Callable[[str], Awaitable[Line]]
"""Opens a line to a host as the workflow names it. Raises NoLine."""
