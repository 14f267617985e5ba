"""Server-sent events: the format, and a follower that comes back after every break with Last-Event-ID."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from app.cli.client import Client, Stream
from app.cli.failures import ApiProblem, TimedOut
from app.errors import Unavailable

LONGEST_LINE = 32 << 20
"""Bytes: a result of two streams of 1 MiB, each byte written as an escape."""
SILENCE = 35.0
"""Seconds without a byte after which a connection counts as dead: the server sends a comment every 10 s."""
PATIENCE = 60.0
"""Seconds of failed attempts after which following gives up."""


@dataclass(frozen=True, slots=True)
class Message:
    """One event of a stream. `id` is the last id that the stream gave, as the standard has it."""

    event: str
    data: str
    id: str


class Parser:
    """Lines in, messages out; the rules are those of the HTML standard (9.2.6)."""

    def __init__(self) -> None:
        self._event = ""
        self._data: list[str] = []
        self.last_id = ""

    def feed(self, line: bytes) -> Message | None:
        """One line with or without its end; the message that it completes."""
        text = line.rstrip(b"\r\n").decode("utf-8", "replace")
        if not text:
            return self._finish()
        name, _, value = text.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._event = value
        elif name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self.last_id = value
        return None

    def _finish(self) -> Message | None:
        event, data = self._event or "message", self._data
        self._event, self._data = "", []
        return Message(event, "\n".join(data), self.last_id) if data else None


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds: how long to follow (None: as long as it takes), and how long to try when nobody answers."""

    deadline: float | None = None
    silence: float = SILENCE
    patience: float = PATIENCE
    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep


def follow(
    client: Client,
    path: str,
    query: Mapping[str, Any],
    last: str,
    limits: Limits,
    opened: Stream | None = None,
) -> Iterator[Message]:
    """Messages until one is called `end`, over as many connections as it takes, the first of which may be `opened`.

    Raises ApiProblem where the server refuses, Unavailable after `patience`, TimedOut at the deadline.
    """
    parser = Parser()
    parser.last_id = last
    failed_since: float | None = None
    wait = 0.1
    while True:
        try:
            stream, opened = opened or _open(client, path, query, parser.last_id), None
            try:
                for message in _messages(stream, parser, limits):
                    failed_since, wait = None, 0.1
                    yield message
                    if message.event == "end":
                        return
            finally:
                stream.close()
        except (Unavailable, OSError) as error:
            failed_since = failed_since if failed_since is not None else limits.clock()
            if limits.clock() - failed_since >= limits.patience:
                raise Unavailable(
                    f"{client.url} has not answered for {limits.patience:g} s", hint="`muster doctor`"
                ) from error
        _check(limits)
        limits.pause(wait)
        wait = min(wait * 2, 3.0)
        # What a broken message left behind must not run into the first one of the next connection.
        parser.feed(b"")


def _open(client: Client, path: str, query: Mapping[str, Any], last: str) -> Stream:
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
    if last:
        headers["Last-Event-ID"] = last
    try:
        return client.open(path, headers, query)
    except ApiProblem as error:
        if error.status in (429, 502, 503, 504):
            raise Unavailable(error.message) from None
        raise


def _messages(stream: Stream, parser: Parser, limits: Limits) -> Iterator[Message]:
    while True:
        left = None if limits.deadline is None else limits.deadline - limits.clock()
        timeout = limits.silence if left is None else max(0.01, min(left, limits.silence))
        try:
            line = stream.readline(LONGEST_LINE, timeout)
        except TimeoutError:
            _check(limits)
            return
        if not line:
            return
        message = parser.feed(line)
        if message is not None:
            yield message
        _check(limits)


def _check(limits: Limits) -> None:
    if limits.deadline is not None and limits.clock() >= limits.deadline:
        raise TimedOut("the time given with --timeout is over; what was started goes on")
