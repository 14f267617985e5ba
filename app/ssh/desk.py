"""One shell on a machine that starts many jobs: what they all need is sent and read there once.

It takes blocks of lines, and each of these begins a job that answers for itself from then on, whatever becomes of the
shell. What the jobs say comes back in lines that begin with the job's number here and a mark:

    7+started 4711      a line on standard output
    7-as far as this    the same without an end
    7*  7/              both on standard error
    7=0                 nothing more will be said of it

A job that is long, or whose output is, is told of by sessions of its own, as is one whose answer was lost here.
"""

from __future__ import annotations

import itertools
import queue
import re
import threading

from app.ssh import far_side
from app.ssh.failures import Unreachable
from app.ssh.far_side import Ground
from app.ssh.link import COMMAND_WITHIN, Link, Listener
from app.ssh.transcript import After, Garbled

LONGEST = 16_384
"""Bytes of a job that is started here: a shell reads them one by one."""
APART = b"3"
"""The end of a job that has to be asked for by itself: what there is to say of it is too much among others."""

_LINE = re.compile(rb"(\d{1,9})([-+*/=])(.*)", re.DOTALL)
_OWNER = re.compile(rb"owner (\d{1,9})")
"""The first line of a job that was started: which process there answers for it."""
_NOBODY = 2**31 - 1
_LONGEST_LINE = 65_536
_LISTEN = (
    b'M_nl=$(printf "\\nx"); M_nl=${M_nl%x}; M_block=; exec 6<&0 </dev/null;'
    b" while IFS= read -r M_word <&6; do case $M_word in"
    b" '') M_now=$M_block; M_block=; eval \"$M_now\"; M_now= ;;"
    b" *) M_block=$M_block${M_word#?}$M_nl ;; esac; done\n"
)
"""For `LISTENING`: evaluates lines, of each the first character is left out, whenever an empty one comes."""


class Desk:
    """The shell on `link`. Its methods may be called from any thread. Where the machine opens no session for it, and
    where it has ended, they raise `Unreachable`."""

    def __init__(self, link: Link, ground: Ground) -> None:
        self.link = link
        self.is_over = False
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._errands: dict[int, Errand] = {}
        self._after = After(far_side.OPENING)
        self._rest = b""
        self._session = link.open(
            far_side.LISTENING, _LISTEN + _block(ground.opening() + _beside(ground)), self._hear, keep=True
        )

    def begin(self, listener: Listener) -> Errand:
        """Something that is to be done there; `listener` is told what a session of its own would have told."""
        with self._lock:
            if self.is_over:
                raise Unreachable("the shell for jobs on the machine has ended")
            number = next(self._numbers)
            errand = self._errands[number] = Errand(self, number, listener)
        return errand

    def does(self, program: bytes, within: float = COMMAND_WITHIN) -> bool:
        """Whether a program for the machine succeeded."""
        over: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        errand = self.begin(lambda kind, said: over.put(said) if kind == "closed" else None)
        errand.write(program)
        try:
            return over.get(timeout=within) == b"0"
        except queue.Empty:
            return False
        finally:
            errand.close()

    def write(self, program: bytes) -> None:
        """Has it evaluated there: it may not wait for anything."""
        self._session.write(_block(program))

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
        """Has it ever said anything?"""
        return self._after.is_found

    def drop(self, number: int) -> None:
        """Nobody listens any more."""
        with self._lock:
            self._errands.pop(number, None)

    def _hear(self, kind: str, data: bytes) -> None:
        if kind == "closed":
            self._end()
        elif kind == "out":
            try:
                self._take(self._after.feed(data))
            except Garbled:
                self._end()
        session = getattr(self, "_session", None)
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
        self._owner = _NOBODY
        self._is_first = True

    def start(self, about: bytes, described: bytes) -> None:
        """Starts a job (`far_side.about`, `far_side.described`), or attaches to it where it was started before."""
        self._aside(about + described + b"M_share\n")

    def stay(self, about: bytes) -> None:
        """Has somebody there watch over the job, which takes longer than a moment."""
        self._aside(about + b"M_stay %d\n" % self._owner)

    def ask(self, about: bytes) -> None:
        """Has the end told where nobody there answers for the job any more."""
        self._aside(about + b"M_ask %d\n" % self._owner)

    def write(self, data: bytes) -> None:
        """Does something else. All that is told of it is its exit status."""
        self._aside(b"{\n%s} >/dev/null 2>&1\necho $M_number=$?\n" % data)

    def end_input(self) -> None:
        """It has none."""

    def taken(self, count: int) -> None:
        """What is told here is short."""

    def close(self) -> None:
        self._desk.drop(self.number)

    def take(self, mark: bytes, text: bytes) -> None:
        """What a line says; the listener hears of it with the next `tell`."""
        is_first, self._is_first = self._is_first, False
        if is_first and (found := _OWNER.fullmatch(text)):
            self._owner = int(found[1])
        elif mark == b"=":
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

    def _aside(self, program: bytes) -> None:
        # Of a process that is not the shell's own child nothing is left there when it ends.
        self._desk.write(b"( (\nM_number=%d\n%s) 6<&- & )\n" % (self.number, program))


def _beside(ground: Ground) -> bytes:
    """What is there besides the jobs, which outlives the shell by a little."""
    seconds = far_side.patrol(ground.leash)
    return b"M_cast\n( ( M_patrol %.3f 4>&- >/dev/null 2>&1 6<&- & ) )\n" % seconds


def _block(program: bytes) -> bytes:
    """Lines that are no empty ones, and then an empty one."""
    # Without a last word ksh93 takes what is begun in a subshell for the last of all, and becomes it.
    lines = [*program.rstrip(b"\n").split(b"\n"), b":"]
    return b"".join(b" %s\n" % line for line in lines) + b"\n"
