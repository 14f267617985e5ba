"""One execution played in real time: jobs to this machine's slots, timers by this process' clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Final, Protocol

from app.engine.rehearsal import Rehearsal
from app.engine.state import JobState
from app.engine.status import CANCELLED, FAILED, TIMED_OUT, UNKNOWN
from app.errors import InvalidInput, TooLarge, Unavailable
from app.ids import trace_of
from app.jobs.build import JOB_BYTES, build_job
from app.jobs.result import judged
from app.language import shell_values
from app.local.slots import GONE, Slots
from app.settings import Settings
from app.transport.messages import Job, Outcome

STOPPED: Final = "stopped"
"""The event by which somebody asks the run to end; its other half says why."""

Events = SimpleQueue[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Written:
    """A piece of what a job wrote to a stream, `stdout` or `stderr`; it may end within a line."""

    job: str
    task: str
    unit: int
    stream: str
    data: bytes


class Watcher(Protocol):
    """Is told what happens, as it happens."""

    def task(self, name: str, status: str) -> None:
        """A task has another status."""

    def wrote(self, piece: Written) -> None:
        """A script wrote something."""


def clock() -> Callable[[], float]:
    """Unix seconds that only ever go forward, whatever is done to the machine's clock meanwhile."""
    begun, at = time.monotonic(), time.time()
    return lambda: at + time.monotonic() - begun


class Player:
    """Plays `world` to its end. `stopped` is (cancelled or timed_out, why) once somebody or the time asked for that."""

    def __init__(self, world: Rehearsal, watcher: Watcher, events: Events, slots: int) -> None:
        self.world = world
        self.stopped: tuple[str, str] | None = None
        self._watcher = watcher
        self._events = events
        self._slots = Slots(slots, events, self._wrote)
        self._now = clock()
        self._deadline: float | None = None
        self._seen_log = self._seen_started = self._seen_stops = 0

    def play(self, timeout: float | None) -> None:
        """Until the execution is over, at most `timeout` seconds and what scripts need to end.

        Raises Unavailable where the runner cannot be started, or dies.
        """
        world = self.world
        world.now = self._now()
        self._deadline = None if timeout is None else world.now + timeout
        world.submit()
        self._notice()
        while not world.over:
            event = self._next()
            world.now = max(world.now, self._now())
            if event is None:
                self._due(timeout)
            else:
                self._take(*event)
            self._notice()

    def close(self) -> None:
        """No script goes on."""
        self._slots.close()

    # what happens

    def _next(self) -> tuple[str, str] | None:
        """The next event; None once a timer is due, or the time is over."""
        due = [self.world.timers[key] for key in self.world.due_timers]
        if self._deadline is not None:
            due.append(self._deadline)
        try:
            if not due:
                return self._events.get()
            return self._events.get(timeout=max(0.0, min(due) - self._now()))
        except Empty:
            return None

    def _take(self, what: str, about: str) -> None:
        if what == STOPPED:
            self._stop(CANCELLED, about, forced=self.stopped is not None)
        elif what == GONE:
            raise Unavailable("the runner died, and with it every script", code="runner")
        else:
            self._over(self._slots.heard(what, about))

    def _due(self, timeout: float | None) -> None:
        if self._deadline is not None and self._now() >= self._deadline:
            self._deadline = None
            self._stop(TIMED_OUT, f"it was not over after {timeout:g} s", forced=True)
        for key in self.world.due_timers:
            if self.world.timers.get(key, self.world.now + 1) <= self.world.now:
                self.world.fire_timer(key)

    def _stop(self, status: str, why: str, *, forced: bool) -> None:
        if self.stopped is None or status == TIMED_OUT:
            self.stopped = (status, why)
        self.world.cancel(forced=forced)

    # what the last step brought

    def _notice(self) -> None:
        """Until nothing new comes of it: a job that cannot be started is over at once."""
        world = self.world
        while True:
            self._tell()
            started, stops = world.started[self._seen_started :], world.told_to_stop[self._seen_stops :]
            if not started and not stops:
                return
            self._seen_started, self._seen_stops = len(world.started), len(world.told_to_stop)
            for job_id in started:
                if world.is_open(job_id) and job_id not in world.stopped:
                    self._start(world.jobs[job_id])
            for job_id in stops:
                if world.is_open(job_id):
                    self._cancel(job_id)

    def _tell(self) -> None:
        for line in self.world.log[self._seen_log :]:
            if line["what"] == "task":
                self._watcher.task(line["task"], line["status"])
        self._seen_log = len(self.world.log)

    def _wrote(self, job: Job, stream: str, data: bytes) -> None:
        self._watcher.wrote(Written(job.id, job.task, job.unit, stream, data))

    def _start(self, row: JobState) -> None:
        try:
            job = self._job(row)
        except InvalidInput as problem:
            self._fail(row, "input", problem.message)
        except TooLarge as problem:
            self._fail(row, "too_large", problem.message)
        else:
            self._over(self._slots.start(job))

    def _job(self, row: JobState) -> Job:
        """What the runner is told. Raises InvalidInput and TooLarge, as it would be on a server."""
        world = self.world
        task = world.plan.tasks[row.task]
        given, timeout = self._given(row)
        more: dict[str, Any] = {"plan": world.plan, "trace_id": trace_of(world.execution.id)}
        job = build_job(world.execution.id, task, given, timeout, row, Settings(), **more)
        shell_values.check(job.shell, job.env)
        if job.size > JOB_BYTES:
            raise TooLarge(f"input and script are {job.size} bytes, a job may have {JOB_BYTES}")
        return job

    def _given(self, row: JobState) -> tuple[Mapping[str, Any], float | None]:
        """The rendered input of a job, and its timeout in seconds."""
        if row.given is not None:
            return row.given["input"], row.given["timeout"]
        task = self.world.tasks[row.task]
        return task.input or {}, task.timeout

    def _fail(self, row: JobState, kind: str, message: str) -> None:
        self.world.end(row.id, FAILED, {}, {"type": kind, "message": message})

    def _cancel(self, job_id: str) -> None:
        outcome = self._slots.cancel(job_id, "the task was stopped")
        if outcome is not None:
            self._over([outcome])
        elif not self._slots.has(job_id):
            self.world.end(job_id, CANCELLED, {}, {"type": CANCELLED, "message": "the task was stopped"})

    def _over(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            self._end(outcome)

    def _end(self, outcome: Outcome) -> None:
        row = self.world.jobs[outcome.job]
        row.started_at = outcome.started_at or row.started_at
        status, result, error = judged(self.world.plan, row.task, outcome, lambda: self._given(row)[0])
        # Nobody could say more of it later: here it has failed.
        self.world.end(outcome.job, FAILED if status == UNKNOWN else status, result, error)
