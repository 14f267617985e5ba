"""Owns the scripts of a machine that has only an SSH server, for the station that answers for it.

In the node's directory here everything is as a runner of this machine would have left it (`app.node.jobdir`): the
claim, the output as it comes, the exit record. What the machine itself keeps of a job is removed once its end is
written down.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from app.errors import Conflict, Unavailable
from app.node import jobdir
from app.node.runner_client import Interrupted
from app.node.scripts import Events
from app.ssh.breaker import Breaker
from app.ssh.care import Care
from app.ssh.far_side import Ground
from app.ssh.reach import Connect, Reach
from app.ssh.remote_job import RemoteJob
from app.ssh.target import Target
from app.transport.messages import Job

log = logging.getLogger(__name__)

LEASH = 60.0
"""Seconds for which the machine lets a script go on without a sign of life from here."""
PATIENCE = 20.0
"""Seconds for which a machine that does not answer is tried before a job fails that was never sent there."""


class RemoteRunner:
    """The scripts of `target`, which is called `node`, in the way of `app.node.scripts.Scripts`.

    `breaker` holds its two settings; `changed` is told each of its states, quickly, from any thread. Nothing is
    connected before a job comes or `probe` is called.
    """

    def __init__(
        self,
        directory: str | Path,
        node: str,
        target: Target,
        events: Events,
        *,
        installation: str,
        leash: float = LEASH,
        patience: float = PATIENCE,
        breaker: Breaker | None = None,
        changed: Callable[[Breaker], None] | None = None,
        connect: Connect | None = None,
    ) -> None:
        self.directory = os.path.abspath(directory)
        self._events = events
        self._patience = patience
        ground = Ground(installation, node, leash, target.base)
        self._reach = Reach(target, ground, breaker or Breaker(), changed=changed, connect=connect)
        self._lock = threading.Lock()
        self._jobs: dict[str, RemoteJob] = {}
        self._released = False
        self._care = Care(self._reach, self._is_anything_long, self._is_owed)

    @property
    def reach(self) -> Reach:
        """The way to the machine."""
        return self._reach

    @property
    def base(self) -> str:
        """The directory on the machine, once it was connected to."""
        return self._reach.ground.base

    @property
    def breaker(self) -> Breaker:
        return self._reach.breaker

    def ensure(self) -> dict[str, Any]:
        """Makes the directory here. Whether the machine answers is found out with the first job."""
        for name in ("jobs", "trash"):
            os.makedirs(os.path.join(self.directory, name), 0o700, exist_ok=True)
        self._empty_trash()
        return {}

    def probe(self) -> None:
        """Connects, unless there is a connection, and asks the machine what it is. Raises `Refused` and `Unreachable`;
        the breaker counts it."""
        self._reach.link()
        self._reach.look()

    def run(self, job: Job, secrets: Mapping[str, str] | None = None, workdir: str = "") -> dict[str, Any]:
        """Starts the job there once and for all, and waits; the exit record. `workdir` is there as well.

        A machine that cannot be reached before the job was sent to it is an end of the job: failed, `unreachable`.
        After that its answer is waited for as long as it takes. Raises `Conflict` for a known id with another content,
        and `Interrupted` after `release`.
        """
        directory = jobdir.path(self.directory, job.id)
        with self._lock:
            if self._released:
                raise Interrupted(f"the wait for job {job.id} was given up")
            remote = self._jobs.get(job.id)
            if remote is None:
                claimed, record = jobdir.story_of(directory)
                of = (claimed if record is None else record).get("digest", "")
            else:
                record, of = None, remote.digest
            if of and of != job.digest:
                raise Conflict(f"job {job.id} is known here with another content", code="runner-other-digest")
            if record is not None:
                return record
            is_mine = remote is None
            if remote is None:
                remote = self._jobs[job.id] = self._new(job, secrets or {}, directory, workdir)
        if is_mine:
            self._see_through(remote)
        remote.over.wait()
        if remote.record is None:
            raise Interrupted(f"the wait for job {job.id} was given up")
        return remote.record

    def cancel(self, job_id: str, reason: str = "") -> str:
        """`ending`, `ended`, or `remembered` for a job that was not begun: it never will be."""
        directory = jobdir.path(self.directory, job_id)
        with self._lock:
            remote = self._jobs.get(job_id)
            if remote is not None:
                remote.cancel(reason)
                return "ending"
            if jobdir.exit_record(directory) is not None:
                return "ended"
            os.makedirs(directory, 0o700, exist_ok=True)
            note = {"reason": reason, "at": time.time()}
            try:
                jobdir.write(directory, "cancel", json.dumps(note).encode())
            except FileExistsError:
                pass
            return "remembered"

    def forget(self, job_id: str) -> None:
        """Discards what is kept of an ended job here. Raises `Conflict` while it runs."""
        with self._lock:
            if job_id in self._jobs:
                raise Conflict(f"job {job_id} runs: cancel it first", code="runner-running")
            jobdir.discard(self.directory, job_id)
        self._empty_trash()

    def spool(self, job_id: str) -> str:
        """The directory here that holds the job's record and output."""
        return jobdir.path(self.directory, job_id)

    def shells(self) -> tuple[str, ...]:
        """By which shells the machine can run scripts; none before it was connected to."""
        facts = self._reach.facts
        return () if facts is None else facts.shells

    def facts(self) -> dict[str, str]:
        """What the machine is, once it was asked: os, arch, python3, free_mb."""
        details = self._reach.details
        return {} if details is None else details.told()

    def release(self) -> None:
        """Makes every `run`, now and from now on, raise `Interrupted` at once. The scripts go on, for the leash."""
        with self._lock:
            self._released = True
            for remote in self._jobs.values():
                remote.release()

    def close(self) -> None:
        """Releases, and ends the connection."""
        self.release()
        self._care.close()
        self._reach.close()

    def _new(self, job: Job, secrets: Mapping[str, str], directory: str, workdir: str) -> RemoteJob:
        try:
            claim = jobdir.claim(directory, job.digest, time.time())
            is_new = claim is not None
            if claim is None:
                claim = jobdir.reopen(directory)
            try:
                remote = RemoteJob(
                    job,
                    secrets,
                    self._reach,
                    self._events,
                    directory=directory,
                    workdir=workdir,
                    claim=claim,
                    is_new=is_new,
                    patience=self._patience,
                )
            except BaseException:
                os.close(claim)
                raise
        except OSError as error:
            message = f"job {job.id} cannot be claimed: {error}"
            raise Unavailable(message, code="runner-disk") from None
        cancel = jobdir.read_json(directory, "cancel")
        if cancel is not None:
            remote.cancel(str(cancel.get("reason") or ""))
        return remote

    def _see_through(self, remote: RemoteJob) -> None:
        self._care.wake()
        try:
            remote.run()
        finally:
            with self._lock:
                del self._jobs[remote.id]
            remote.close()
            if remote.record is not None:
                self._events.exited(remote.id)
                if remote.was_sent and remote.is_written:
                    self._care.over(remote.id)
            remote.over.set()

    def _is_anything_long(self) -> bool | None:
        """Does a script run for longer than a moment? None: there is no job at all."""
        with self._lock:
            if not self._jobs:
                return None
            now = time.monotonic()
            return any(
                remote.answered_at is not None and now - remote.answered_at > 0.5
                for remote in self._jobs.values()
            )

    def _is_owed(self, job_id: str) -> bool:
        """Is the job's end still to be heard from the machine?"""
        with self._lock:
            directory = jobdir.path(self.directory, job_id)
            return job_id in self._jobs or (
                jobdir.is_claimed(directory) and jobdir.exit_record(directory) is None
            )

    def _empty_trash(self) -> None:
        trash = os.path.join(self.directory, "trash")
        for name in os.listdir(trash):
            shutil.rmtree(os.path.join(trash, name), ignore_errors=True)
