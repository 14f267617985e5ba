"""Files of jobs on a machine whose connection may break: what was under way then is done again."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

from app.node.asking import Stopped
from app.node.filing import Filed, Filing
from app.node.runner_client import Interrupted
from app.ssh.failures import Refused, TooMuch, Unreachable
from app.ssh.reach import Reach
from app.transport.messages import Job

log = logging.getLogger(__name__)

T = TypeVar("T")

_PAUSE_FIRST, _PAUSE_MOST = 0.2, 10.0


class PatientFiling:
    """Another filing (`app.node.filing.Filing`) whose work is done again where the machine behind `reach` was away.

    A job that has not begun fails once that was so for `patience` seconds, or the breaker is open. What a script has
    left is asked for as long as it takes, as its end is.
    """

    def __init__(self, filing: Filing, reach: Callable[[], Reach], patience: float) -> None:
        self._filing = filing
        self._reach = reach
        self._patience = patience
        self._changed = threading.Condition()
        self._stopped: set[str] = set()
        self._released = False

    def prepare(self, job: Job, files: Mapping[str, str]) -> str:
        given_up: float | None = None

        def is_given_up(error: Unreachable | Refused) -> bool:
            nonlocal given_up
            now = time.monotonic()
            given_up = given_up or now + self._patience
            is_away = now >= given_up or self._reach().breaker.state(now) != "closed"
            return is_away or isinstance(error, Refused)

        return self._until_done(job.id, lambda: self._filing.prepare(job, files), is_given_up)

    def collect(self, job: Job, files: Mapping[str, str], succeeded: bool) -> Filed:
        return self._until_done(job.id, lambda: self._filing.collect(job, files, succeeded), lambda _: False)

    def discard(self, job_id: str) -> None:
        self._filing.discard(job_id)
        with self._changed:
            self._stopped.discard(job_id)

    def stop(self, job_id: str) -> None:
        with self._changed:
            self._stopped.add(job_id)
            self._changed.notify_all()
        self._filing.stop(job_id)

    def release(self) -> None:
        with self._changed:
            self._released = True
            self._changed.notify_all()
        self._filing.release()

    def sweep(self, known: Collection[str]) -> None:
        self._filing.sweep(known)

    def _until_done(
        self, job_id: str, act: Callable[[], T], is_given_up: Callable[[Unreachable | Refused], bool]
    ) -> T:
        pause = _PAUSE_FIRST
        while True:
            try:
                return act()
            except TooMuch:
                raise
            except (Unreachable, Refused) as error:
                self._reach().spare()
                if is_given_up(error):
                    raise
                log.info("the files of job %s wait: %s", job_id, error.message)
            self._rest(job_id, pause * random.uniform(0.7, 1.0))
            pause = min(_PAUSE_MOST, 2 * pause)

    def _rest(self, job_id: str, seconds: float) -> None:
        """A pause. Raises Interrupted after `release`, and Stopped after `stop`."""
        with self._changed:
            self._changed.wait_for(lambda: self._released or job_id in self._stopped, seconds)
            if self._released:
                raise Interrupted(f"the files of job {job_id} are left to the next worker")
            if job_id in self._stopped:
                raise Stopped("nothing of it is wanted any more")
