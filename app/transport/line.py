"""One connection to Redis that several threads share: commands go out together, then the answers come in.

redis-py's client and its pipeline take 0.1 to 0.3 ms of processor time for what is one write and one read. This is
for the few commands that every message costs.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import ConnectionError, ResponseError

log = logging.getLogger(__name__)

Command = tuple[str | bytes, ...]

AT_ONCE = 100
"""Commands that are written before their answers are read."""


class _End:
    """What one process has of a line: a fork's child may use neither its parent's connection nor its lock."""

    __slots__ = ("connection", "lock", "owed")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.connection: Any = None
        # Answers that nobody waited for and that are still to be read.
        self.owed = 0


class Line:
    """A connection that `connect` makes when it is first needed, in each process anew.

    `connect` returns a connection of redis-py that may be closed: it opens itself when it is used.
    """

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect
        self._ends: dict[int, _End] = {}

    def call(self, commands: Sequence[Command]) -> list[Any]:
        """Sends the commands and returns their answers.

        A connection that breaks is opened once more and gets them again: they must be such that this is harmless.
        Raises redis-py's ConnectionError or TimeoutError where Redis is away: then some, all or none of the commands
        were carried out. Raises ResponseError where Redis refused one: the others were carried out.
        """
        end = self._end()
        answers: list[Any] = []
        with end.lock:
            _settle(end)
            for start in range(0, len(commands), AT_ONCE):
                part = commands[start : start + AT_ONCE]
                try:
                    answers += _exchange(end, part)
                except ConnectionError:
                    answers += _exchange(end, part)
        refused = next((answer for answer in answers if isinstance(answer, ResponseError)), None)
        if refused is not None:
            raise refused
        return answers

    def post(self, commands: Sequence[Command]) -> None:
        """Sends the commands and leaves their answers to whoever comes next: they are carried out before his.

        A connection that breaks before that may take them along. One that Redis refuses is logged. Otherwise as
        `call`.
        """
        end = self._end()
        with end.lock:
            _settle(end)
            try:
                _send(end, commands)
            except ConnectionError:
                _send(end, commands)
            end.owed = len(commands)

    def _end(self) -> _End:
        # In one step, for threads that come first together.
        end = self._ends.setdefault(os.getpid(), _End())
        with end.lock:
            if end.connection is None:
                end.connection = self._connect()
        return end


def _settle(end: _End) -> None:
    """Reads the answers that are owed. They have come by now, so nobody waits; and redis-py, which may look after a
    connection's health before it sends, takes the next answer for its own."""
    owed, end.owed = end.owed, 0
    try:
        for _ in range(owed):
            answer = _answer(end.connection)
            if isinstance(answer, ResponseError):
                log.warning("Redis refused what it was sent: %s", answer)
    except ConnectionError:
        # It is opened anew by whoever sends next.
        end.connection.disconnect()
    except BaseException:
        end.connection.disconnect()
        raise


def _send(end: _End, commands: Sequence[Command]) -> None:
    try:
        packed = [part for command in commands for part in end.connection.pack_command(*command)]
        end.connection.send_packed_command([b"".join(packed)])
    except BaseException:
        end.connection.disconnect()
        raise


def _exchange(end: _End, commands: Sequence[Command]) -> list[Any]:
    _send(end, commands)
    try:
        return [_answer(end.connection) for _ in commands]
    except BaseException:
        # Answers may still be under way, and would be taken for those of the next call.
        end.connection.disconnect()
        raise


def _answer(connection: Any) -> Any:
    try:
        return connection.read_response()
    except ResponseError as refused:
        return refused
