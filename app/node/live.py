"""What scripts write, handed on while they run."""

from __future__ import annotations

import threading
from collections.abc import Callable

from app.node.spool import Tail
from app.transport.output import OutputWriter


class LiveOutput:
    """Follows the spools of jobs into their streams. `spool` gives a job's directory; any thread may call."""

    def __init__(self, writer: OutputWriter, spool: Callable[[str], str]) -> None:
        self._writer = writer
        self._spool = spool
        self._followed: set[str] = set()
        self._lock = threading.Lock()

    def grown(self, job: str) -> None:
        """There is more in the job's spool."""
        with self._lock:
            fresh = job not in self._followed
            self._followed.add(job)
        if fresh:
            tail = Tail(self._spool(job))
            self._writer.follow(job, tail.read, tail.close)
        else:
            self._writer.wake(job)

    def over(self, job: str) -> None:
        """Nothing more will come."""
        with self._lock:
            followed = job in self._followed
            self._followed.discard(job)
        if followed:
            self._writer.finish(job)

    def again(self, job: str) -> None:
        """All that was kept of it, from the beginning."""
        with self._lock:
            self._followed.discard(job)
        self.grown(job)
        self._writer.finish(job)

    def close(self, seconds: float = 5.0) -> bool:
        """Hand on what there is; False if that took over `seconds`, or Redis is away."""
        return self._writer.close(seconds)
