"""Orders with several jobs: all at once, or one after another, until one does not succeed or somebody says that no more
are to begin.

What is kept of a job in the journal: of the first of an order the order itself (`token`) and the canvas that its last
job comes back with (`last`); of those behind it whose order it was (`order_of`). So a worker that is started anew finds
the rest of the line again.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from app.node.journal import Entry, Promise
from app.node.sweep import boot_id
from app.transport.gate import Canvas
from app.transport.messages import Job, Order

_NOTHING = Canvas().to_json()


@dataclass(slots=True)
class _Line:
    """An order that this node is at: `at` is the job that has its turn."""

    order: Order
    at: int


class Lines:
    """The orders with several jobs that this process is at. Methods may be called from any thread."""

    def __init__(self) -> None:
        self._lines: dict[str, _Line] = {}
        self._open: dict[str, int] = {}
        self._lock = threading.Lock()

    def begin(self, order: Order, job: Job) -> None:
        """This job has its turn; those behind it may follow."""
        if len(order.jobs) == 1 or order.at_once:
            return
        with self._lock:
            line = _Line(order, _place(order, job))
            self._lines.update({one.id: line for one in order.jobs})

    def count(self, order: Order) -> None:
        """All jobs of an order run here side by side."""
        with self._lock:
            self._open[order.id] = len(order.jobs)

    def end(self, order: Order) -> None:
        """Nothing of it follows any more."""
        if len(order.jobs) == 1 or order.at_once:
            return
        with self._lock:
            for job in order.jobs:
                if (line := self._lines.get(job.id)) is not None and line.order is order:
                    del self._lines[job.id]

    def some_over(self, order: Order, some: int) -> bool:
        """So many jobs are over, or not run here: returns whether no other of their order runs by their side."""
        if not order.at_once:
            return True
        with self._lock:
            left = self._open.pop(order.id, some) - some
            if left > 0:
                self._open[order.id] = left
            return left <= 0

    def follower(self, job: Job) -> Job | None:
        """The job that has its turn next: from here on it has."""
        with self._lock:
            line = self._lines.get(job.id)
            if line is None or line.at + 1 == len(line.order.jobs):
                return None
            line.at += 1
            return line.order.jobs[line.at]

    def at(self, job: str) -> str:
        """What has followed this job by now, or itself."""
        with self._lock:
            line = self._lines.get(job)
            if line is None:
                return job
            over = {one.id for one in line.order.jobs[: line.at]}
            return line.order.jobs[line.at].id if job in over else job


def promise(order: Order, job: Job, token: str, canvas: Mapping[str, Any]) -> Promise:
    """What the journal keeps of a job: `canvas` is that of its order, which the last of its jobs comes back with.

    Without a `token` the first job of the order has it.
    """
    first, last = order.jobs[0], order.jobs[-1]
    kept: dict[str, Any] = {"canvas": canvas if job is last else _NOTHING, "boot": boot_id()}
    if not token:
        kept["order_of"] = first.id
    else:
        kept["token"] = token
        if job is not last:
            kept["last"] = canvas
    return Promise(job.id, job.digest, order.id, json.dumps(kept))


def order_of(entry: Entry, find: Callable[[str], Entry]) -> tuple[str, float, Mapping[str, Any]]:
    """The order that a job came in, as it was kept, when it came (Unix seconds), and the canvas that its last job comes
    back with.

    `find` gives the entry of another job. Raises NotFound.
    """
    kept = json.loads(entry.canvas)
    if "order_of" in kept:
        entry = find(kept["order_of"])
        kept = json.loads(entry.canvas)
    return kept["token"], entry.accepted_at, kept.get("last", kept["canvas"])


def before(order: Order, job: Job) -> str:
    """The id of the job that this one follows, "" for none."""
    place = 0 if order.at_once else _place(order, job)
    return order.jobs[place - 1].id if place else ""


def _place(order: Order, job: Job) -> int:
    return next(place for place, one in enumerate(order.jobs) if one.id == job.id)


def in_a_thread(what: Callable[[], None]) -> None:
    """Where there is no pool to do it."""
    threading.Thread(target=what, name="order", daemon=True).start()
