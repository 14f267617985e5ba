"""Looks after a machine while jobs run there: says that we are alive, and removes what is over.

Two threads, which sleep while there is nothing to do. What is to be removed may be large, or on a slow disk: the signs
of life must not wait for that.
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

_EVERY = 1.0
"""Seconds between two signs of life, at the most; what is over is gathered for so long, to be removed together."""
_MOST_AT_ONCE = 200
_MOST_WAITING = 10_000
_LEFTOVERS_EVERY = 3600.0


class _Rounds:
    """A thread that does `act` every `pause` seconds, while there is something to do for it.

    It begins with `wake`, which is called whenever that may have changed. `name` is whom it is about.
    """

    def __init__(self, name: str, pause: float, is_idle: Callable[[], bool], act: Callable[[], None]) -> None:
        self._name = name
        self._pause = pause
        self._is_idle = is_idle
        self._act = act
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._closing = False

    def wake(self) -> None:
        with self._lock:
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._run, name="ssh-care", daemon=True)
                self._thread.start()
        if not self._wake.is_set():
            self._wake.set()

    def end(self) -> None:
        """Has it end, after once more."""
        with self._lock:
            self._closing = True
        self._wake.set()

    def join(self) -> None:
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(5.0)

    def _run(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._closing
            if not is_last and self._is_idle():
                self._wake.wait()
                self._wake.clear()
            self._rest()
            try:
                self._act()
            except (Refused, Unreachable) as error:
                log.info("%s: %s", self._name, error.message)
            except Exception:  # the edge of the thread: without it there would be no sign of life any more
                log.exception("%s is not looked after as it should be", self._name)

    def _rest(self) -> None:
        until = time.monotonic() + self._pause
        while not self._closing and (left := until - time.monotonic()) > 0:
            # Every new job wakes, and none of them is a reason to be early.
            self._wake.clear()
            self._wake.wait(left)


class Care:
    """`is_long` says whether something runs long enough to need signs of life; None: nothing runs. `is_owed` says of a
    job's id whether its end is still to be heard from the machine."""

    def __init__(
        self, reach: Reach, is_long: Callable[[], bool | None], is_owed: Callable[[str], bool]
    ) -> None:
        self._reach = reach
        self._is_long = is_long
        self._is_owed = is_owed
        self._lock = threading.Lock()
        self._over: list[str] = []
        self._looked_at: float | None = None
        self._keeper: _Keeper | None = None
        self._numbers = itertools.count(1)
        self._prefix = os.urandom(4).hex()
        name = reach.target.address
        pulse = max(0.05, min(_EVERY, reach.ground.leash / 6))
        self._pulse = _Rounds(name, pulse, lambda: is_long() is None, self._beat)
        self._tidying = _Rounds(name, pulse, lambda: is_long() is None and not self._over, self._tidy)

    def wake(self) -> None:
        """A job has come."""
        self._pulse.wake()
        self._tidying.wake()

    def over(self, job_id: str) -> None:
        """What the machine keeps of the job is not needed any more."""
        with self._lock:
            self._over.append(job_id)
            # A machine that is away for long has its leftovers removed by their age.
            del self._over[:-_MOST_WAITING]
        self._tidying.wake()

    def close(self) -> None:
        self._pulse.end()
        self._tidying.end()
        self._pulse.join()
        self._tidying.join()

    def _beat(self) -> None:
        link = self._reach.open_link
        if link is None or not self._is_long():
            return
        if self._keeper is None or self._keeper.is_over or self._keeper.link is not link:
            self._keeper = _Keeper(link, self._reach.ground.base)
        self._keeper.beat(f"{self._prefix}.{next(self._numbers)}\n".encode())

    def _tidy(self) -> None:
        link = self._reach.open_link
        if link is not None:
            self._remove(link)
            self._reach.look()
            self._reach.engage()

    def _remove(self, link: Link) -> None:
        left = self._leftovers(link)
        with self._lock:
            names, self._over = self._over[:_MOST_AT_ONCE], self._over[_MOST_AT_ONCE:]
        if not names and not left:
            return
        try:
            if (desk := self._reach.open_desk) is not None and desk.remove([*names, *left]):
                return
            done = run(link, far_side.COMMAND, far_side.remove(self._reach.ground.base, [*names, *left]))
        except Unreachable:
            with self._lock:
                self._over += names
                log.info("%s keeps %d jobs for now", self._reach.target.address, len(self._over))
            raise
        if done.status:
            said = done.stderr.decode("utf-8", "replace").strip()[:300]
            log.warning("%s: what is over cannot be removed: %s", self._reach.target.address, said)

    def _leftovers(self, link: Link) -> list[str]:
        """Each hour the jobs that nobody has removed for a day; what only the machine knows of is not among them."""
        now = time.monotonic()
        if self._looked_at is not None and now - self._looked_at <= _LEFTOVERS_EVERY:
            return []
        self._looked_at = now
        program = far_side.leftovers(self._reach.ground.base)
        found = run(link, far_side.COMMAND, program).stdout.decode("utf-8", "replace")
        # `jobs/<id>/_exit`; only what is a job's id is handed to rm.
        left = [line.split("/")[1] for line in found.splitlines() if line.count("/") == 2]
        return [name for name in left if jobdir.is_id(name) and not self._is_owed(name)]


class _Keeper:
    """The session that takes signs of life on `link`. It has nothing to say but its end."""

    def __init__(self, link: Link, base: str) -> None:
        self.link = link
        self.is_over = False
        self._session: Session = link.open(far_side.LISTENING, far_side.keep(base), self._hear, keep=True)

    def beat(self, line: bytes) -> None:
        self._session.write(line)

    def _hear(self, kind: str, _: bytes) -> None:
        if kind == "closed":
            self.is_over = True
