"""What a node has promised and what came of it: SQLite, DIR/journal.db.

A promise is on the disk when `accept` returns; an outcome is with the next promise, `sync` or heartbeat (decision 010).
Jobs are known by (installation, job id). A journal that is
lost or cannot be read is replaced by a new one with a new epoch: control takes all that was open under the
old epoch as `unknown`, and orders for the old epoch are refused.

One process owns a journal. So what is asked for with every job is answered from memory: whether a cancel came for it,
and which outcomes are to be published. That an outcome was published is written down with whatever is written next,
at the latest by the next heartbeat: a mark that a crash takes only makes something be said twice.
"""

from __future__ import annotations

import enum
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from app.errors import Unavailable
from app.node.journal_file import BROKEN, open_file, put_aside

log = logging.getLogger(__name__)

MAX_CANCELS = 10_000
"""Cancels that are kept for jobs that have not come; the oldest go first."""

MOST_MARKS = 100
"""Marks of published outcomes that wait for the next transaction."""
MOST_OUTBOX = 16 << 20
"""Characters of canvases and outcomes that wait for the broker in memory; beyond that they are read from the disk."""

_COLUMNS = "installation, job, digest, order_id, canvas, status, outcome, published, accepted_at, ended_at"
_PUBLISHED = "UPDATE jobs SET published = 1 WHERE installation = ? AND job = ? AND status = 'ended'"
_PROMISE = (
    "INSERT INTO jobs (installation, job, digest, order_id, canvas, status, accepted_at)"
    " VALUES (?, ?, ?, ?, ?, 'accepted', ?) ON CONFLICT DO NOTHING"
)


class Accepted(enum.Enum):
    """What a node does with a job that it is asked to run."""

    FRESH = "fresh"
    """Not known until now, promised from here on: start it."""
    RUNNING = "running"
    """Promised before and not ended: it is being seen to."""
    ENDED = "ended"
    """Over: send its outcome again."""
    OTHER_DIGEST = "other_digest"
    """Known with another content: refuse it."""


class Promise(NamedTuple):
    """A job that is to be run: `canvas` is JSON text, whatever is needed to answer for it."""

    job: str
    digest: str
    order_id: str
    canvas: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One journalled job. Times are Unix seconds, `canvas` is JSON text, `outcome` is as `ended` got it."""

    installation: str
    job: str
    digest: str
    order_id: str
    canvas: str
    status: str
    outcome: str | None
    published: int
    accepted_at: float
    ended_at: float | None

    @property
    def size(self) -> int:
        """Characters, about."""
        return len(self.canvas) + len(self.outcome or "")


class Journal:
    """Opens or makes the journal in `directory`. Every method may be called from any thread.

    Every method raises `Unavailable` where the disk does not take it: then nothing was promised.
    """

    def __init__(self, directory: str | Path, *, now: float | None = None) -> None:
        self.path = os.path.join(directory, "journal.db")
        self._lock = threading.RLock()
        os.makedirs(directory, 0o700, exist_ok=True)
        created_at = time.time() if now is None else now
        try:
            self._db = open_file(self.path, created_at)
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF not in BROKEN:
                raise Unavailable(f"the journal {self.path} cannot be opened: {error}") from None
            aside = put_aside(self.path, created_at)
            log.error(
                "the journal %s is corrupt (%s): kept as %s, a new epoch begins", self.path, error, aside
            )
            self._db = open_file(self.path, created_at)
        self._synced = True
        self._marks: list[tuple[str, str]] = []
        # What this process accepted and has not ended yet.
        self._held: dict[tuple[str, str], Entry] = {}
        # The outcomes to be published, where memory holds all of them.
        self._outbox: dict[tuple[str, str], Entry] | None = None
        self._outbox_size = 0
        self._cancelled: set[tuple[str, str]] = set(self._db.execute("SELECT installation, job FROM cancels"))
        # Behind which nothing is to begin.
        self._stopped: set[tuple[str, str]] = set(self._db.execute("SELECT installation, job FROM holds"))
        self._epoch = str(self._db.execute("SELECT epoch FROM meta").fetchone()[0])

    @property
    def epoch(self) -> str:
        """Names this journal for ever: 26 letters and digits."""
        return self._epoch

    def close(self) -> None:
        try:
            self.sync()
        except Unavailable as error:
            log.warning("%s", error)
        with self._lock:
            self._db.close()

    def next_sequence(self) -> int:
        """The number of the next heartbeat: greater than any that was given out before, restarts included."""
        with self._transaction() as db:
            db.execute("UPDATE meta SET sequence = sequence + 1")
            return int(db.execute("SELECT sequence FROM meta").fetchone()[0])

    def accept(
        self, installation: str, job_id: str, digest: str, order_id: str, canvas: str, now: float
    ) -> Accepted:
        """Promises to run the job, unless it is known. What it returns is on the disk."""
        return self.accept_each(installation, [Promise(job_id, digest, order_id, canvas)], now)[0]

    def accept_each(self, installation: str, promises: Sequence[Promise], now: float) -> list[Accepted]:
        """The same for several jobs, in one transaction."""
        found = []
        query = "SELECT digest, status FROM jobs WHERE installation = ? AND job = ?"
        with self._lock:
            with self._transaction() as db:
                for one in promises:
                    is_new = db.execute(_PROMISE, (installation, *one, now)).rowcount
                    known = None if is_new else db.execute(query, (installation, one.job)).fetchone()
                    found.append(_accepted(one, known))
            for one, accepted in zip(promises, found, strict=True):
                if accepted is Accepted.FRESH:
                    self._keep(installation, one, now)
        return found

    def ended(
        self,
        installation: str,
        job_id: str,
        outcome: str,
        now: float,
        canvas: str | None = None,
        follower: Promise | None = None,
    ) -> bool:
        """Stores the outcome to be published. False where the job is unknown or has one: the first stays.

        A `canvas` takes the place of the one that was kept, which held an order with secrets. It outlives this
        process at once, and a power cut with whatever is synced next. A `follower` that is not known is promised in
        the same transaction: then all of it is on the disk when this returns.
        """
        key = (installation, job_id)
        with self._lock:
            with self._transaction(synced=follower is not None) as db:
                stored = db.execute(
                    "UPDATE jobs SET status = 'ended', outcome = ?, ended_at = ?, canvas = coalesce(?, canvas)"
                    " WHERE installation = ? AND job = ? AND status <> 'ended'",
                    (outcome, now, canvas, installation, job_id),
                ).rowcount
                if key in self._cancelled:
                    db.execute("DELETE FROM cancels WHERE installation = ? AND job = ?", key)
                if key in self._stopped:
                    db.execute("DELETE FROM holds WHERE installation = ? AND job = ?", key)
                is_new = (
                    follower is not None and db.execute(_PROMISE, (installation, *follower, now)).rowcount
                )
            self._cancelled.discard(key)
            self._stopped.discard(key)
            held = self._held.pop(key, None)
            if follower is not None and is_new:
                self._keep(installation, follower, now)
            if stored and held is None:
                # Of an earlier process: only the disk has its canvas.
                self._outbox = None
            elif stored and held is not None and self._outbox is not None:
                kept = held.canvas if canvas is None else canvas
                entry = replace(held, status="ended", outcome=outcome, ended_at=now, canvas=kept)
                self._put_out(entry, self._outbox)
        return stored == 1

    def _keep(self, installation: str, one: Promise, now: float) -> None:
        entry = Entry(installation, *one, "accepted", None, 0, now, None)
        self._held[installation, one.job] = entry

    def find(self, installation: str, job_id: str) -> Entry | None:
        """What is known of the job."""
        found = self._entries("WHERE installation = ? AND job = ?", (installation, job_id))
        return found[0] if found else None

    def unpublished(self) -> list[Entry]:
        """Ended jobs whose outcome has not been handed to the broker, oldest first."""
        with self._lock:
            if self._outbox is not None:
                return list(self._outbox.values())
            stored = self._entries("WHERE published = 0 AND status = 'ended' ORDER BY accepted_at, job")
            found = [entry for entry in stored if (entry.installation, entry.job) not in self._marks]
            outbox: dict[tuple[str, str], Entry] = {}
            self._outbox, self._outbox_size = outbox, 0
            for entry in found:
                self._put_out(entry, outbox)
            return found

    def _put_out(self, entry: Entry, outbox: dict[tuple[str, str], Entry]) -> None:
        outbox[entry.installation, entry.job] = entry
        self._outbox_size += entry.size
        if self._outbox_size > MOST_OUTBOX:
            self._outbox = None

    def published(self, installation: str, job_id: str) -> None:
        """The broker has taken the outcome."""
        with self._lock:
            entry = self._outbox.pop((installation, job_id), None) if self._outbox is not None else None
            self._outbox_size -= entry.size if entry else 0
            self._marks.append((installation, job_id))
            if len(self._marks) >= MOST_MARKS:
                self.sync()

    def held(self) -> list[Entry]:
        """Jobs that were accepted and have not ended, oldest first."""
        return self._entries("WHERE published = 0 AND status <> 'ended' ORDER BY accepted_at, job")

    def cancel_requested(self, installation: str, job_id: str, now: float) -> None:
        """Remembers that the job is to be cancelled, also one that is not known yet."""
        with self._lock:
            with self._transaction() as db:
                db.execute(
                    "INSERT INTO cancels (installation, job, at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                    (installation, job_id, now),
                )
                gone = db.execute(
                    "DELETE FROM cancels WHERE number <= (SELECT max(number) FROM cancels) - ?"
                    " RETURNING installation, job",
                    (MAX_CANCELS,),
                ).fetchall()
            self._cancelled.add((installation, job_id))
            self._cancelled.difference_update(gone)

    def hold_requested(self, installation: str, job_id: str, now: float) -> None:
        """Remembers that nothing is to begin behind the job, also where it is not known yet."""
        with self._lock:
            with self._transaction() as db:
                db.execute(
                    "INSERT INTO holds (installation, job, at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                    (installation, job_id, now),
                )
            self._stopped.add((installation, job_id))

    def is_held(self, installation: str, job_id: str) -> bool:
        """Is nothing to begin behind the job?"""
        return (installation, job_id) in self._stopped

    def is_cancelled(self, installation: str, job_id: str) -> bool:
        """Was a cancel of the job asked for?"""
        return (installation, job_id) in self._cancelled

    def seen_order(self, order_id: str, expires_at: float, now: float) -> bool:
        """Was the order met before? From now on it was. One that has expired is to be refused without asking.

        An order that runs a job need not ask: `accept` knows the job.
        """
        with self._transaction() as db:
            db.execute("DELETE FROM orders WHERE expires_at < ?", (now,))
            inserted = db.execute(
                "INSERT INTO orders (id, expires_at) VALUES (?, ?) ON CONFLICT DO NOTHING",
                (order_id, expires_at),
            ).rowcount
            return inserted == 0

    def prune(self, now: float, keep_seconds: float) -> list[tuple[str, str]]:
        """Forgets jobs that ended and were published, more than `keep_seconds` ago, and old cancels.

        The (installation, job id) of each job forgotten: the caller forgets them at the runner, too.
        """
        names, before = "RETURNING installation, job", (now - keep_seconds,)
        with self._lock:
            with self._transaction() as db:
                jobs = f"DELETE FROM jobs WHERE published = 1 AND ended_at < ? {names}"
                gone: list[tuple[str, str]] = db.execute(jobs, before).fetchall()
                cancels = db.execute(f"DELETE FROM cancels WHERE at < ? {names}", before).fetchall()
                holds = db.execute(f"DELETE FROM holds WHERE at < ? {names}", before).fetchall()
                db.execute("DELETE FROM orders WHERE expires_at < ?", (now,))
            self._cancelled.difference_update(cancels)
            self._stopped.difference_update(holds)
        return gone

    def _entries(self, where: str, values: tuple[str, ...] = ()) -> list[Entry]:
        with self._lock, self._guarded() as db:
            rows = db.execute(f"SELECT {_COLUMNS} FROM jobs {where}", values).fetchall()
        return [Entry(*row) for row in rows]

    def sync(self) -> None:
        """Has everything on the disk that was written so far."""
        with self._transaction() as db:
            # One that writes nothing syncs nothing.
            db.execute("UPDATE meta SET sequence = sequence")

    @contextmanager
    def _transaction(self, *, synced: bool = True) -> Iterator[sqlite3.Connection]:
        """One transaction, which takes along the marks that wait. One that is `synced` is on the disk when it returns,
        with all that were before it: they are in one file."""
        with self._lock, self._guarded() as db:
            if synced != self._synced:
                db.execute("PRAGMA synchronous = FULL" if synced else "PRAGMA synchronous = NORMAL")
                self._synced = synced
            db.execute("BEGIN IMMEDIATE")
            try:
                if self._marks:
                    db.executemany(_PUBLISHED, self._marks)
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
            self._marks.clear()

    @contextmanager
    def _guarded(self) -> Iterator[sqlite3.Connection]:
        try:
            yield self._db
        except sqlite3.Error as error:
            message = f"the journal {self.path} does not answer: {error}"
            raise Unavailable(
                message, hint="free disk space, or restart the worker", code="journal"
            ) from error


def _accepted(one: Promise, known: tuple[str, str] | None) -> Accepted:
    """What a promise comes to, by the digest and status that its job is known with."""
    if known is None:
        return Accepted.FRESH
    digest, status = known
    if digest != one.digest:
        return Accepted.OTHER_DIGEST
    return Accepted.ENDED if status == "ended" else Accepted.RUNNING
