"""The worker's side of the runner's socket: starts the runner, asks it, waits for jobs, hears its events.

One connection, read by one thread. When it breaks, that thread connects again, starts a runner where none
answers, and looks anew at every job that somebody waits for: what a dead runner left is `unknown` by then.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from app.errors import Conflict, InvalidInput, MusterError, NotFound, Unavailable
from app.node import jobdir, runner_start, shells
from app.node.questions import Question, Wait
from app.node.told import told
from app.transport.messages import Job

log = logging.getLogger(__name__)

ANSWER_WITHIN = 30.0
"""Seconds that a request may take, a restart of the runner in between included."""

_ERRORS: dict[str, type[MusterError]] = {
    "bad_request": InvalidInput,
    "other_digest": Conflict,
    "running": Conflict,
}


class Interrupted(MusterError):
    """`release` was called: whoever waited must let go; the script goes on."""

    code = "interrupted"


class _Lost(Exception):
    """The connection broke before the answer came."""


class RunnerClient:
    """Talks to the runner of `directory` for the node `node`. Every method may be called from any thread.

    Where no runner answers it starts one, if it `may_start`; otherwise it waits for somebody else's.

    The callbacks are called on the reading thread and must be quick: on_started(job id, pid, Unix time),
    on_output(job id), on_exited(job id). They may come again for a job after a broken connection.
    """

    def __init__(
        self,
        directory: str | Path,
        node: str,
        *,
        may_start: bool = True,
        on_started: Callable[[str, int, float], None] | None = None,
        on_output: Callable[[str], None] | None = None,
        on_exited: Callable[[str], None] | None = None,
    ) -> None:
        self.directory = os.path.abspath(directory)
        self._node = node
        self._may_start = may_start
        self._on_started = on_started
        self._on_output = on_output
        self._on_exited = on_exited
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._connected = threading.Event()
        self._wanted = threading.Event()
        self._sock: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._requests: dict[int, Question] = {}
        self._running: set[str] = set()
        self._unstored: dict[str, dict[str, Any]] = {}
        self._waits: dict[str, list[Wait]] = {}
        self._released = False
        self._closed = threading.Event()

    def ensure(self) -> dict[str, Any]:
        """Connects, with a runner of its own where none answers; what `ping` answers. Raises `Unavailable`."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._read_for_ever, name="runner-events", daemon=True)
                self._thread.start()
        answer = self.ping()
        self._empty_trash("")
        return answer

    def ping(self) -> dict[str, Any]:
        """The runner's pid, version and started_at."""
        return self._ask("ping")

    def start(self, job: Job, secrets: Mapping[str, str] | None = None) -> str:
        """Starts the journalled job, once and for all: `started`, `running` or `ended`.

        `secrets` are the values of its marks. Safe to repeat. Raises `Conflict` for a known id with another content,
        `Unavailable` where the runner does not answer or is stopping.
        """
        answer = self._ask("start", **self._order(job, secrets))
        return str(answer["state"])

    def _order(self, job: Job, secrets: Mapping[str, str] | None, workdir: str = "") -> dict[str, Any]:
        told_job = told(job, workdir)
        return {"job": told_job, "digest": job.digest, "node": self._node, "secrets": dict(secrets or {})}

    def run(self, job: Job, secrets: Mapping[str, str] | None = None, workdir: str = "") -> dict[str, Any]:
        """`start`, in `workdir` where it has a workspace, and `wait` in one; the exit record. Wakes the caller once."""
        with self._waiting(job.id) as waiting:
            self._ask("start", waiting.woken, **self._order(job, secrets, workdir))
            return self._until_over(job.id, waiting)

    def cancel(self, job_id: str, reason: str = "") -> str:
        """`ending`, `ended`, or `remembered` for a job that has not been started: it never will be."""
        return str(self._ask("cancel", job=job_id, reason=reason)["state"])

    def list(self) -> list[dict[str, Any]]:
        """The jobs that run: job, pid, at."""
        return list(self._ask("list")["jobs"])

    def forget(self, job_id: str) -> None:
        """Discards all that is kept of an ended job, its output included. Raises `Conflict` while it runs."""
        self._ask("forget", job=job_id)
        with self._lock:
            self._unstored.pop(job_id, None)
        self._empty_trash(job_id)

    def stop(self, cancel: bool = False) -> int:
        """Tells the runner to exit with its last job, or (`cancel`) to end its jobs first; how many run.

        It is started again only when something else is asked, or a job is waited for that it did not end.
        """
        self._wanted.clear()
        self._connected.wait(1.0)
        try:
            answer = self._exchange({"do": "stop", "cancel": cancel}, ANSWER_WITHIN)
        except _Lost:
            return 0
        return int(answer["running"])

    def spool(self, job_id: str) -> str:
        """The directory that holds the job's output: for `spool.Follower` and `spool.text`."""
        return jobdir.path(self.directory, job_id)

    def is_reachable(self) -> bool:
        """Always: it is on this machine, and while it does not answer its jobs wait here."""
        return True

    def shells(self) -> tuple[str, ...]:
        """The shells that this machine has."""
        return shells.available()

    def facts(self) -> dict[str, str]:
        """Nothing: what is to be known of this machine, its own worker says."""
        return {}

    def wait(self, job_id: str) -> dict[str, Any]:
        """Blocks until the job is over; its exit record.

        Raises `Interrupted` after `release`, and `NotFound` for a job that the runner does not have: never
        started, or forgotten.
        """
        with self._waiting(job_id) as waiting:
            return self._until_over(job_id, waiting)

    @contextmanager
    def _waiting(self, job_id: str) -> Iterator[Wait]:
        waiting = Wait()
        with self._lock:
            self._waits.setdefault(job_id, []).append(waiting)
        try:
            yield waiting
        finally:
            with self._lock:
                self._waits[job_id].remove(waiting)
                if not self._waits[job_id]:
                    del self._waits[job_id]

    def _until_over(self, job_id: str, waiting: Wait) -> dict[str, Any]:
        while True:
            waiting.woken.clear()
            if self._released:
                raise Interrupted(f"the wait for job {job_id} was given up")
            record = waiting.record or self._look(job_id)
            if record is not None:
                return record
            waiting.woken.wait()

    def release(self) -> None:
        """Makes every `wait`, now and from now on, raise `Interrupted` at once. The scripts go on."""
        self._released = True
        self._wake_all()

    def close(self) -> None:
        """Releases, and ends the connection. The runner goes on."""
        self._closed.set()
        self.release()
        self._connected.set()
        self._wanted.set()
        with self._lock:
            if self._sock is not None:
                with suppress(OSError):
                    self._sock.shutdown(socket.SHUT_RDWR)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(5.0)

    def _empty_trash(self, job_id: str) -> None:
        """Removes what was discarded of the job, or of all. Done here because the runner may not wait."""
        trash = os.path.join(self.directory, "trash")
        for name in os.listdir(trash):
            if not job_id or name.rpartition(".")[0] == job_id:
                shutil.rmtree(os.path.join(trash, name), ignore_errors=True)

    def _look(self, job_id: str) -> dict[str, Any] | None:
        # In this order: a job leaves `running` only after its record is there.
        with self._lock:
            runs = job_id in self._running
            may_come = runs or not self._connected.is_set()
            record = self._unstored.get(job_id)
        # While it runs its file is the script's own to write into: the last word is not there yet.
        if record is None and not runs:
            record = jobdir.exit_record(self.spool(job_id))
        if record is None and not may_come:
            raise NotFound(f"the runner has no job {job_id}", hint="it was never started, or was forgotten")
        return record

    def _wake_all(self) -> None:
        with self._lock:
            for waits in self._waits.values():
                for waiting in waits:
                    waiting.woken.set()

    # Asking

    def _ask(self, verb: str, woken: threading.Event | None = None, /, **fields: Any) -> dict[str, Any]:
        """The answer. Who gives `woken`, by which the end of a job is told, is `patient`."""
        deadline = time.monotonic() + ANSWER_WITHIN
        self._wanted.set()
        while True:
            left = deadline - time.monotonic()
            if self._closed.is_set() or not self._connected.wait(max(0.0, left)) or self._closed.is_set():
                hint = f"see {self.directory}/runner.log"
                raise Unavailable("the runner does not answer", hint=hint, code="runner")
            if woken is not None:
                woken.clear()
                if self._released:
                    raise Interrupted("the wait for a job was given up")
            try:
                answer = self._exchange({"do": verb, **fields}, max(0.1, left), woken)
            except _Lost:
                # Every request may be asked again: a claim makes sure that `start` starts once. So it does not matter
                # either if something else than the answer woke who is patient.
                continue
            if answer.get("ok"):
                return answer
            error = answer["error"]
            kind = _ERRORS.get(error["type"], Unavailable)
            raise kind(error["message"], code=f"runner-{error['type'].replace('_', '-')}")

    def _exchange(
        self, request: dict[str, Any], timeout: float, woken: threading.Event | None = None
    ) -> dict[str, Any]:
        number = next(self._numbers)
        waiting = Question(woken)
        line = json.dumps({"id": number, **request}).encode() + b"\n"
        with self._lock:
            sock = self._sock
            if sock is None:
                raise _Lost
            self._requests[number] = waiting
        try:
            with self._sending:
                sock.sendall(line)
        except OSError:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        waiting.done.wait(timeout)
        with self._lock:
            self._requests.pop(number, None)
        if waiting.answer is not None:
            return waiting.answer
        if waiting.done.is_set():
            raise _Lost
        raise Unavailable(f"the runner did not answer within {timeout:.0f} s", code="runner")

    # Hearing

    def _read_for_ever(self) -> None:
        pause = 0.02
        while not self._closed.is_set():
            if not (self._waits or self._wanted.wait(0.5)) or self._closed.is_set():
                continue
            try:
                sock = runner_start.reach(self.directory, self._closed.is_set, may_start=self._may_start)
            except (OSError, Unavailable) as error:
                log.warning("no runner in %s: %s", self.directory, error)
                self._closed.wait(pause)
                pause = min(2.0, pause * 2)
                continue
            pause = 0.02
            with self._lock:
                self._sock = sock
                if self._closed.is_set():
                    sock.shutdown(socket.SHUT_RDWR)
            try:
                sock.sendall(b'{"id": 0, "do": "watch"}\n')
                with sock.makefile("rb") as lines:
                    for line in lines:
                        self._heard(json.loads(line))
            except (OSError, ValueError) as error:
                log.info("the connection to the runner broke: %s", error)
            finally:
                self._lose(sock)

    def _lose(self, sock: socket.socket) -> None:
        with self._lock:
            self._sock = None
            if not self._closed.is_set():
                self._connected.clear()
            lost, self._requests = self._requests, {}
        sock.close()
        for request in lost.values():
            request.done.set()

    def _heard(self, message: dict[str, Any]) -> None:
        event = message.get("event")
        if event is None:
            self._answered(message)
        elif event == "started":
            self._started(message)
        elif event == "output":
            self._call(self._on_output, message["job"])
        elif event == "exited":
            self._exited(message["job"], message["record"], message["stored"])

    def _started(self, message: dict[str, Any]) -> None:
        with self._lock:
            self._running.add(message["job"])
        self._call(self._on_started, message["job"], message["pid"], message["at"])

    def _answered(self, answer: dict[str, Any]) -> None:
        if answer.get("id") == 0:
            self._resync(answer)
            return
        state = answer.get("state")
        if state == "started":
            self._started(answer)
        with self._lock:
            request = self._requests.pop(answer.get("id", -1), None)
        if request is not None:
            request.answer = answer
            if not (request.patient and state in ("started", "running")):
                request.done.set()

    def _resync(self, answer: dict[str, Any]) -> None:
        """Takes over what the runner says it has. What was awaited and is not there has ended meanwhile."""
        with self._lock:
            gone = self._running.difference(job["job"] for job in answer["jobs"])
            self._running = {job["job"] for job in answer["jobs"]}
            self._unstored.update(answer["unstored"])
            self._connected.set()
        self._wake_all()
        for job in answer["jobs"]:
            self._call(self._on_started, job["job"], job["pid"], job["at"])
            self._call(self._on_output, job["job"])
        for job_id in gone:
            self._call(self._on_exited, job_id)

    def _exited(self, job_id: str, record: dict[str, Any] | None, is_stored: bool) -> None:
        with self._lock:
            if record is not None and not is_stored:
                self._unstored[job_id] = record
            self._running.discard(job_id)
            for waiting in self._waits.get(job_id, ()):
                waiting.record = record
                waiting.woken.set()
        self._call(self._on_exited, job_id)

    def _call(self, callback: Callable[..., None] | None, *values: Any) -> None:
        if callback is None:
            return
        try:
            callback(*values)
        except Exception:
            # The edge to the worker's code: a fault there must not cut the worker off from its scripts.
            log.exception("a callback for the runner's events failed")
