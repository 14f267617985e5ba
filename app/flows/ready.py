"""What is asked of hosts before and after one command that sees to all of them: a directory, and its removal."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

from app.flows import failures, far_side
from app.flows.lines import Line, LineLost, NoLine, Said
from app.flows.model import Result, Terms, failed
from app.flows.seats import Access, Seat

log = logging.getLogger(__name__)

WITHIN = 60.0
"""Seconds in which a host must have answered."""

NO_RSYNC = "no_rsync"
_HEAD = 65_536
_HAS_RSYNC = "command -v rsync && command -v perl"


@dataclass(frozen=True, slots=True)
class Readiness:
    """`name` is that of the directory, below the terms' workdir."""

    access: Access
    terms: Terms
    name: str

    def make(self, hosts: Collection[str], size: int) -> dict[str, Result]:
        """Have every host make the directory for files of so many bytes. Gives those that cannot, with the reason."""
        python = far_side.needs_python(self.terms.basefile.name)
        command = far_side.prepare(self.terms.workdir, self.name, far_side.kilobytes(size), python=python)

        async def make(host: str, line: Line) -> Result | None:
            said = await line.ask(command, far_side.bundle([]), most=_HEAD)
            if said.status:
                return far_side.not_prepared(host, said.status, said.err)
            log.info("%s: %s", host, " ".join(said.out.decode("utf-8", "replace").split()))
            if (await line.ask(_HAS_RSYNC, most=_HEAD)).status:
                return failed(NO_RSYNC, f"GNU Parallel copies by rsync and perl, which {host} has not both")
            return None

        found = self._on_each(hosts, make)
        return {host: result for host, result in found.items() if result is not None}

    def discard(self, hosts: Collection[str]) -> None:
        """Have every host remove the directory. What goes wrong is logged."""
        command = far_side.discard(self.terms.workdir, self.name)

        async def discard(host: str, line: Line) -> Result | None:
            said: Said = await line.ask(command, most=_HEAD)
            words = said.err.decode("utf-8", "replace").strip()
            return failed("cleanup", words or f"exit code {said.status}") if said.status else None

        for host, result in self._on_each(hosts, discard).items():
            if result is not None and result.error is not None:
                why = result.error["message"]
                log.warning("the directory %s was not removed from %s: %s", self.name, host, why)

    def _on_each(
        self, hosts: Collection[str], what: Callable[[str, Line], Awaitable[Result | None]]
    ) -> dict[str, Result | None]:
        async def all_of_them() -> list[Result | None]:
            return list(await asyncio.gather(*(self._on(host, what) for host in hosts)))

        return dict(zip(hosts, asyncio.run(all_of_them()), strict=True))

    async def _on(self, host: str, what: Callable[[str, Line], Awaitable[Result | None]]) -> Result | None:
        seat = Seat(host, self.access)
        try:
            line = await seat.line()
            async with asyncio.timeout(WITHIN):
                result = await what(host, line)
            seat.answered()
            return result
        except NoLine as problem:
            return problem.result
        except (LineLost, TimeoutError) as problem:
            why = str(problem) or f"no answer within {WITHIN:g} s"
            self.access.breakers.failed(host, why)
            return failed("unreachable", f"{host} was lost while it was made ready: {why}")
        except Exception as problem:
            # The edge of one host: whatever it comes up with, the others of the block go on.
            log.exception("%s was not made ready", host)
            return failures.unforeseen(host, problem)
        finally:
            await seat.close()
