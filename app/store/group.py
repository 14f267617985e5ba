"""One transaction for what several threads have to write: a commit waits for the disk, however little it holds.

Whoever finds nobody at work leads. While they write and wait for the disk, others line up; the next of those leads
then, and writes what all of them have, each in a savepoint of its own, so that what one of them may not do leaves the
others alone. Nobody hears of success before the commit that holds it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import copy_context
from typing import Any, TypeVar

from sqlalchemy import Connection

from app.store.prepared import hand_over

_T = TypeVar("_T")

MOST = 64
"""Parts of one transaction: so long does nobody else get to write."""


class _Part:
    """What one thread has to write. It is called with the ids that its log has, whichever thread it is that calls."""

    def __init__(self, work: Callable[[Connection], Any]) -> None:
        self._work = work
        self._scope = copy_context()
        self._turn = threading.Lock()
        self._turn.acquire()
        self._found: Any = None
        self.error: BaseException | None = None
        self.is_over = False

    def write(self, connection: Connection) -> None:
        self._found = self._scope.run(self._work, connection)

    def wait(self) -> None:
        """Until it is over, or until it is to lead."""
        self._turn.acquire()

    def wake(self) -> None:
        self._turn.release()

    def answer(self) -> Any:
        for variable, value in self._scope.items():
            # What it has noted for the log stays known to who waited for it.
            if variable.get(None) is not value:
                variable.set(value)
        if self.error is not None:
            raise self.error
        return self._found


class Group:
    """`transaction` begins one that writes, commits it at its end, and rolls it back where its block raises."""

    def __init__(self, transaction: Callable[[], AbstractContextManager[Connection]]) -> None:
        self._transaction = transaction
        self._lock = threading.Lock()
        self._waiting: list[_Part] = []
        self._is_led = False

    def write(self, work: Callable[[Connection], _T]) -> _T:
        """What `work` gives, once that is committed. Raises what it raises, and then nothing of it is kept; or what
        the commit raises, for all that were in it."""
        mine = _Part(work)
        with self._lock:
            self._waiting.append(mine)
            leads, self._is_led = not self._is_led, True
        if not leads:
            mine.wait()
        if not mine.is_over:
            self._lead()
        found: _T = mine.answer()
        return found

    def __len__(self) -> int:
        """How many wait for the next transaction."""
        return len(self._waiting)

    def _lead(self) -> None:
        parts: list[_Part] = []
        try:
            with self._transaction() as connection:
                parts = self._take()
                _write(connection, parts)
        except BaseException as error:  # noqa: BLE001 - the edge to other threads: all of them raise it
            for part in parts or (parts := self._take()):
                part.error = part.error or error
        self._end(parts)

    def _take(self) -> list[_Part]:
        with self._lock:
            parts, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
        return parts

    def _end(self, parts: list[_Part]) -> None:
        with self._lock:
            follower = self._waiting[0] if self._waiting else None
            self._is_led = follower is not None
        for part in parts:
            part.is_over = True
            part.wake()
        if follower is not None:
            follower.wake()


def _write(connection: Connection, parts: list[_Part]) -> None:
    if len(parts) == 1:
        parts[0].write(connection)
        return
    for part in parts:
        hand_over(connection, "SAVEPOINT part").close()
        try:
            part.write(connection)
        except Exception as error:  # noqa: BLE001 - the edge to another thread, which raises it
            part.error = error
            hand_over(connection, "ROLLBACK TO part").close()
        hand_over(connection, "RELEASE part").close()
