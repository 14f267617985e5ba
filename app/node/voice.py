"""What a node says: outcomes from its journal, reports of what it holds, heartbeats. Each by one thread.

The node publishes to `results` and `heartbeats` and nowhere else.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from app.errors import Unavailable
from app.node.identity import Identity
from app.node.journal import Entry, Journal
from app.transport import queues
from app.transport.celery_app import Muster
from app.transport.gate import Canvas
from app.transport.life import Heartbeat, Report
from app.transport.sealing import sign_heartbeat, sign_report
from app.transport.wire import Message

log = logging.getLogger(__name__)

REPORT_EVERY = 0.25
"""Seconds between two reports at the least. A job that is over by then is not reported at all (decision 005)."""

RETRY_FIRST, RETRY_MOST = 0.2, 5.0

IN_LINE, BESIDE = 0.1, 0.02
"""Seconds that an outcome may wait for the next of its order: where that is begun behind it, and where it runs beside
it, so that control can be at work meanwhile."""

AT_ONCE = 50
"""Outcomes that are published together, and marked after that."""

COLLECT_BYTES = 500_000
"""Characters of outcomes in one message after which the next one begins another."""

MOST_REPEATS = 10_000
"""Outcomes that wait to be said once more; control asks again for what is left out."""

SILENT_FOR = 120.0
"""Seconds without a heartbeat that got out after which the worker ends itself, for its supervisor to start anew."""


class Sender:
    """Publishes `collect` for every outcome in the journal that has not been: stored → published → marked.

    One thread at a time: the one whose job has ended, or a thread of its own for what comes meanwhile and for what
    the broker did not take.
    """

    def __init__(self, app: Muster, journal: Journal) -> None:
        self._app = app
        self._journal = journal
        self._changed = threading.Condition()
        self._due = True
        # Orders whose outcomes nobody waits for so far, and when they are published (`time.monotonic`).
        self._later: dict[str, float] = {}
        self._busy = False
        # The broker did not take something: only the thread of its own tries again.
        self._is_away = False
        self._repeats: deque[Entry] = deque(maxlen=MOST_REPEATS)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def publish(self, order: str, *, within: float = 0.0) -> None:
        """There is an outcome of a job of this order: it is published here and now, unless another thread is at it.

        With `within` nobody waits for it: it goes with that of the next job, and leaves after so many seconds at the
        latest.
        """
        with self._changed:
            if within:
                if order not in self._later:
                    self._later[order] = time.monotonic() + within
                    self._changed.notify()
                return
            self._later.pop(order, None)
            self._due = True
            if self._busy or self._is_away:
                return
            self._busy, self._due = True, False
        self._publish_all()

    def again(self, entry: Entry) -> None:
        """Publish a stored outcome once more: control asked, or its order came again."""
        self._repeats.append(entry)
        with self._changed:
            self._due = True
            self._changed.notify()

    def close(self, seconds: float = 5.0) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(seconds)

    def _run(self) -> None:
        wait = RETRY_FIRST
        while self._is_asked():
            if self._publish_all():
                wait = RETRY_FIRST
                continue
            with self._changed:
                if self._changed.wait_for(lambda: self._stopping, wait):
                    return
            wait = min(2 * wait, RETRY_MOST)

    def _is_asked(self) -> bool:
        """Waits until there is something to publish and nobody at it. False: nothing is left, and this is the end."""
        with self._changed:
            while self._busy or not (self._is_due() or self._stopping):
                first = None if self._busy else min(self._later.values(), default=None)
                self._changed.wait(None if first is None else first - time.monotonic())
            if not (self._due or self._later):
                return False
            if self._stopping:
                self._later.clear()
            self._busy, self._due = True, False
            return True

    def _is_due(self) -> bool:
        """Whether there is anything to be published now."""
        now = time.monotonic()
        for order in [order for order, at in self._later.items() if at <= now]:
            del self._later[order]
            self._due = True
        return self._due

    def _publish_all(self) -> bool:
        """Whether the broker took all that there was. The caller has made itself `_busy`."""
        is_taken = False
        try:
            with self._changed:
                later = set(self._later)
            due = [entry for entry in self._journal.unpublished() if entry.order_id not in later]
            for entries in _batches(due):
                self._publish(entries)
                for entry in entries:
                    self._journal.published(entry.installation, entry.job)
            while self._repeats:
                self._publish([self._repeats[0]])
                self._repeats.popleft()
            is_taken = True
        except Exception:  # the edge to the broker's client: kombu raises AttributeError too
            log.warning("outcomes wait in the journal: the broker does not take them", exc_info=True)
            self._keep()
        with self._changed:
            self._busy, self._is_away = False, not is_taken
            self._due = self._due or not is_taken
            if self._due or self._later or self._stopping:
                self._changed.notify()
        return is_taken

    def _keep(self) -> None:
        """Outcomes that have to wait are to outlive a power cut as well."""
        try:
            self._journal.sync()
        except Unavailable as error:
            log.warning("%s", error)

    def _publish(self, entries: Sequence[Entry]) -> None:
        self._app.publisher.send([collect(found) for found in by_order(entries)])


def by_order(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    """Outcomes that go in one message: of jobs that came in one order, as they ended."""
    orders: dict[str, list[Entry]] = {}
    for entry in entries:
        found = orders.setdefault(entry.order_id, [])
        if sum(len(one.outcome or "") for one in found) > COLLECT_BYTES:
            yield orders.pop(entry.order_id)
            found = orders.setdefault(entry.order_id, [])
        found.append(entry)
    yield from orders.values()


def collect(entries: Sequence[Entry]) -> Message:
    """`collect`, with the rest of the canvas that came with the order: it belongs to the last of the outcomes."""
    found = [(entry, Canvas.from_json(json.loads(entry.canvas)["canvas"])) for entry in entries]
    found.sort(key=lambda one: bool(one[1]))
    entry, canvas = found[-1]
    rest = list(canvas.chain or ())
    options = rest.pop()["options"] if rest else {}
    return Message(
        queues.RESULTS,
        queues.COLLECT,
        f"{entry.job}.collect",
        [entry.outcome for entry, _ in found],
        chain=rest or None,
        chord=options.get("chord"),
        group_id=options.get("group_id"),
    )


def _batches(entries: list[Entry]) -> Iterator[list[Entry]]:
    for start in range(0, len(entries), AT_ONCE):
        yield entries[start : start + AT_ONCE]


class Reporter:
    """Tells control which jobs are accepted and running, a few at a time; jobs already over are left out."""

    def __init__(self, app: Muster, identity: Identity, epoch: str) -> None:
        self._app = app
        self._identity = identity
        self._epoch = epoch
        self._said: dict[str, list[tuple[str, float]]] = {}
        self._lock = threading.Lock()
        self._due = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def say(self, job: str, status: str, at: float) -> None:
        """`accepted`, `running` or `not_known`, at Unix time `at`."""
        with self._lock:
            self._said.setdefault(job, []).append((status, at))
        if not self._due.is_set():
            self._due.set()

    def over(self, job: str) -> None:
        """The outcome says all that there is to say."""
        with self._lock:
            self._said.pop(job, None)

    def close(self) -> None:
        self._stop.set()
        self._due.set()
        self._thread.join(2.0)

    def _run(self) -> None:
        while True:
            self._due.wait()
            # What is said meanwhile wakes nobody: one job is over before the next report is due, or is in it.
            if self._stop.wait(REPORT_EVERY):
                return
            self._due.clear()
            with self._lock:
                said, self._said = self._said, {}
            if said:
                self._send(said)

    def _send(self, said: dict[str, list[tuple[str, float]]]) -> None:
        jobs = tuple((job, status, at) for job, states in said.items() for status, at in states)
        identity = self._identity
        report = Report(identity.installation, identity.node, self._epoch, time.time(), jobs)
        try:
            token = sign_report(report, identity.keys)
            self._app.publisher.send([Message.nudge(queues.RESULTS, queues.REPORT, token)])
        except Exception:  # the edge to the broker's client; heartbeats say the same a little later
            log.warning("a report could not be sent", exc_info=True)


class Heart:
    """Beats: every held job id, free slots, shells, versions. A worker that nobody hears ends itself.

    While `state` is None nothing is said, on purpose: control takes the node as offline. `on_beat` is called after each
    heartbeat that got out.
    """

    def __init__(
        self,
        app: Muster,
        identity: Identity,
        journal: Journal,
        every: float,
        state: Callable[[], dict[str, Any] | None],
        on_beat: Callable[[], None] = lambda: None,
    ) -> None:
        self._app = app
        self._identity = identity
        self._journal = journal
        self._every = every
        self._state = state
        self._on_beat = on_beat
        self._due = threading.Event()
        self._stopping = False
        self._started_at = time.time()
        self._heard = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="heart", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stopping = True
        self._due.set()
        self._thread.join(2.0)

    def soon(self) -> None:
        """Have the next beat now: there is something that control should not have to wait for."""
        self._due.set()

    def beat(self) -> None:
        """One heartbeat, now."""
        state = self._state()
        if state is None:
            self._heard = time.monotonic()
            return
        identity = self._identity
        beat = Heartbeat(
            installation=identity.installation,
            node=identity.node,
            epoch=self._journal.epoch,
            sequence=self._journal.next_sequence(),
            sent_at=time.time(),
            held=tuple(entry.job for entry in self._journal.held()),
            started_at=self._started_at,
            **state,
        )
        token = sign_heartbeat(beat, identity.keys)
        self._app.publisher.send([Message.nudge(queues.HEARTBEATS, queues.HEARTBEAT, token)])
        self._heard = time.monotonic()
        self._on_beat()

    def _run(self) -> None:
        while True:
            try:
                self.beat()
            except Unavailable as error:
                log.error("no heartbeat: %s", error)
            except Exception:  # the edge to the broker's client
                log.warning("a heartbeat could not be sent", exc_info=True)
            if time.monotonic() - self._heard > SILENT_FOR:
                log.error("no heartbeat got out for %.0f s: this worker ends itself", SILENT_FOR)
                os.kill(os.getpid(), signal.SIGTERM)
                return
            self._due.wait(self._every)
            if self._stopping:
                return
            self._due.clear()
