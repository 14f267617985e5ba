"""Scripts on this machine: as many at a time as a node has slots, by a runner that starts with the first of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from typing import Any, Final

from app.compiler.plan import LOCAL
from app.errors import Conflict, InvalidInput
from app.local.runner import OwnRunner
from app.node.executor import not_run, outcome_from
from app.node.spool import STREAMS, Follower
from app.transport.messages import Job, Outcome

OUTPUT: Final = "output"
EXITED: Final = "exited"
GONE: Final = "gone"

Tell = Callable[[Job, str, bytes], None]
"""Is told what a job wrote to a stream, as it comes."""

_NOWHERE: Final[dict[str, str]] = {"installation": "", "node": LOCAL, "epoch": ""}


@dataclass(slots=True)
class _Running:
    job: Job
    followers: dict[str, Follower] = field(default_factory=dict)


class Slots:
    """`count` scripts at a time. What happens is put into `events` as (one of OUTPUT, EXITED, GONE, job id): whoever
    takes it out hands it to `heard`.
    """

    def __init__(self, count: int, events: SimpleQueue[tuple[str, str]], tell: Tell) -> None:
        self._count = count
        self._events = events
        self._tell = tell
        self._waiting: deque[Job] = deque()
        self._running: dict[str, _Running] = {}
        self._runner: OwnRunner | None = None

    def start(self, job: Job) -> list[Outcome]:
        """Run a job once there is a slot. The outcomes of those that were refused. Raises Unavailable."""
        self._waiting.append(job)
        return self._fill()

    def cancel(self, job_id: str, reason: str) -> Outcome | None:
        """End a job. The outcome of one that had not begun; any other's comes once it is over."""
        for job in self._waiting:
            if job.id == job_id:
                self._waiting.remove(job)
                return _cancelled(job, reason)
        if job_id in self._running and self._runner is not None:
            self._runner.client.cancel(job_id, reason)
        return None

    def has(self, job_id: str) -> bool:
        """Whether the job runs; its outcome is still to come."""
        return job_id in self._running

    def heard(self, what: str, job_id: str) -> list[Outcome]:
        """The outcomes of what has ended by an event. Raises Unavailable where the runner died."""
        if job_id not in self._running:
            return []
        self._follow(self._running[job_id])
        return [self._over(job_id), *self._fill()] if what == EXITED else []

    def _fill(self) -> list[Outcome]:
        failed = []
        while self._waiting and len(self._running) < self._count:
            job = self._waiting.popleft()
            if self._runner is None:
                self._runner = self._started()
            self._running[job.id] = _Running(job)
            try:
                self._runner.client.start(job)
            except (InvalidInput, Conflict) as error:
                if self._running.pop(job.id, None):
                    failed.append(not_run(job, "refused", error.message, **_NOWHERE))
        return failed

    def _started(self) -> OwnRunner:
        put = self._events.put
        return OwnRunner(
            lambda job: put((OUTPUT, job)), lambda job: put((EXITED, job)), lambda: put((GONE, ""))
        )

    def _over(self, job_id: str) -> Outcome:
        assert self._runner is not None
        running, client = self._running.pop(job_id), self._runner.client
        record: dict[str, Any] = client.wait(job_id)
        for follower in running.followers.values():
            follower.close()
        client.forget(job_id)
        return outcome_from(record, running.job, **_NOWHERE)

    def _follow(self, running: _Running) -> None:
        assert self._runner is not None
        for stream in STREAMS:
            follower = running.followers.get(stream)
            if follower is None:
                follower = Follower(self._runner.client.spool(running.job.id), stream)
                running.followers[stream] = follower
            while data := _read(follower):
                self._tell(running.job, stream, data)

    def close(self) -> None:
        """End what still runs, and the runner."""
        for running in self._running.values():
            for follower in running.followers.values():
                follower.close()
        if self._runner is not None:
            self._runner.close()


def _read(follower: Follower) -> bytes:
    try:
        return follower.read()[1]
    except OSError:
        # The directory is the script's own: it may have put something else in the place of what it wrote.
        return b""


def _cancelled(job: Job, reason: str) -> Outcome:
    never_begun = not_run(job, "cancelled", reason, **_NOWHERE)
    return replace(never_begun, status="cancelled")
