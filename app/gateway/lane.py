"""Threads for one kind of work of one node: as many at once as it may have, and a bounded number that wait."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class Lane:
    """Does what it is given, in order, by `threads` threads. At most `waiting` more calls wait for one of them."""

    def __init__(self, name: str, threads: int, waiting: int) -> None:
        self._room = threading.BoundedSemaphore(threads + waiting)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)

    def put(self, act: Callable[..., None], *values: Any) -> bool:
        """Have `act(*values)` done; False where there is no room for it. It may not raise."""
        if not self._room.acquire(blocking=False):
            return False
        try:
            self._pool.submit(act, *values).add_done_callback(self._done)
        except RuntimeError:
            # Closed meanwhile.
            self._room.release()
            return False
        return True

    def close(self) -> None:
        """Forgets what waits; what is being done goes on to its end."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _done(self, _: Future[None]) -> None:
        self._room.release()
