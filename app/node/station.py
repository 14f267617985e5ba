"""A node at work: orders in, verified and journalled; scripts with the runner; outcomes out.

One job starts at most one process, whatever the broker does: it is in the journal, fsynced, before the runner hears
of it, and the runner claims it before it starts. Scripts outlive this process; it finds them again.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from celery import Celery

from app.errors import MusterError, NotFound, Unavailable
from app.logs import scope
from app.node.executor import facts_of, not_run, outcome_from
from app.node.filing import Filing, with_files
from app.node.identity import Identity, load_identity
from app.node.jobdir import is_claimed
from app.node.journal import Accepted, Entry, Journal
from app.node.live import LiveOutput
from app.node.policy import PolicyFile, placed
from app.node.pulse import Pulse
from app.node.runner_client import Interrupted, RunnerClient
from app.node.scripts import Events, MakeScripts, Scripts
from app.node.sweep import boot_id
from app.node.voice import Heart, Reporter, Sender
from app.node.workplace import make_workplace
from app.settings import Settings
from app.transport.gate import Canvas
from app.transport.messages import READABLE_VERSIONS, Job, Order, Outcome
from app.transport.output import OutputWriter, connect
from app.transport.sealing import Refused, open_order, seal_outcome

log = logging.getLogger(__name__)

JOURNAL_KEPT = 30 * 86400.0
"""Seconds that an ended job stays in the journal: longer than any order may be opened."""

PRUNE_EVERY = 3600.0

ASK_AGAIN = 1.0
"""Seconds before a runner that did not answer is asked about the same job again, or a full disk about its outcome."""


class Station:
    """Everything that answers for a node, made once per node. Methods may be called from any thread.

    Its scripts belong to what `make_scripts` makes; without one, to the runner of its directory. The directories of
    jobs with files belong to `filing`; without one, to a workplace in the node's own directory.
    """

    def __init__(
        self,
        settings: Settings,
        app: Celery,
        make_scripts: MakeScripts | None = None,
        filing: Filing | None = None,
    ) -> None:
        self.settings = settings
        self.directory = Path(settings.node_directory)
        self.identity: Identity = load_identity(self.directory)
        self.journal = Journal(self.directory)
        events = Events(self._started, self._grown, self._exited)
        self.runner: Scripts = (make_scripts or self._local_runner)(events)
        self.filing: Filing = filing or make_workplace(self.directory, settings)
        self.sender = Sender(app, self.journal)
        self.reporter = Reporter(app, self.identity, self.journal.epoch)
        self.pulse = Pulse(self.directory)
        self.heart = Heart(
            app, self.identity, self.journal, settings.heartbeat_every, self._state, self.pulse.beat
        )
        self.policy = PolicyFile(settings.node_policy)
        self.output = LiveOutput(
            OutputWriter(connect(settings.redis_url), self.identity.node), lambda job: self.runner.spool(job)
        )
        self._closed = threading.Event()
        self._leaving = threading.Event()
        self._lock = threading.Lock()
        self._busy = 0
        self._refused = 0
        self._pruned_at = time.monotonic()

    def _local_runner(self, events: Events) -> Scripts:
        return RunnerClient(
            self.directory,
            self.identity.node,
            may_start=self.settings.start_runner,
            on_started=events.started,
            on_output=events.output,
            on_exited=events.exited,
        )

    def open(self) -> None:
        """Start the runner if none answers, then `begin`."""
        self.runner.ensure()
        self.begin()

    def begin(self) -> None:
        """Take up what an earlier worker left, and be heard. Whoever owns the scripts need not answer yet."""
        held = self.journal.held()
        self.filing.sweep({entry.job for entry in held})
        for entry in held:
            threading.Thread(
                target=self._take_up, args=(entry,), name=f"job-{entry.job}", daemon=True
            ).start()
        self.sender.start()
        self.reporter.start()
        self.heart.start()

    def leave(self) -> None:
        """Take no more orders, and let go of the scripts that run as soon as the settings' patience is over.

        Orders that come all the same are left alone: control sends again what no node has in its journal.
        """
        if not self.settings.node_patience:
            self.release()
        elif not self._closed.is_set():
            self._closed.set()
            threading.Thread(target=self._wait_for_scripts, name="leaving", daemon=True).start()

    def _wait_for_scripts(self) -> None:
        # Said at once, so that nothing more is handed over.
        self.heart.soon()
        if not self._leaving.wait(self.settings.node_patience):
            self.release()

    def release(self) -> None:
        """Blocked threads return at once and send nothing; the scripts go on."""
        self._leaving.set()
        self.filing.release()
        self.runner.release()

    def close(self) -> None:
        """Say what is left to say, then go. The runner stays."""
        self.release()
        self.heart.close()
        self.reporter.close()
        self.sender.close()
        self.output.close()
        self.runner.close()
        self.journal.close()
        self.pulse.close()

    # orders to run

    def run(self, token: Any, canvas: Canvas) -> None:
        """One order from the node's queue: verify, journal, run, answer. Never raises for what came in."""
        order = self._open(token)
        if order is None or order.kind != "run" or self._closed.is_set():
            return
        job = order.jobs[0]
        _note(job)
        kept = json.dumps({"canvas": canvas.to_json(), "token": token, "boot": boot_id()})
        state = self.journal.accept(order.installation, job.id, job.digest, order.id, kept, time.time())
        if state is Accepted.FRESH:
            self.reporter.say(job.id, "accepted", time.time())
            self._run(job, order)
        elif state is Accepted.ENDED:
            self.sender.again(self._entry(job.id))
        elif state is Accepted.OTHER_DIGEST:
            self.refuse(f"job {job.id} is known with another content")

    def _open(self, token: Any) -> Order | None:
        identity = self.identity
        try:
            return open_order(
                token,
                identity.keys,
                identity.control,
                installation=identity.installation,
                node=identity.node,
                epoch=self.journal.epoch,
                now=time.time(),
            )
        except Refused as refused:
            self.refuse(f"{refused.code}: {refused.message}")
            return None

    def refuse(self, why: str) -> None:
        """Count a message that was not obeyed: heartbeats say how many, and control keeps it on record."""
        with self._lock:
            self._refused += 1
        log.warning("refused an order: %s", why)

    def _run(self, job: Job, order: Order) -> None:
        with self._lock:
            self._busy += 1
        try:
            outcome = self._outcome(job, order)
        except Interrupted:
            return
        finally:
            with self._lock:
                self._busy -= 1
        self._answer(job, outcome, order)

    def _outcome(self, job: Job, order: Order) -> Outcome:
        """How the job ended. Raises Interrupted once this worker is leaving."""
        begun = self._knows(job.id)

        def refused(kind: str, message: str) -> Outcome:
            return not_run(job, kind, message, **self._names())

        # What runs already is not refused any more: that would be a lie about it.
        if not begun and (why := self.policy.refusal(placed(job, order.secrets))):
            return refused("refused_by_node", why)
        run = partial(self._ran, job, order.secrets)
        if job.workspace is None:
            return run("")
        if self.journal.is_cancelled(self.identity.installation, job.id):
            self.filing.stop(job.id)
        return with_files(self.filing, job, order.files, run, begun=begun, not_run=refused)

    def _ran(self, job: Job, secrets: Mapping[str, str], workdir: str) -> Outcome:
        """How its script ended, in `workdir` where it has one. Raises Interrupted once this worker is leaving.

        While the runner does not answer nothing is known: it may have begun, or begin when it goes on. So it is
        asked again, for as long as this worker lives; its claim makes sure that the job starts once. Only what the
        runner refuses was not run.
        """
        while True:
            try:
                if self.journal.is_cancelled(self.identity.installation, job.id):
                    self.runner.cancel(job.id, "cancelled before it started")
                return outcome_from(self.runner.run(job, secrets, workdir), job, **self._names())
            except Interrupted:
                raise
            except (Unavailable, NotFound) as error:
                log.warning("job %s waits for the runner: %s", job.id, error.message)
                if self._leaving.wait(ASK_AGAIN):
                    raise Interrupted(f"the wait for job {job.id} was given up") from error
            except MusterError as error:
                log.error("job %s was refused by the runner: %s", job.id, error.message)
                return not_run(job, "runner", error.message, **self._names())

    def _names(self) -> dict[str, str]:
        """On whose behalf outcomes are told."""
        node = self.identity
        return {"installation": node.installation, "node": node.node, "epoch": self.journal.epoch}

    def _answer(self, job: Job, outcome: Outcome, order: Order) -> None:
        canvas = self._without_order(job.id) if order.secrets or order.files else None
        token = seal_outcome(outcome, self.identity.keys, self.identity.control[0])
        while True:
            try:
                self.journal.ended(self.identity.installation, job.id, token, time.time(), canvas)
                break
            except Unavailable as error:
                # Nobody else in this process waits for the job's end: it is kept here until the disk takes it.
                log.error("the outcome of job %s waits for the disk: %s", job.id, error.message)
                if self._leaving.wait(ASK_AGAIN):
                    return
        self.reporter.over(job.id)
        self.sender.publish()
        log.info("job over", extra=facts_of(outcome))
        self.filing.discard(job.id)
        self._prune()

    def _take_up(self, entry: Entry) -> None:
        """A job that an earlier worker process accepted and did not see the end of.

        Claims are not synced to the disk, so after a restart of the machine a missing one proves nothing: a job
        that was accepted before it, and of which the runner knows nothing, is unknown and never started.
        """
        order = self._reopen(entry)
        if order is None:
            return
        job = order.jobs[0]
        _note(job)
        if json.loads(entry.canvas)["boot"] != boot_id() and not self._knows(job.id):
            message = "this machine was restarted before anything of the job was kept"
            record = {"status": "unknown", "error": {"type": "restarted", "message": message}}
            self._answer(job, outcome_from(record, job, **self._names()), order)
            return
        self._run(job, order)

    def _knows(self, job: str) -> bool:
        """Whether the runner has claimed this job."""
        return is_claimed(self.runner.spool(job))

    def _reopen(self, entry: Entry) -> Order | None:
        identity = self.identity
        try:
            return open_order(
                json.loads(entry.canvas)["token"],
                identity.keys,
                identity.control,
                installation=identity.installation,
                node=identity.node,
                epoch=self.journal.epoch,
                now=entry.accepted_at,
                versions=READABLE_VERSIONS,
            )
        except Refused as refused:
            log.error("the order of job %s cannot be opened again: %s", entry.job, refused.message)
            return None

    def _without_order(self, job: str) -> str:
        """What is kept of a job once nobody will open its order again: secrets and a pass are in it, sealed to us."""
        return json.dumps({**json.loads(self._entry(job).canvas), "token": ""})

    def _entry(self, job: str) -> Entry:
        entry = self.journal.find(self.identity.installation, job)
        if entry is None:
            raise NotFound(f"job {job} is not in the journal")
        return entry

    # orders about jobs

    def obey(self, token: Any) -> None:
        """One order from `.ctl`: cancel, ask or spool. Never raises for what came in."""
        order = self._open(token)
        if order is None or order.kind == "run":
            return
        if self.journal.seen_order(order.id, order.expires_at, time.time()):
            return
        act = {"cancel": self._cancel, "ask": self._tell, "spool": self.output.again}[order.kind]
        for job in order.job_ids:
            scope.begin(job=job)
            try:
                act(job)
            except MusterError as error:
                log.warning("%s of %s: %s", order.kind, job, error.message)

    def _cancel(self, job: str) -> None:
        entry = self.journal.find(self.identity.installation, job)
        if entry is not None and entry.status == "ended":
            self.sender.again(entry)
            return
        self.journal.cancel_requested(self.identity.installation, job, time.time())
        if entry is not None:
            self.filing.stop(job)
        self.runner.cancel(job, "cancelled")

    def _tell(self, job: str) -> None:
        entry = self.journal.find(self.identity.installation, job)
        if entry is None:
            self.reporter.say(job, "not_known", time.time())
        elif entry.status == "ended":
            self.sender.again(entry)
        else:
            self.reporter.say(job, "running", entry.accepted_at)

    # what the runner says

    def _started(self, job: str, pid: int, at: float) -> None:
        self.reporter.say(job, "running", at)

    def _grown(self, job: str) -> None:
        self.output.grown(job)

    def _exited(self, job: str) -> None:
        self.output.over(job)

    # heartbeats and housekeeping

    def _state(self) -> dict[str, Any] | None:
        if not self.runner.is_reachable():
            return None
        with self._lock:
            busy, refused = self._busy, self._refused
        slots = 0 if self._closed.is_set() else self.settings.node_slots
        return {
            "slots": slots,
            "free": max(0, slots - busy),
            "address": self.settings.node_address.lower(),
            "shells": self.runner.shells(),
            "versions": {"refused": str(refused), **self.policy.told(), **self.runner.facts()},
        }

    def _prune(self) -> None:
        if time.monotonic() - self._pruned_at < PRUNE_EVERY:
            return
        self._pruned_at = time.monotonic()
        for _, job in self.journal.prune(time.time(), JOURNAL_KEPT):
            self.runner.forget(job)


def _note(job: Job) -> None:
    """The lines of this thread are about a job."""
    scope.begin(execution=job.execution, task=job.task, job=job.id, trace_id=job.trace_id)
