"""One job on the far side, from here: started or found again, its output taken as it comes, its end written down.

Whatever breaks in between, the far side's directory of the job decides: the program that starts a job attaches to it
where it was started before. So a job for which the machine's answer is missing is asked about, and never run again.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import random
import threading
import time
from collections.abc import Mapping
from typing import Any

from app.masking import Masker
from app.node import jobdir, launch
from app.node import told as telling
from app.node.process import opening
from app.node.runner_client import Interrupted
from app.node.scripts import Events
from app.ssh import far_side, records
from app.ssh.dialogue import Broken, Dialogue, Heard, Inbox, Told
from app.ssh.failures import Refused, Unreachable
from app.ssh.link import Link
from app.ssh.reach import Reach
from app.ssh.received import Received, discard
from app.ssh.transcript import Ended, Garbled, Transcript
from app.transport.messages import Job

log = logging.getLogger(__name__)

START_FOR = 600.0
"""Seconds after the first attempt in which a start may be sent again: what the machine keeps of a job stays longer."""
_PAUSE_FIRST, _PAUSE_MOST = 0.2, 10.0


class _Over(Exception):
    """The job came to an end without its script, or in another way than by it."""

    def __init__(self, record: dict[str, Any]) -> None:
        super().__init__()
        self.record = record


class RemoteJob:
    """`patience` is for how many seconds a machine that cannot be reached is tried before a job fails that was never
    sent there. `claim` is the descriptor of its record here; `is_new` says that nothing else is there yet. `run` is for
    one thread, everything else for any.

    `answered_at` is by the monotonic clock; None until the machine has said that the script runs. `is_written` says
    whether the exit record is on the disk here: until then only the machine knows of the end.
    """

    def __init__(
        self,
        job: Job,
        secrets: Mapping[str, str],
        reach: Reach,
        events: Events,
        *,
        directory: str,
        workdir: str,
        claim: int,
        is_new: bool,
        patience: float,
    ) -> None:
        self.id = job.id
        self.digest = job.digest
        self.record: dict[str, Any] | None = None
        self.is_written = False
        self.over = threading.Event()
        self.answered_at: float | None = None
        self._job = telling.told(job, workdir)
        self._secrets = secrets
        self._reach = reach
        self._events = events
        self._claim = claim
        self._patience = patience
        self._known = {} if is_new else jobdir.claim_of(directory)
        self._masker = Masker(secrets.values()) if secrets else None
        if not is_new:
            discard(directory)
        self._received = Received(directory, job.output_limit, self._masker)
        self._inbox: Inbox = queue.SimpleQueue()
        self._reason: str | None = None
        self._released = False
        self._pause = _PAUSE_FIRST
        self._is_new = "answered" not in self._known
        # What went wrong among other jobs is done by a session of its own.
        self._is_among_others = True

    def cancel(self, reason: str) -> None:
        """Ends the job as soon as the machine hears of it; at once where it was not sent there."""
        if self._reason is None:
            self._reason = reason
        self._inbox.put(Heard("us", "cancel", b""))

    def release(self) -> None:
        """Ends the wait and nothing else."""
        self._released = True
        self._inbox.put(Heard("us", "release", b""))

    @property
    def was_sent(self) -> bool:
        """May the machine know of it?"""
        return "sent" in self._known

    def close(self) -> None:
        os.close(self._claim)

    def run(self) -> dict[str, Any]:
        """The exit record, which is written down. Raises `Interrupted` after `release`."""
        try:
            record = self._until_over()
        except _Over as over:
            self._received.finish()
            record = over.record
        try:
            jobdir.note(self._claim, json.dumps(record))
            self.is_written = True
        except OSError as error:
            log.error("job %s: its exit record cannot be written: %s", self.id, error)
        self.record = record
        return record

    def _until_over(self) -> dict[str, Any]:
        given_up = time.monotonic() + self._patience
        while True:
            self._check()
            try:
                return self._on(self._reach.link())
            except Refused as error:
                self._fail_unless_sent(error.kind, error.told())
                log.warning("job %s waits: %s", self.id, error.message)
            except Unreachable as error:
                self._reach.spare()
                now = time.monotonic()
                if now >= given_up or self._reach.breaker.state(now) != "closed":
                    self._fail_unless_sent("unreachable", error.message)
                log.info("job %s waits: %s", self.id, error.message)
            except (Broken, Garbled) as error:
                log.info("job %s: %s", self.id, error)
                if isinstance(error, Broken) and error.at_once:
                    continue
            except OSError as error:
                # Of this machine: its disk is full, or it has no files to spare. What was begun there goes on.
                log.error("job %s waits: %s", self.id, error)
            except launch.NotStarted as error:
                text = str(error) if self._masker is None else self._masker.text(str(error))
                kind = error.error["type"]
                raise _Over(records.not_begun(self._job, self.digest, kind, text, error.exit_code)) from None
            self._rest()

    def _fail_unless_sent(self, kind: str, message: str) -> None:
        if "sent" not in self._known:
            raise _Over(records.not_begun(self._job, self.digest, kind, message))

    def _check(self) -> None:
        if self._released:
            raise Interrupted(f"the wait for job {self.id} was given up")
        if self._reason is not None and "sent" not in self._known:
            error = {"type": "cancelled", "message": self._reason or "cancelled"}
            record = opening(self.id, self.digest, "cancelled", error)
            raise _Over({**record, "ended_at": time.time()})

    def _rest(self) -> None:
        """A pause before the next attempt, which a word of ours ends."""
        until = time.monotonic() + self._pause * random.uniform(0.7, 1.0)
        self._pause = min(_PAUSE_MOST, 2 * self._pause)
        while (left := until - time.monotonic()) > 0:
            try:
                if self._inbox.get(timeout=left).source == "us":
                    return
            except queue.Empty:
                return

    def _note(self, name: str, **more: Any) -> None:
        noted = {name: time.time(), **more}
        jobdir.note(self._claim, json.dumps(noted))
        self._known = {**self._known, **noted}

    # On a connection

    def _on(self, link: Link) -> dict[str, Any]:
        if "sent" not in self._known:
            self._check_space()
        # What an earlier connection said is not about this one.
        while not self._inbox.empty():
            self._inbox.get()
        dialogue = Dialogue(
            link,
            self._reach.ground,
            self.id,
            self._received,
            self._inbox,
            Told(self._sending, self._answered, self._has_output, lambda word: self._said(dialogue, word)),
            longest_end=far_side.longest_end(self._job["output_limit"], self._longest_secret),
        )
        try:
            self._check()
            if self._reason is not None and not self._is_new:
                dialogue.cancel()
            return self._record(self._heard_out(dialogue, link))
        except Broken as broken:
            if broken.silent:
                self._reach.broken(link, str(broken))
            raise
        finally:
            dialogue.close()

    def _heard_out(self, dialogue: Dialogue, link: Link) -> Transcript:
        ground = self._reach.ground
        is_old = time.time() - self._known.get("sent", time.time()) > START_FOR
        if "answered" in self._known or is_old:
            return dialogue.hold(far_side.attach(ground, self.id, self.digest, bool(self._secrets)))
        job = launch.with_values(self._job, self._secrets) if self._secrets else self._job
        secrets = tuple(self._secrets.values())
        desk = self._reach.open_desk
        is_there = desk is not None and desk.link is link and desk.has_answered
        if self._is_among_others and desk is not None and is_there and far_side.may_share(job):
            self._is_among_others = False
            told = far_side.told(ground, job, self.digest, secrets, self._longest_secret)
            return dialogue.share(desk, told)
        described = far_side.described(ground, job, secrets, self._longest_secret)
        return dialogue.hold(far_side.start(ground, self.id, self.digest, described))

    @property
    def _longest_secret(self) -> int:
        return 0 if self._masker is None else self._masker.longest

    def _check_space(self) -> None:
        details = self._reach.details
        if details is not None and details.free < far_side.RESERVE:
            message = (
                f"{details.free >> 20} MB are free under {self._reach.ground.base} on {self._reach.target.host}"
                f", {far_side.RESERVE >> 20} MB must be: free some"
            )
            raise _Over(records.not_begun(self._job, self.digest, "no_space", message))

    def _sending(self) -> None:
        if "sent" not in self._known:
            self._note("sent")

    def _answered(self, pid: int) -> None:
        self._pause = _PAUSE_FIRST
        self.answered_at = time.monotonic()
        if "answered" not in self._known:
            self._note("answered", pid=pid)
        self._events.started(self.id, pid, self._known["answered"])
        if self._reason is not None:
            self._inbox.put(Heard("us", "cancel", b""))

    def _has_output(self) -> None:
        self._events.output(self.id)

    def _said(self, dialogue: Dialogue, word: str) -> None:
        self._check()
        # Before the answer there may be nothing to cancel yet: `_answered` says it again.
        if word == "cancel" and self.answered_at is not None:
            dialogue.cancel()

    # Its end

    def _record(self, transcript: Transcript) -> dict[str, Any]:
        if transcript.failure is not None:
            raise _Over(self._failure(*transcript.failure))
        end = transcript.ended
        if end is None:
            raise Broken("the machine said nothing about the end")
        facts = self._reach.facts
        record = records.refused(self._job, self.digest, end, facts.shells if facts else ())
        if record is not None:
            self._received.finish()
            return {**record, "ended_at": time.time()}
        streams, broken = self._received.finish()
        found = records.ended(
            self._job,
            self.digest,
            end,
            self._times(end),
            streams,
            (transcript.output, transcript.complaint),
            reason=self._reason or "",
            leash=self._reach.ground.leash,
            masker=self._masker,
        )
        return {**found, "spool_error": broken} if broken else found

    def _times(self, end: Ended) -> records.Times:
        began: float = self._known.get("answered", self._known.get("sent", time.time()))
        if self._is_new and self.answered_at is not None:
            duration = time.monotonic() - self.answered_at
        else:
            duration = max(0.0, time.time() - began)
        if end.began is not None and end.ended is not None:
            # Hundredths of a second, but by who was there. Within those our own clock is the better one.
            there = max(0.0, end.ended - end.began)
            duration = duration if abs(duration - there) < 0.02 else there
        return records.Times(began, began + duration, round(duration, 6))

    def _failure(self, kind: str, message: str) -> dict[str, Any]:
        if kind == "claim":
            text = f"the job's directory on the machine cannot be made: {message}"
            return records.not_begun(self._job, self.digest, "no_space", text)
        if kind == "other_digest":
            text = "the machine knows this job with another content"
            return records.not_begun(self._job, self.digest, "other_digest", text)
        error = {"type": "absent", "message": "the machine knows nothing of this job any more"}
        return opening(self.id, self.digest, "unknown", error)
