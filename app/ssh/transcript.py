"""What comes back from the far side, taken apart: lines about the job, and after those what it wrote.

Everything in here was said by a machine that may have been taken over: it is bounded, believed for its own job only.
"""

from __future__ import annotations

from typing import NamedTuple

from app.node import jobdir
from app.ssh import far_side

_LONGEST_LINE = 65_536
_CODES = 512
"""Shells say exit codes up to 255, and signals by numbers from 128, 256 or 384 on."""
_NOISE = 1 << 20
"""Bytes that a machine's profile may print before our own program begins."""


class Garbled(Exception):
    """The far side says what it cannot say."""


class After:
    """Passes on what follows a marker. Where it never comes nothing is passed on."""

    def __init__(self, marker: bytes) -> None:
        self._marker = marker
        self._noise = b""
        self._skipped = 0
        self.is_found = False

    def feed(self, data: bytes) -> bytes:
        if self.is_found:
            return data
        self._noise += data
        at = self._noise.find(self._marker)
        if at < 0:
            kept = len(self._marker) - 1
            self._skipped += max(0, len(self._noise) - kept)
            self._noise = self._noise[-kept:]
            if self._skipped > _NOISE:
                raise Garbled(f"the machine's profile prints more than {_NOISE} bytes")
            return b""
        self.is_found = True
        rest, self._noise = self._noise[at + len(self._marker) :], b""
        return rest


class Ended(NamedTuple):
    """How the far side says that a job ended. `began` and `ended` are seconds of its uptime; `cut` are, by stream,
    the bytes after those that it kept from the beginning, None where nothing was cut."""

    verdict: str
    code: int | None
    left: int
    began: float | None
    ended: float | None
    cut: dict[str, int | None]


class Transcript:
    """One session about a job. `feed` it the two streams; what it returns is the script's own."""

    def __init__(self) -> None:
        self._out = After(far_side.OPENING)
        self._err = After(far_side.MARK)
        self._buffer = b""
        self._wanted = 0
        self.started: int | None = None
        self.failure: tuple[str, str] | None = None
        self.ended: Ended | None = None
        self.output: bytes = b""
        self.complaint: str = ""
        self.has_data = False
        self._output_said = False

    @property
    def is_whole(self) -> bool:
        """Has all been said that there is to say about the end?"""
        return self.failure is not None or (self.ended is not None and self._output_said)

    def feed(self, stream: str, data: bytes) -> bytes:
        """`out` or `err`. Raises `Garbled`."""
        if stream == "err":
            return self._err.feed(data)
        data = self._out.feed(data)
        if self.has_data:
            return data
        self._buffer += data
        while not self.has_data and self._buffer:
            if self._wanted:
                if len(self._buffer) < self._wanted:
                    return b""
                self.output, self._buffer = self._buffer[: self._wanted], self._buffer[self._wanted :]
                self._wanted = 0
                self._output_said = True
                continue
            line, end, rest = self._buffer.partition(b"\n")
            if not end:
                if len(line) > _LONGEST_LINE:
                    raise Garbled("a line has no end")
                return b""
            self._buffer = rest
            self._line(line.decode("utf-8", "replace"))
        found, self._buffer = self._buffer, b""
        return found

    def _line(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word in ("started", "attached"):
            self.started = _number(rest)
        elif word == "failed":
            kind, _, message = rest.partition(" ")
            self.failure = kind, message[:500]
        elif word == "ended":
            self.ended = _ended(rest)
        elif word == "output":
            self._said_output(rest)
        elif word == "data":
            self.has_data = True

    def _said_output(self, rest: str) -> None:
        if rest.startswith("bad "):
            self.complaint = rest.removeprefix("bad ")
        elif rest != "none":
            self._wanted = _number(rest)
            if not 0 < self._wanted <= jobdir.OUTPUT_LIMIT:
                raise Garbled(f"an output of {rest} bytes")
            return
        self._output_said = True


def _ended(text: str) -> Ended:
    words = text.split()
    if len(words) != 8 or words[-1] != "ok":
        raise Garbled(f"an end that is none: {text[:200]}")
    verdict, code, left, began, ended, out, err, _ = words
    return Ended(
        verdict,
        _code(code),
        _number(left),
        _seconds(began),
        _seconds(ended),
        {"out": _cut(out), "err": _cut(err)},
    )


def _number(text: str) -> int:
    text = text.strip()
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise Garbled(f"{text[:40]!r} is not a number")
    return int(text)


def _code(text: str) -> int | None:
    if text == "-":
        return None
    if (code := _number(text)) >= _CODES:
        raise Garbled(f"{code} is no exit code")
    return code


def _cut(text: str) -> int | None:
    return None if text == "-" else _number(text)


def _seconds(text: str) -> float | None:
    if text == "-" or len(text) > 20 or not text.replace(".", "", 1).isdigit() or not text.isascii():
        return None
    return float(text)
