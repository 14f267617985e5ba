"""A node at work: orders in, verified and journalled; scripts with the runner; outcomes out.

One job starts at most one process, whatever the broker does: it is in the journal, fsynced, before the runner hears
of it, and the runner claims it before it starts. Scripts outlive this process; it finds them again.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from celery import Celery

from app.errors import MusterError, NotFound, Unavailable
from app.logs import scope
from app.node import lines
from app.node.door import Door
from app.node.executor import facts_of, not_run, outcome_from
from app.node.filing import Filing, with_files
from app.node.identity import Identity, load_identity
from app.node.jobdir import is_claimed
from app.node.journal import Accepted, Entry, Journal
from app.node.lines import Lines
from app.node.live import LiveOutput
from app.node.local_scripts import local_scripts
from app.node.policy import PolicyFile, placed
from app.node.pulse import Pulse
from app.node.runner_client import Interrupted
from app.node.scripts import Events, MakeScripts, Scripts
from app.node.sweep import boot_id
from app.node.voice import BESIDE, IN_LINE, Heart, Reporter, Sender
from app.node.words import Words
from app.node.workplace import make_workplace
from app.settings import Settings
from app.transport.gate import Canvas
from app.transport.messages import SHARED, Job, Order, Outcome
from app.transport.output import OutputWriter, connect
from app.transport.sealing import Refused, seal_outcome

log = logging.getLogger(__name__)

JOURNAL_KEPT = 30 * 86400.0
"""Seconds that an ended job stays in the journal: longer than any order may be opened."""

PRUNE_EVERY = 3600.0

ASK_AGAIN = 1.0
"""Seconds before a runner that did not answer is asked about the same job again, or a full disk about its outcome."""


class Station:
    """Everything that answers for a node, made once per node. Methods may be called from any thread.

    `spread` has something done beside what runs, in as many threads as the node has slots. Its scripts belong to what
    `make_scripts` makes; without one, to the runner of its directory. The directories of jobs with files belong to
    `filing`; without one, to a workplace in the node's own directory.
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
        self.runner: Scripts = (make_scripts or local_scripts(settings, self.identity.node))(events)
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
        self.lines, self.words = Lines(), Words(self)
        self._closed, self._leaving = threading.Event(), threading.Event()
        self.door = Door(self.identity, self.journal.epoch)
        self.spread: Callable[[Callable[[], None]], None] = lines.in_a_thread
        self._lock = threading.Lock()
        self._busy = 0
        self._pruned_at = time.monotonic()

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
        order = self.door.open(token)
        if order is None or order.kind != "run" or self._closed.is_set():
            return
        carried = canvas.to_json()
        begun, waiting = self._split(order)
        if order.at_once:
            self.lines.count(order)
        # Those that have the first one's entry to go by need not keep the order again.
        is_known = order.at_once and self.journal.find(order.installation, order.jobs[0].id) is not None
        again = token if is_known else ""
        fresh = self._promised(begun, order, [token, *[again] * (len(begun) - 1)], carried)
        for job in fresh[1:]:
            self.spread(partial(self._run, job, order, carried))
        for job in waiting:
            self.spread(partial(self._begin, job, order, again, carried))
        if fresh:
            self.lines.begin(order, fresh[0])
            self._run(fresh[0], order, carried)

    def _split(self, order: Order) -> tuple[Sequence[Job], Sequence[Job]]:
        """Those jobs of an order that begin now, and those that wait for a thread or for the one before them."""
        if not order.at_once:
            return order.jobs[:1], ()
        free = max(1, self.settings.node_slots - self._busy)
        return order.jobs[:free], order.jobs[free:]

    def _begin(self, job: Job, order: Order, token: str, canvas: Mapping[str, Any]) -> None:
        """One of several at once has its thread: only now is it promised."""
        if self._closed.is_set() or self._leaving.is_set():
            self.lines.some_over(order, 1)
        elif self._promised([job], order, [token], canvas):
            self._run(job, order, canvas)

    def _promised(
        self, jobs: Sequence[Job], order: Order, tokens: Sequence[str], canvas: Mapping[str, Any]
    ) -> list[Job]:
        """Those of the jobs that are not known here and are to be run: then that is on the disk."""
        _note(jobs[0])
        promises = [lines.promise(order, job, token, canvas) for job, token in zip(jobs, tokens, strict=True)]
        states = self.journal.accept_each(order.installation, promises, time.time())
        fresh = [job for job, state in zip(jobs, states, strict=True) if self._is_fresh(job, state)]
        self.lines.some_over(order, len(jobs) - len(fresh))
        return fresh

    def _is_fresh(self, job: Job, state: Accepted) -> bool:
        if state is Accepted.FRESH:
            self.reporter.say(job.id, "accepted", time.time())
        elif state is Accepted.ENDED:
            self.sender.again(self._entry(job.id))
        elif state is Accepted.OTHER_DIGEST:
            self.door.refuse(f"job {job.id} is known with another content")
        return state is Accepted.FRESH

    def _run(self, job: Job, order: Order, canvas: Mapping[str, Any]) -> None:
        """The job, and those behind it in its order as long as each succeeds."""
        with self._lock:
            self._busy += 1
        at: Job | None = job
        try:
            while at is not None:
                _note(at)
                at = self._answer(at, self._outcome(at, order), order, canvas)
        except Interrupted:
            return
        finally:
            self.lines.end(order)
            with self._lock:
                self._busy -= 1

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

    def _answer(self, job: Job, outcome: Outcome, order: Order, canvas: Mapping[str, Any]) -> Job | None:
        """Writes down how the job ended and sees that it is told. Returns the job that has its turn now, which was
        promised in the same breath; None where the order is over or goes no further."""
        follower = self._follower(job, outcome)
        then = "" if follower is None else follower.id
        outcome = replace(outcome, after=lines.before(order, job), then=then)
        without = self._without_order(job.id) if order.secrets or order.files else None
        token = seal_outcome(outcome, self.identity.keys, self.identity.control[0])
        promise = None if follower is None else lines.promise(order, follower, "", canvas)
        installation = self.identity.installation
        while True:
            try:
                self.journal.ended(installation, job.id, token, time.time(), without, promise)
                break
            except Unavailable as error:
                # Nobody else in this process waits for the job's end: it is kept here until the disk takes it.
                log.error("the outcome of job %s waits for the disk: %s", job.id, error.message)
                if self._leaving.wait(ASK_AGAIN):
                    return None
        self.reporter.over(job.id)
        if follower is not None:
            self.reporter.say(follower.id, "accepted", time.time())
        has_others = not self.lines.some_over(order, 1) and outcome.status == "succeeded"
        self.sender.publish(order.id, within=IN_LINE if follower else BESIDE if has_others else 0.0)
        log.info("job over", extra=facts_of(outcome))
        if job.workspace is not None:
            self.filing.discard(job.id)
        self._prune()
        return follower

    def _follower(self, job: Job, outcome: Outcome) -> Job | None:
        """The job of the same order that may begin now. What a script wrote for the workflow control may find fault
        with, so nothing begins behind that until it has seen it."""
        known = self.identity.installation, job.id
        stops = self._closed.is_set() or self.journal.is_cancelled(*known) or self.journal.is_held(*known)
        if stops or outcome.status != "succeeded" or outcome.output is not None:
            return None
        found = self.lines.follower(job)
        return None if found and self.journal.find(self.identity.installation, found.id) else found

    def _take_up(self, entry: Entry) -> None:
        """A job that an earlier worker process accepted and did not see the end of.

        Claims are not synced to the disk, so after a restart of the machine a missing one proves nothing: a job
        that was accepted before it, and of which the runner knows nothing, is unknown and never started.
        """
        try:
            token, came_at, canvas = lines.order_of(entry, self._entry)
            order = self.door.reopen(token, came_at)
        except (NotFound, Refused) as error:
            log.error("the order of job %s cannot be opened again: %s", entry.job, error.message)
            self._give_up(entry)
            return
        job = next(job for job in order.jobs if job.id == entry.job)
        _note(job)
        if json.loads(entry.canvas)["boot"] != boot_id() and not self._knows(job.id):
            message = "this machine was restarted before anything of the job was kept"
            record = {"status": "unknown", "error": {"type": "restarted", "message": message}}
            self._answer(job, outcome_from(record, job, **self._names()), order, canvas)
            return
        self.lines.begin(order, job)
        self._run(job, order, canvas)

    def _give_up(self, entry: Entry) -> None:
        """Nobody can see to a job whose order is lost: whoever waits for it is told so."""
        message = "what this node was ordered to run cannot be read any more"
        error, mine = {"type": "order_lost", "message": message}, self.identity
        outcome = Outcome(
            entry.job, entry.digest, mine.installation, mine.node, self.journal.epoch, "unknown", error=error
        )
        token = seal_outcome(outcome, mine.keys, mine.control[0])
        self.journal.ended(mine.installation, entry.job, token, time.time())
        self.sender.publish(entry.order_id)

    def _knows(self, job: str) -> bool:
        """Whether the runner has claimed this job."""
        return is_claimed(self.runner.spool(job))

    def _without_order(self, job: str) -> str:
        """What is kept of a job once nobody will open its order again: secrets and a pass are in it, sealed to us."""
        return json.dumps({**json.loads(self._entry(job).canvas), "token": ""})

    def _entry(self, job: str) -> Entry:
        entry = self.journal.find(self.identity.installation, job)
        if entry is None:
            raise NotFound(f"job {job} is not in the journal")
        return entry

    def obey(self, token: Any) -> None:
        """One order about jobs, from `.ctl`. Never raises for what came in."""
        self.words.obey(token)

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
        busy = self._busy
        slots = 0 if self._closed.is_set() else self.settings.node_slots
        return {
            "slots": slots,
            "free": max(0, slots - busy),
            "address": self.settings.node_address.lower(),
            "shells": self.runner.shells(),
            "versions": {
                "orders": SHARED,
                "refused": str(self.door.refused),
                **self.policy.told(),
                **self.runner.facts(),
            },
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
