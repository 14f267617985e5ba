"""A node's pulse: DIR/heartbeat is locked while a worker lives, and as old as the last heartbeat that got out.

So whoever looks after a node sees both, without a word with the worker.
"""

from __future__ import annotations

import fcntl
import os
import time
from dataclasses import dataclass
from pathlib import Path

FILE = "heartbeat"


@dataclass(frozen=True, slots=True)
class Seen:
    """Whether a worker lives, and the Unix time of the last heartbeat that got out, None if there was none."""

    is_alive: bool
    beat_at: float | None


class Pulse:
    """The worker's end: held until `close` or the end of the process."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = os.open(directory / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # Waits for nobody but a look, which takes a moment. Shared: it is the name that one worker alone may hold.
        fcntl.flock(self._file, fcntl.LOCK_SH)

    def beat(self) -> None:
        """A heartbeat got out, now. Raises OSError."""
        now = time.time_ns()
        os.pwrite(self._file, b"%d\n" % now, 0)
        os.utime(self._file, ns=(now, now))

    def close(self) -> None:
        os.close(self._file)


def look(directory: Path) -> Seen:
    """What there is to see of the worker of this directory."""
    try:
        file = os.open(directory / FILE, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return Seen(False, None)
    try:
        found = os.fstat(file)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_alive = False
    except BlockingIOError:
        is_alive = True
    finally:
        os.close(file)
    return Seen(is_alive, found.st_mtime if found.st_size else None)
