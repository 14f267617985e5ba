"""How hosts are got at: one line each, opened with a few tries, under the host's circuit breaker."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from app.flows import failures
from app.flows.breakers import Breakers
from app.flows.lines import Connect, Line, NoLine
from app.flows.model import Result

log = logging.getLogger(__name__)

AT_ONCE = 8
"""Flows of one host that run at a time: sshd takes ten sessions of one connection."""

TRIES = 3
WAIT = 1.0
"""Seconds before the second try of what may pass; each wait is twice the one before."""


@dataclass(frozen=True, slots=True)
class Access:
    """`connect` opens a line to a host."""

    connect: Connect
    breakers: Breakers
    tries: int = TRIES
    wait: float = WAIT

    async def pause(self, number: int) -> None:
        """Wait before try `number`, counted from 0."""
        if number:
            await asyncio.sleep(self.wait * 2 ** (number - 1))


class Seat:
    """One host: its line, opened when it is first needed and again when it was lost, and room for some flows."""

    def __init__(self, host: str, access: Access) -> None:
        self.host = host
        self.room = asyncio.Semaphore(AT_ONCE)
        self._access = access
        self._line: Line | None = None
        self._opening = asyncio.Lock()
        self._refused: Result | None = None

    async def line(self) -> Line:
        """The open line. Raises NoLine; what one flow was told then holds for the others that wait with it."""
        async with self._opening:
            if self._line is None:
                if self._refused is not None:
                    raise NoLine(self._refused)
                try:
                    self._line = await self._opened()
                except NoLine as problem:
                    self._refused = problem.result
                    raise
            return self._line

    async def _opened(self) -> Line:
        access, host = self._access, self.host
        for number in range(access.tries):
            await access.pause(number)
            if why := access.breakers.refusal(host):
                raise NoLine(failures.unreachable(host, why))
            try:
                line = await access.connect(host)
            except NoLine as problem:
                if problem.result.passing:
                    access.breakers.failed(host, str(problem))
                if not problem.result.passing or number + 1 == access.tries:
                    raise
                log.info("%s, and is tried again", problem)
            else:
                return line
        raise AssertionError("there is at least one try")

    def answered(self) -> None:
        """The host did as it was asked: only that closes its breaker, for one that hangs may well let us in."""
        self._access.breakers.succeeded(self.host)

    async def drop(self, line: Line) -> None:
        """This line is of no use any more."""
        if self._line is line:
            self._line = None
        await line.close()

    async def close(self) -> None:
        """End the line, if there is one."""
        if self._line is not None:
            await self._line.close()
