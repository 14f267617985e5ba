"""Looks after a machine while jobs run there: says that we are alive, and removes what is over.

One thread, which sleeps while there is nothing to do.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
from collections.abc import Callable

from app.node import jobdir
from app.ssh import far_side
from app.ssh.failures import Refused, Unreachable
from app.ssh.link import Link, Session, run
from app.ssh.reach import Reach

log = logging.getLogger(__name__)

_REMOVE_AFTER = 1.0
"""Seconds for which jobs that are over are gathered, to be removed together."""
_MOST_AT_ONCE = 200
_MOST_WAITING = 10_000
_LEFTOVERS_EVERY = 3600.0


class Care:
    """`is_long` says whether something runs long enough to need signs of life; None: nothing runs."""

    def __init__(self, reach: Reach, is_long: Callable[[], bool | None]) -> None:
        self._reach = reach
        self._is_long = is_long
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._closing = False
        self._over: list[str] = []
        self._looked_at: float | None = None
        self._keeper: tuple[Link, Session] | None = None
        self._numbers = itertools.count(1)
        self._prefix = os.urandom(4).hex()

    def wake(self) -> None:
        """A job has come."""
        with self._lock:
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._run, name="ssh-care", daemon=True)
                self._thread.start()
        if not self._wake.is_set():
            self._wake.set()

    def over(self, job_id: str) -> None:
        """What the machine keeps of the job is not needed any more."""
        with self._lock:
            self._over.append(job_id)
            # A machine that is away for long has its leftovers removed by their age.
            del self._over[:-_MOST_WAITING]
        self.wake()

    def close(self) -> None:
        self._closing = True
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(5.0)

    def _run(self) -> None:
        pulse = max(0.05, min(10.0, self._reach.ground.leash / 6))
        while not self._closing:
            if self._is_long() is None and not self._over:
                self._wake.wait()
                self._wake.clear()
            self._pause(min(pulse, _REMOVE_AFTER))
            try:
                if self._is_long():
                    self._beat()
                self._remove()
                if self._reach.open_link is not None:
                    self._reach.look()
            except (Refused, Unreachable) as error:
                log.info("%s: %s", self._reach.target.address, error.message)
        self._remove_last()

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._closing and (left := until - time.monotonic()) > 0:
            # Every new job wakes, and none of them is a reason to be early.
            self._wake.clear()
            self._wake.wait(left)

    def _beat(self) -> None:
        link = self._reach.open_link
        if link is None:
            return
        if self._keeper is None or self._keeper[0] is not link:
            line = far_side.keep(self._reach.ground.base)
            self._keeper = link, link.open(far_side.LISTENING, line, _unheard, keep=True)
        self._keeper[1].write(f"{self._prefix}.{next(self._numbers)}\n".encode())

    def _remove(self) -> None:
        link = self._reach.open_link
        if link is None:
            return
        with self._lock:
            names, self._over = self._over[:_MOST_AT_ONCE], self._over[_MOST_AT_ONCE:]
        base = self._reach.ground.base
        now = time.monotonic()
        if self._looked_at is None or now - self._looked_at > _LEFTOVERS_EVERY:
            self._looked_at = now
            found = run(link, far_side.COMMAND, far_side.leftovers(base)).stdout.decode("utf-8", "replace")
            # `jobs/<id>/_exit`; only what is a job's id is handed to rm.
            left = [line.split("/")[1] for line in found.splitlines() if line.count("/") == 2]
            names += [name for name in left if jobdir.is_id(name)]
        if not names:
            return
        try:
            done = run(link, far_side.COMMAND, far_side.remove(base, names))
        except Unreachable:
            with self._lock:
                self._over += names
            raise
        if done.status:
            said = done.stderr.decode("utf-8", "replace").strip()[:300]
            log.warning("%s: what is over cannot be removed: %s", self._reach.target.address, said)

    def _remove_last(self) -> None:
        try:
            self._remove()
        except Unreachable as error:
            log.info(
                "%s keeps %d jobs for now: %s", self._reach.target.address, len(self._over), error.message
            )


def _unheard(_: str, __: bytes) -> None:
    """What takes signs of life has nothing to say."""
