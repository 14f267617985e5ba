"""Flows over SSH, all of a block at once: their files as one tar over stdin, the tool there, its result back.

One line to each host, a few flows of it at a time. What goes wrong before anything of a flow was started is tried again
with growing waits; what the keys say is final at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from app.flows import failures, far_side, outcome
from app.flows.lines import Line, LineLost, NoLine, Said
from app.flows.model import INPUT, Flow, Result, Terms, Watch, failed
from app.flows.seats import Access, Seat
from app.flows.state import NotJson, check, to_json

log = logging.getLogger(__name__)

COPIES = 16
"""Flows whose files are on their way at a time: each holds the tool and its state in memory."""

COPY_WITHIN = 300.0
"""Seconds in which the files must have arrived."""

LATE = 15.0
"""Seconds that a host may take beyond what it was given, until it is taken for gone."""

_LOOK = 0.2
_HEAD = 65_536


@dataclass(frozen=True, slots=True)
class OverSsh:
    """`most` are the bytes that a result may have."""

    access: Access
    most: int

    def execute(self, flows: Sequence[Flow], terms: Terms, watch: Watch) -> list[Result]:
        """As `model.Executor` says."""
        return asyncio.run(self._all(flows, terms, watch))

    async def _all(self, flows: Sequence[Flow], terms: Terms, watch: Watch) -> list[Result]:
        seats = {host: Seat(host, self.access) for host in dict.fromkeys(flow.host for flow in flows)}
        shared = terms.files()
        copying = asyncio.Semaphore(COPIES)
        ends = {flow.number: asyncio.Event() for flow in flows}
        watching = asyncio.create_task(_give_up(watch, ends))
        try:
            tried = (
                _One(flow, terms, shared, ends[flow.number], seats[flow.host], copying, self)
                for flow in flows
            )
            return list(await asyncio.gather(*(_told(one, watch) for one in tried)))
        finally:
            watching.cancel()
            await asyncio.gather(*(seat.close() for seat in seats.values()))


async def _told(one: _One, watch: Watch) -> Result:
    try:
        result = await one.through()
    except Exception as problem:
        # The edge of one flow: whatever its host comes up with, the others of the block go on.
        log.exception("flow %s failed", one.flow.name)
        result = failures.unforeseen(one.flow.host, problem)
    # In a thread: whoever is told may take its time, and the connections are not to wait for it.
    await asyncio.to_thread(watch.tell, one.flow, result)
    return result


async def _give_up(watch: Watch, ends: Mapping[int, asyncio.Event]) -> None:
    """Hand on, from the thread that asked, which flows are not wanted any more."""
    while True:
        # They may be flows of the block that go another way.
        for number in watch.given_up.intersection(ends):
            ends[number].set()
        await asyncio.sleep(_LOOK)


@dataclass(frozen=True, slots=True)
class _One:
    """One flow on its way. `end` is set when nobody wants it any more."""

    flow: Flow
    terms: Terms
    shared: Sequence[tuple[str, bytes, int]]
    end: asyncio.Event
    seat: Seat
    copying: asyncio.Semaphore
    executor: OverSsh

    async def through(self) -> Result:
        """What becomes of it."""
        try:
            check(self.flow.entry_point, self.flow.state)
        except NotJson as problem:
            return failed("not_json", problem.message)
        result = outcome.given_up(self.flow)
        async with self.seat.room:
            for number in range(self.executor.access.tries):
                if self.end.is_set():
                    return result
                await self.executor.access.pause(number)
                try:
                    line = await self.seat.line()
                except NoLine as refused:
                    return refused.result
                async with self._directory() as prepared:
                    unready = await self._prepare(line)
                    if unready is None:
                        prepared.clear()
                        return await self._run(line)
                result = unready
                if not result.passing or number + 1 == self.executor.access.tries:
                    return result
        return result

    @asynccontextmanager
    async def _directory(self) -> AsyncIterator[list[bool]]:
        """The flow's directory on its host; removed at the end unless what is given was emptied: then it is `run` that
        removes it."""
        ours = [True]
        try:
            yield ours
        finally:
            if ours and self.terms.cleanup:
                await self._discard()

    async def _discard(self) -> None:
        flow = self.flow
        try:
            async with asyncio.timeout(LATE):
                line = await self.seat.line()
                said = await line.ask(far_side.discard(self.terms.workdir, flow.name), most=_HEAD)
        except (NoLine, LineLost, TimeoutError) as problem:
            why = str(problem) or "it does not answer"
        else:
            why = said.err.decode("utf-8", "replace").strip() if said.status else ""
        if why:
            log.warning("the directory of flow %s was not removed from %s: %s", flow.name, flow.host, why)

    async def _prepare(self, line: Line) -> Result | None:
        """Make the directory and copy the files; None where it is ready."""
        try:
            async with self.copying:
                state = to_json(self.flow.entry_point, self.flow.state)
                return await self._copy(line, far_side.bundle([*self.shared, (INPUT, state, 0o600)]))
        except NotJson as problem:
            return failed("not_json", problem.message)

    async def _copy(self, line: Line, tar: bytes) -> Result | None:
        flow, terms, breakers = self.flow, self.terms, self.executor.access.breakers
        python = far_side.needs_python(terms.basefile.name)
        command = far_side.prepare(terms.workdir, flow.name, far_side.kilobytes(len(tar)), python=python)
        try:
            async with asyncio.timeout(COPY_WITHIN):
                said = await line.ask(command, tar, most=_HEAD)
        except TimeoutError:
            breakers.failed(flow.host, "it did not take the files")
            await self.seat.drop(line)
            return failed(
                "copy", f"{flow.host} did not take the files within {COPY_WITHIN:g} s", passing=True
            )
        except LineLost as problem:
            breakers.failed(flow.host, f"the connection was lost: {problem}")
            await self.seat.drop(line)
            return failed("copy", f"the connection to {flow.host} was lost: {problem}", passing=True)
        self.seat.answered()
        if said.status:
            return far_side.not_prepared(flow.host, said.status, said.err)
        log.info("flow %s: %s", flow.name, " ".join(said.out.decode("utf-8", "replace").split()))
        return None

    async def _run(self, line: Line) -> Result:
        flow, terms = self.flow, self.terms
        limit = None if terms.timeout is None else terms.timeout + terms.grace + LATE
        command = far_side.run(flow, terms, self.executor.most)
        most = self.executor.most + 2 * _HEAD
        asking = asyncio.create_task(line.ask(command, most=most, held=self.end))
        try:
            async with asyncio.timeout(limit):
                said = await self._wait(asking)
        except TimeoutError:
            self.executor.access.breakers.failed(flow.host, "it did not say how a flow ended")
            await self.seat.drop(line)
            return outcome.given_up(flow) if self.end.is_set() else outcome.timed_out(terms)
        except LineLost as problem:
            await self.seat.drop(line)
            return failed("lost", f"the connection to {flow.host} was lost while the flow ran: {problem}")
        finally:
            asking.cancel()
            with contextlib.suppress(asyncio.CancelledError, LineLost):
                await asking
        return self._judged(said.out, said.status, said.err)

    async def _wait(self, asking: asyncio.Task[Said]) -> Said:
        """Its end; once nobody wants it any more for so long as its host may take to end it."""
        stop = asyncio.create_task(self.end.wait())
        try:
            await asyncio.wait({asking, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                async with asyncio.timeout(self.terms.grace + LATE):
                    return await asyncio.shield(asking)
            return await asking
        finally:
            stop.cancel()

    def _judged(self, written: bytes, status: int, said: bytes) -> Result:
        flow, terms = self.flow, self.terms
        answer = far_side.answer_of(written)
        if answer is None:
            return outcome.of_files(flow, status, None, said.decode("utf-8", "replace").strip())
        if terms.cleanup and not answer.cleaned:
            log.warning("the directory of flow %s was not removed from %s", flow.name, flow.host)
        if answer.why == "timeout":
            return outcome.timed_out(terms)
        if answer.why == "given_up":
            return outcome.given_up(flow)
        if answer.size > self.executor.most:
            return outcome.too_large(answer.size, self.executor.most)
        return outcome.of_files(flow, answer.status, answer.result, answer.said)
