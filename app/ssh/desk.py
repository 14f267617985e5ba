"""One process on a machine that starts many jobs (`app.ssh.far`): the program is sent and read there once.

It takes a line for each job, which it answers for from then on, whatever becomes of the connection. What the jobs say
comes back in lines that begin with the job's number here and a mark:

    7+started 4711      a line on standard output
    7-as far as this    the same without an end
    7*  7/              both on standard error
    7=0                 nothing more will be said of it
    0=86400.250         the machine's clock: until when a job may be started is told by that

A job whose output is long, or is followed, is told of by sessions of its own, as is one whose answer was lost here.
"""

from __future__ import annotations

import itertools
import json
import logging
import queue
import re
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from app.ssh import far_side
from app.ssh.failures import Unreachable
from app.ssh.far_side import Ground
from app.ssh.link import COMMAND_WITHIN, Link, Listener
from app.ssh.transcript import After, Garbled

log = logging.getLogger(__name__)

APART = b"3"
"""The end of a job that has to be asked for by itself: what there is to say of it is too much among others."""

_LINE = re.compile(rb"(\d{1,9})([-+*/=])(.*)", re.DOTALL)
_SECONDS = re.compile(rb"\d{1,12}\.\d{3}")
_LONGEST_LINE = 65_536


class Desk:
    """The process on `link`. Its methods may be called from any thread. Where the machine opens no session for it, and
    where it has ended, they raise `Unreachable`."""

    def __init__(self, link: Link, ground: Ground) -> None:
        self.link = link
        self.is_over = False
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._errands: dict[int, Errand] = {}
        self._after = After(far_side.OPENING)
        self._rest = b""
        # What its clock was, and when that came here by ours.
        self._clock = (0.0, 0.0)
        self._session = link.open(far_side.AGENT, far_side.agent(ground), self._hear, keep=True)

    def begin(self, listener: Listener) -> Errand:
        """Something that is to be done there; `listener` is told what a session of its own would have told."""
        with self._lock:
            if self.is_over:
                raise Unreachable("what starts jobs on the machine has ended")
            number = next(self._numbers)
            errand = self._errands[number] = Errand(self, number, listener)
        return errand

    def remove(self, job_ids: Sequence[str], within: float = COMMAND_WITHIN) -> bool:
        """Removes what was kept of jobs that are over. False where that is not known to be done."""
        over: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        errand = self.begin(lambda kind, said: over.put(said) if kind == "closed" else None)
        self._tell(errand.number, "remove", list(job_ids))
        try:
            return over.get(timeout=within) == b"0"
        except queue.Empty:
            return False
        finally:
            errand.close()

    def start(self, errand: Errand, told: Mapping[str, Any]) -> None:
        """Has it start a job, of which `told` is what `far_side.told` says, within `far_side.AGENT_FOR` seconds."""
        there, heard_at = self._clock
        # It was told at that moment or before: what we take for its time is not later than that.
        until = there + time.monotonic() - heard_at + far_side.AGENT_FOR
        self._tell(errand.number, "start", told, until)

    def _tell(self, number: int, word: str, *about: Any) -> None:
        self._session.write(json.dumps((number, word, *about)).encode() + b"\n")

    def close(self) -> bool:
        """Ends it, unless somebody still listens to it."""
        with self._lock:
            if self._errands:
                return False
            self.is_over = True
        self._session.close()
        return True

    @property
    def has_answered(self) -> bool:
        """Has it said by which clock jobs are told to it?"""
        return self._clock[1] > 0.0

    def drop(self, number: int) -> None:
        """Nobody listens any more."""
        with self._lock:
            self._errands.pop(number, None)

    def _hear(self, kind: str, data: bytes) -> None:
        session = getattr(self, "_session", None)
        if self.is_over:
            # What says what it cannot say is not listened to any more, and may not say without end.
            if session is not None and kind != "closed":
                session.close()
            return
        if kind == "closed":
            self._end()
        elif kind == "err":
            log.info("what starts jobs there says: %s", data[:500].decode("utf-8", "replace").rstrip())
        elif kind == "out":
            try:
                self._take(self._after.feed(data))
            except Garbled:
                self._rest = b""
                self._end()
        if session is not None and kind != "closed":
            # The first words may come before it is known here.
            session.taken(len(data))

    def _take(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LONGEST_LINE:
            raise Garbled("a line has no end")
        touched: dict[int, Errand] = {}
        for line in lines:
            found = _LINE.fullmatch(line)
            errand = self._errands.get(int(found[1])) if found else None
            if found and found[1] == b"0" and _SECONDS.fullmatch(found[3]):
                self._clock = (float(found[3]), time.monotonic())
            # Of those that nobody listens to there may be more to come.
            if found and errand:
                errand.take(found[2], found[3])
                touched[errand.number] = errand
        for errand in touched.values():
            errand.tell()

    def _end(self) -> None:
        with self._lock:
            self.is_over = True
            errands, self._errands = list(self._errands.values()), {}
        for errand in errands:
            errand.end()


class Errand:
    """Something that is done there, in the way of `app.ssh.link.Session`. One that was closed is told nothing more."""

    def __init__(self, desk: Desk, number: int, listener: Listener) -> None:
        self.number = number
        self._desk = desk
        self._listener = listener
        self._before = {"out": far_side.OPENING, "err": far_side.MARK}
        self._said = {"out": b"", "err": b""}
        self._status: bytes | None = None

    def start(self, told: Mapping[str, Any]) -> None:
        """Starts a job, of which `told` is what `far_side.told` says."""
        self._desk.start(self, told)

    def write(self, data: bytes) -> None:
        """It has no input."""

    def end_input(self) -> None:
        """It has none."""

    def taken(self, count: int) -> None:
        """What is told here is short."""

    def close(self) -> None:
        self._desk.drop(self.number)

    def take(self, mark: bytes, text: bytes) -> None:
        """What a line says; the listener hears of it with the next `tell`."""
        if mark == b"=":
            self._status = text
        elif self._status is None:
            self._said["out" if mark in b"+-" else "err"] += text if mark in b"-/" else text + b"\n"

    def tell(self) -> None:
        for stream, said in self._said.items():
            if said:
                self._said[stream] = b""
                self._listener(stream, self._before.pop(stream, b"") + said)
        if self._status is not None:
            self.close()
            self._listener("closed", self._status)

    def end(self) -> None:
        """It will not be heard of any more."""
        self._listener("closed", b"")
