"""The runner: the one process of a node that owns every script. `python -m app.node.runner --dir DIR`.

It listens on a unix socket (its path is in DIR/runner.json; DIR/runner.sock unless that is too long) for
JSON lines, `{"id": n, "do": verb, …}`, and answers `{"id": n, "ok": true, …}` or `{"id": n, "ok": false,
"error": {type, message}}`:

    start    job, digest, node,   state started (with pid, at), running or ended; secrets are the values of the
             secrets              job's marks, which no file is given but input.json, until the job ends
    cancel   job, reason          state ending, ended or remembered (a later start is then refused as
    cancelled) list                          jobs: those that run; unstored: exit records that the disk did
    not take watch                         as list; from then on this connection gets events
    forget   job                  discards all that is kept of a job that does not run
    ping                          pid, version, started_at
    stop     cancel               refuses new starts and exits with the last job; cancel: true ends them now

Events: started (job, pid, at; who asked for the start has its answer instead), output (job: a nudge, the bytes are in
the spool), exited (job, stored, record: how it ended, unless it is long and stored in the job's directory).

One thread, standard library only. It outlives the worker that started it. SIGTERM is `stop`; a second one is
`stop` with cancel. Everything a job leaves is in its own directory: `app.node.jobdir`.

With --private it belongs to one process: it writes a line once it listens, the end of its standard input is `stop` with
cancel, and it takes DIR with it.
"""

from __future__ import annotations

import contextlib
import getopt
import json
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any

from app.node import endpoint, jobdir, launch, orphans, process, requests
from app.node.connection import Connection
from app.node.logfile import log, log_fault
from app.node.requests import BadRequest
from app.node.server import Server, Verb

VERSION = 1
RESERVE = 16 << 20
"""Bytes that must be free on the disk for a job to start: room for journal and exit records."""

_STDIN, _STDOUT = 0, 1
_MAX_REMEMBERED = 10_000
_STORE_EVERY = 1.0
_TOLD = 65_536
"""Characters of an exit record that an event carries, so that watchers need not read the file."""


class Runner:
    """The loop and what it knows. `reserve`: bytes; `unstored`: exit records that the disk did not take."""

    def __init__(
        self, root: str, listener: socket.socket, reserve: int, unstored: dict[str, dict[str, Any]]
    ) -> None:
        self._root = root
        self._reserve = reserve
        self._started_at = time.time()
        self._jobs: dict[str, process.Process] = {}
        self._unstored = unstored
        self._store_at = 0.0
        self._remembered = dict.fromkeys(orphans.remembered_cancels(root, self._started_at))
        self._buffer = bytearray(262_144)
        self._stopping = False
        self._selector = selectors.DefaultSelector()
        self._listen_for_signals()
        verbs: dict[str, Verb] = {
            "start": self._start,
            "cancel": self._cancel,
            "list": self._list,
            "watch": self._watch,
            "forget": self._forget,
            "ping": self._ping,
            "stop": self._stop,
        }
        self._server = Server(self._selector, listener, verbs)

    def end_with(self, descriptor: int) -> None:
        """Ends, with every job, once nobody holds the other end of this pipe any more."""

        def gone() -> None:
            self._selector.unregister(descriptor)
            self._begin_stop(cancel=True)

        self._selector.register(descriptor, selectors.EVENT_READ, gone)

    def run(self) -> None:
        """Serves until it is told to stop and no job runs any more."""
        while self._jobs or not self._stopping:
            for key, mask in self._selector.select(self._wait()):
                if isinstance(key.data, process.Pump):
                    self._pump(key.data)
                elif isinstance(key.data, Connection):
                    self._server.serve(key.data, mask)
                else:
                    key.data()
            now = time.monotonic()
            for job in list(self._jobs.values()):
                if job.next_at is not None and now >= job.next_at:
                    self._tick(job)
            if self._unstored and now >= self._store_at:
                self._store_again(now)
        self._server.flush()

    def _wait(self) -> float | None:
        due = [job.next_at for job in self._jobs.values() if job.next_at is not None]
        if self._unstored:
            due.append(self._store_at)
        return max(0.0, min(due) - time.monotonic()) if due else None

    # Signals

    def _listen_for_signals(self) -> None:
        self._wake, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, _only_wake)
        self._selector.register(self._wake, selectors.EVENT_READ, self._signalled)

    def _signalled(self) -> None:
        for number in os.read(self._wake, 4096):
            if number in (signal.SIGTERM, signal.SIGINT):
                self._begin_stop(cancel=self._stopping)
        # Children's signals merge, so each of them may stand for any number of deaths.
        for job in list(self._jobs.values()):
            self._tick(job)

    def _begin_stop(self, cancel: bool) -> None:
        log(f"stopping; {len(self._jobs)} jobs run" + (" and are cancelled" if cancel else ""))
        self._stopping = True
        if cancel:
            for job in list(self._jobs.values()):
                job.cancel("the runner was told to stop", time.monotonic())

    # Jobs

    def _pump(self, pump: process.Pump) -> None:
        if pump.pipe is None:
            return
        grown = pump.read(self._buffer)
        if grown is None:
            self._close_pump(pump)
            if pump.job.is_drained:
                self._tick(pump.job)
        elif grown:
            self._server.nudge(pump.job.id)

    def _close_pump(self, pump: process.Pump) -> None:
        if pump.pipe is not None:
            self._selector.unregister(pump.pipe)
            pump.close()

    def _tick(self, job: process.Process) -> None:
        job.tick(time.monotonic(), time.time())
        if job.is_over and self._jobs.pop(job.id, None) is not None:
            for pump in job.pumps:
                self._close_pump(pump)
            self._store(job.directory, job.claim, _record_of(job))

    def _store(self, directory: str, claim: int | None, record: dict[str, Any]) -> None:
        """Writes down how a job ended, with the descriptor of its record where there is one, and says so."""
        job_id, line, stored = record["job"], json.dumps(record), True
        try:
            if claim is None:
                jobdir.write_exit_record(directory, line)
            else:
                jobdir.note(claim, line)
        except OSError as error:
            log(f"job {job_id}: its exit record cannot be written now: {error}")
            self._unstored[job_id] = record
            self._store_at = time.monotonic() + _STORE_EVERY
            stored = False
        finally:
            if claim is not None:
                os.close(claim)
        told = line if not stored or len(line) <= _TOLD else "null"
        event = (
            f'{{"event": "exited", "job": "{job_id}", "stored": {json.dumps(stored)}, "record": {told}}}\n'
        )
        self._server.broadcast(event.encode(), job_id)

    def _store_again(self, now: float) -> None:
        self._store_at = now + _STORE_EVERY
        for job_id, record in list(self._unstored.items()):
            try:
                jobdir.write_exit_record(jobdir.path(self._root, job_id), json.dumps(record))
            except OSError:
                return
            del self._unstored[job_id]

    # Requests

    def _start(self, connection: Connection, request: dict[str, Any]) -> dict[str, Any]:
        job, secrets = requests.job(request.get("job")), requests.secrets(request)
        job_id, digest, node = job["id"], str(request.get("digest", "")), str(request.get("node", ""))
        known = self._known(job_id, digest)
        if known:
            return {"state": known}
        if self._stopping:
            raise BadRequest("stopping", "the runner is stopping and starts nothing")
        directory = jobdir.path(self._root, job_id)
        now, at = time.monotonic(), time.time()
        claim = None
        try:
            claim = jobdir.claim(directory, digest, at)
            if claim is None:
                raise BadRequest("claimed", f"job {job_id} was claimed by another runner")
            cancel = self._taken_back(job_id, directory)
            if cancel is not None:
                record = process.opening(job_id, digest, "cancelled", cancel)
                self._store(directory, claim, {**record, "ended_at": at})
                return {"state": "ended"}
            self._check_reserve()
            started = launch.start(job, directory, claim, (digest, node), (now, at), secrets)
        except launch.NotStarted as error:
            jobdir.remove(directory, launch.cleanup(job))
            record = process.opening(job_id, digest, "failed", error.error)
            self._store(directory, claim, {**record, "exit_code": error.exit_code, "ended_at": at})
            return {"state": "ended"}
        except OSError as error:
            failure = {"type": "no_space", "message": f"the job cannot be claimed: {error}"}
            self._store(directory, claim, process.opening(job_id, digest, "failed", failure))
            return {"state": "ended"}
        self._jobs[job_id] = started
        for pump in started.pumps:
            self._selector.register(pump.pipe if pump.pipe is not None else -1, selectors.EVENT_READ, pump)
        event = f'{{"event": "started", "job": "{job_id}", "pid": {started.pid}, "at": {at}}}\n'
        self._server.broadcast(event.encode(), job_id, but=connection)
        return {"state": "started", "job": job_id, "pid": started.pid, "at": at}

    def _taken_back(self, job_id: str, directory: str) -> dict[str, Any] | None:
        """The error of a job that was cancelled before it came; None for one that was not."""
        if job_id not in self._remembered:
            return None
        del self._remembered[job_id]
        cancel = jobdir.read_json(directory, "cancel") or {}
        return {"type": "cancelled", "message": cancel.get("reason") or "cancelled"}

    def _known(self, job_id: str, digest: str) -> str | None:
        """`running` or `ended` for a job that must not start again. Raises for one of another content."""
        if job_id in self._jobs:
            state, of = "running", self._jobs[job_id].digest
        else:
            record = self._unstored.get(job_id) or jobdir.exit_record(jobdir.path(self._root, job_id))
            if record is None:
                return None
            state, of = "ended", record.get("digest", "")
        if of and digest and of != digest:
            raise BadRequest("other_digest", f"job {job_id} is known here with another content")
        return state

    def _check_reserve(self) -> None:
        disk = os.statvfs(self._root)
        free = disk.f_bavail * disk.f_frsize
        if free < self._reserve:
            message = (
                f"{free >> 20} MB are free under {self._root}, {self._reserve >> 20} MB must be: free some"
            )
            raise launch.NotStarted("no_space", message)

    def _cancel(self, _: Connection, request: dict[str, Any]) -> dict[str, Any]:
        job_id, reason = requests.job_id(request), str(request.get("reason") or "")
        directory = jobdir.path(self._root, job_id)
        if job_id in self._jobs:
            self._jobs[job_id].cancel(reason, time.monotonic())
            return {"state": "ending"}
        if job_id in self._unstored or jobdir.is_claimed(directory):
            return {"state": "ended"}
        if job_id not in self._remembered:
            os.makedirs(directory, 0o700, exist_ok=True)
            note = {"reason": reason, "at": time.time()}
            try:
                jobdir.write(directory, "cancel", json.dumps(note).encode())
            except FileExistsError:
                pass
            self._remembered[job_id] = None
            while len(self._remembered) > _MAX_REMEMBERED:
                oldest = next(iter(self._remembered))
                del self._remembered[oldest]
                jobdir.discard(self._root, oldest)
        return {"state": "remembered"}

    def _list(self, _: Connection, __: dict[str, Any]) -> dict[str, Any]:
        jobs = [{"job": job.id, "pid": job.pid, "at": job.started_at} for job in self._jobs.values()]
        return {"jobs": jobs, "unstored": self._unstored}

    def _watch(self, connection: Connection, request: dict[str, Any]) -> dict[str, Any]:
        connection.watching = True
        return self._list(connection, request)

    def _forget(self, _: Connection, request: dict[str, Any]) -> dict[str, Any]:
        job_id = requests.job_id(request)
        if job_id in self._jobs:
            raise BadRequest("running", f"job {job_id} runs: cancel it first")
        self._unstored.pop(job_id, None)
        self._remembered.pop(job_id, None)
        jobdir.discard(self._root, job_id)
        return {}

    def _ping(self, _: Connection, __: dict[str, Any]) -> dict[str, Any]:
        return {"pid": os.getpid(), "version": VERSION, "started_at": self._started_at}

    def _stop(self, _: Connection, request: dict[str, Any]) -> dict[str, Any]:
        self._begin_stop(cancel=bool(request.get("cancel")))
        return {"running": len(self._jobs)}


def _record_of(job: process.Process) -> dict[str, Any]:
    try:
        return job.record()
    except Exception as error:  # noqa: BLE001
        # The edge of a job: whatever its directory has become, the other jobs go on and this one gets an end.
        log_fault()
        message = f"how the job ended could not be put together: {error!r}"
        return process.opening(job.id, job.digest, "unknown", {"type": "internal", "message": message})


def _fill_standard_streams() -> None:
    """What is opened later must not get the number of a standard stream: a script's are put there one by one."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


def _only_wake(_: int, __: object) -> None:
    """The signal's number has been written to the wake-up pipe: the loop does the rest."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs until told to stop; the exit code.

    With --detach the process that was started ends as soon as the runner listens, and the runner, its
    child, is nobody's: no worker has to reap it.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        options = dict(getopt.getopt(given, "", ("dir=", "reserve=", "detach", "private"))[0])
        reserve = int(options.get("--reserve", RESERVE))
    except (getopt.GetoptError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        options = {}
    if "--dir" not in options:
        sys.stderr.write(
            "usage: python -m app.node.runner --dir DIR [--reserve BYTES] [--detach | --private]\n"
        )
        return 2
    root = os.path.abspath(options["--dir"])
    _fill_standard_streams()
    try:
        # Held by its descriptor until the process ends.
        endpoint.take(root)
    except endpoint.AlreadyRunning as error:
        log(str(error))
        return endpoint.ALREADY_RUNNING
    os.chdir("/")
    unstored = orphans.settle(root, log)
    with endpoint.listen(root) as listener:
        if "--detach" in options and os.fork():
            os._exit(0)
        runner = Runner(root, listener, reserve, unstored)
        endpoint.announce(root, listener)
        if "--private" in options:
            runner.end_with(_STDIN)
            os.write(_STDOUT, b"listening\n")
        runner.run()
    endpoint.leave(root)
    if "--private" in options:
        _remove(root)
    return 0


def _remove(root: str) -> None:
    """Who started it may have been killed: nobody else would. What cannot be removed stays."""
    for folder, folders, files in os.walk(root, topdown=False):
        for name in (*files, *folders):
            path = os.path.join(folder, name)
            with contextlib.suppress(OSError):
                os.rmdir(path) if name in folders and not os.path.islink(path) else os.unlink(path)
    with contextlib.suppress(OSError):
        os.rmdir(root)


if __name__ == "__main__":
    sys.exit(main())
