"""Counters and histograms: added up in the process that sees things happen, carried to Redis every few seconds.

Counting is an addition in memory; no transaction waits for it. What a killed process had not carried over is lost,
and a figure that is wrong by two seconds of one process is the price. The sums of all processes lie in one hash of
Redis, and begin anew with it, which Prometheus understands.
"""

from __future__ import annotations

import logging
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from app.services.measures import COUNTED, Measure

log = logging.getLogger(__name__)

CARRY_EVERY = 2.0
"""Seconds between two carryings of one process."""

MOST = 4096
"""Different sums that a process holds at the most; what is new beyond that is not counted."""

_PARTED = "|"
_SUM = "sum"

Carry = Callable[[Mapping[str, float]], None]


class Tally:
    """The sums of this process. Thread safe. `carry` adds them to those of all; without it nothing is kept.

    The thread that carries starts with the first sum, thus behind a fork.
    """

    def __init__(self, carry: Carry | None = None) -> None:
        self._carry = carry
        self._sums: dict[str, float] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def count(self, measure: Measure, *labels: str, by: float = 1) -> None:
        """Add to a counter."""
        self._add((_PARTED.join((measure.name, *labels)), by))

    def observe(self, measure: Measure, seconds: float, *labels: str) -> None:
        """Add a duration to a histogram."""
        name = _PARTED.join((measure.name, *labels))
        place = bisect_left(measure.buckets, seconds)
        self._add((f"{name}{_PARTED}{place}", 1), (f"{name}{_PARTED}{_SUM}", max(0.0, seconds)))

    @contextmanager
    def timed(self, measure: Measure, *labels: str) -> Iterator[None]:
        """Observe how long the block takes, however it ends."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.observe(measure, time.perf_counter() - began, *labels)

    def close(self) -> None:
        """Carry what there is, and end the thread."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join(CARRY_EVERY)

    def _add(self, *amounts: tuple[str, float]) -> None:
        if self._carry is None:
            return
        with self._lock:
            for name, amount in amounts:
                if name in self._sums or len(self._sums) < MOST:
                    self._sums[name] = self._sums.get(name, 0) + amount
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, args=(self._carry,), name="tally", daemon=True
                )
                self._thread.start()

    def _run(self, carry: Carry) -> None:
        while not self._closed.wait(CARRY_EVERY):
            self._flush(carry)
        self._flush(carry)

    def _flush(self, carry: Carry) -> None:
        with self._lock:
            sums, self._sums = self._sums, {}
        if not sums:
            return
        try:
            carry(sums)
        except Exception as error:  # noqa: BLE001 - the edge to Redis: the sums wait until it answers
            log.debug("figures wait: %s", type(error).__name__)
            with self._lock:
                for name, amount in sums.items():
                    self._sums[name] = self._sums.get(name, 0) + amount


Sums = dict[tuple[str, ...], float]
Distribution = tuple[list[float], float]
"""How many observations each bucket has (one more than the measure's, for all that is longer), and their sum."""


def read(kept: Mapping[str, float]) -> tuple[dict[str, Sums], dict[str, dict[tuple[str, ...], Distribution]]]:
    """Counters and histograms, by name and labels, from what lies in Redis. What is no figure of ours is left out."""
    counters: dict[str, Sums] = {}
    histograms: dict[str, dict[tuple[str, ...], Distribution]] = {}
    for key, value in kept.items():
        name, *parts = key.split(_PARTED)
        measure = COUNTED.get(name)
        if measure is None or len(parts) != len(measure.labels) + (measure.kind == "histogram"):
            continue
        if measure.kind == "counter":
            counters.setdefault(name, {})[tuple(parts)] = value
        else:
            _put(histograms.setdefault(name, {}), measure, parts, value)
    return counters, histograms


def _put(into: dict[tuple[str, ...], Distribution], measure: Measure, parts: list[str], value: float) -> None:
    *labels, place = parts
    empty: Distribution = ([0.0] * (len(measure.buckets) + 1), 0.0)
    counts, total = into.get(tuple(labels), empty)
    if place == _SUM:
        total = value
    elif place.isdecimal() and int(place) < len(counts):
        counts[int(place)] = value
    into[tuple(labels)] = (counts, total)
