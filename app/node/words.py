"""Orders about jobs, from `.ctl`: cancel, hold, ask, spool. They come past the pool, so that a full one delays none."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Protocol

from app.errors import MusterError
from app.logs import scope
from app.node.door import Door
from app.node.filing import Filing
from app.node.identity import Identity
from app.node.journal import Journal
from app.node.lines import Lines
from app.node.live import LiveOutput
from app.node.scripts import Scripts
from app.node.voice import Reporter, Sender

log = logging.getLogger(__name__)


class Owner(Protocol):
    """What a station has that is spoken about here."""

    identity: Identity
    door: Door
    journal: Journal
    lines: Lines
    runner: Scripts
    filing: Filing
    sender: Sender
    reporter: Reporter
    output: LiveOutput


class Words:
    """Does what orders say about the jobs of a station. Methods may be called from any thread."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._installation = owner.identity.installation
        self._acts: dict[str, Callable[[str], None]] = {
            "cancel": self._cancel,
            "hold": self._hold,
            "ask": self._tell,
            "spool": owner.output.again,
        }

    def obey(self, token: Any) -> None:
        """One order. Never raises for what came in."""
        owner = self._owner
        order = owner.door.open(token)
        if order is None or order.kind == "run":
            return
        if owner.journal.seen_order(order.id, order.expires_at, time.time()):
            return
        for job in order.job_ids:
            scope.begin(job=job)
            try:
                self._acts[order.kind](job)
            except MusterError as error:
                log.warning("%s of %s: %s", order.kind, job, error.message)

    def _cancel(self, job: str) -> None:
        at = self._owner.lines.at(job)
        if at != job:
            # It was over already and another had its turn, of which who cancels did not know yet.
            self._cancel_one(at)
        self._cancel_one(job)

    def _cancel_one(self, job: str) -> None:
        owner = self._owner
        entry = owner.journal.find(self._installation, job)
        if entry is not None and entry.status == "ended":
            owner.sender.again(entry)
            return
        owner.journal.cancel_requested(self._installation, job, time.time())
        if entry is not None:
            owner.filing.stop(job)
        owner.runner.cancel(job, "cancelled")

    def _hold(self, job: str) -> None:
        """Nothing begins behind the job any more, nor behind what has followed it by now."""
        for one in {job, self._owner.lines.at(job)}:
            self._owner.journal.hold_requested(self._installation, one, time.time())

    def _tell(self, job: str) -> None:
        owner = self._owner
        entry = owner.journal.find(self._installation, job)
        if entry is None:
            owner.reporter.say(job, "not_known", time.time())
        elif entry.status == "ended":
            owner.sender.again(entry)
        else:
            owner.reporter.say(job, "running", entry.accepted_at)
