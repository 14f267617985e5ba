"""A control worker that kills itself at the n-th point of taking outcomes in: between any two statements.

Everything is imported once; every number read from standard input makes a fresh worker (a fork) that dies at that
point, 0 one that does not; its pid is the answer. Points are, in `collect` and `settle` alone: their start, every
statement, every commit, before and after messages are sent, and their end, before the broker hears of it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any, NoReturn

import kombu.transport.redis  # noqa: F401 - loaded before the fork
from celery import signals
from sqlalchemy import Engine, event

from app.store import prepared
from app.transport import publisher, queues, worker  # noqa: F401 - loaded before the fork
from workers import control

WATCHED = (queues.COLLECT, queues.SETTLE)


class Failpoint:
    """Counts points in the threads that run a watched job function."""

    def __init__(self, at: int) -> None:
        self._at = at
        self._count = 0
        self._lock = threading.Lock()
        self._here = threading.local()

    def install(self) -> None:
        signals.task_prerun.connect(self._begin, weak=False)
        signals.task_postrun.connect(self._end, weak=False)
        publisher.Publisher.send = self._around(publisher.Publisher.send)  # type: ignore[method-assign]
        event.listen(Engine, "before_cursor_execute", self._point)
        event.listen(Engine, "commit", self._point)
        prepared.execute = self._before(prepared.execute)

    def _before(self, execute: Any) -> Any:
        def pointed(*given: Any, **options: Any) -> Any:
            self._point()
            return execute(*given, **options)

        return pointed

    def _around(self, send: Any) -> Any:
        def pointed(*given: Any) -> None:
            self._point()
            send(*given)
            self._point()

        return pointed

    def _begin(self, task: Any = None, **_: Any) -> None:
        self._here.watched = task.name in WATCHED
        self._point()

    def _end(self, **_: Any) -> None:
        self._point()
        self._here.watched = False

    def _point(self, *_: Any, **__: Any) -> None:
        if not getattr(self._here, "watched", False):
            return
        with self._lock:
            self._count += 1
            if self._count == self._at:
                os.kill(os.getpid(), signal.SIGKILL)


def work(at: int) -> NoReturn:
    if at:
        Failpoint(at).install()
    control.celery.Worker().start()
    os._exit(0)


def main() -> None:
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(2, 1)
            work(int(line))
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()
        os.waitpid(pid, 0)
        sys.stdout.write("ended\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
