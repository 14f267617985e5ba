"""Which of the times of a schedule that have come still fire, where nobody was there to see them come."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from app.services import cron
from app.services.cron import Cron

ON_TIME: Final = 60.0
"""Seconds for which a time counts as on time: the finest cron has, and more than a control side takes to restart."""
LONGEST_GRACE: Final = 86_400.0
AT_ONCE: Final = 2000
"""Times of one schedule that are looked at together: more than any grace holds, so the older of them are late."""

LATE: Final = "late"
SUPERSEDED: Final = "superseded"
"""Why a time is missed: it is longer ago than `grace`, or a newer one fires in its place."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What becomes of times that were not seen in time.

    `skip`: none fires; `once`: the newest; `all`: the newest `most`, the oldest of these first. Never one that is
    longer ago than `grace` seconds.
    """

    misfire: str
    most: int
    grace: float


@dataclass(frozen=True, slots=True)
class Tick:
    """A time of a schedule, and when it fires."""

    fire_time: float
    due_at: float


@dataclass(frozen=True, slots=True)
class Pending:
    """Times that have come, the oldest first, and the one behind them. `cut`: there are more, which come later."""

    ticks: Sequence[Tick]
    following: Tick | None
    cut: bool = False


def spread(schedule: str, fire_time: float, jitter: float) -> float:
    """The part of `jitter` seconds by which this time of this schedule fires later: always the same."""
    if not jitter:
        return 0.0
    number = int.from_bytes(hashlib.sha256(f"{schedule}|{fire_time:.0f}".encode()).digest()[:8], "big")
    # Whole milliseconds: what a database gives back is what was written.
    return number * int(jitter * 1000) // 2**64 / 1000


def _ticks(schedule: str, times: Cron, after: float, jitter: float) -> Iterator[Tick]:
    """Ticks behind a time, one after another. None is put off to the time of the next one, whatever the jitter."""
    behind = cron.times(times, after)
    fire_time = next(behind, None)
    while fire_time is not None:
        then = next(behind, None) if jitter else None
        most = jitter if then is None else min(jitter, then - fire_time)
        yield Tick(fire_time, fire_time + spread(schedule, fire_time, most))
        fire_time = then if jitter else next(behind, None)


def next_tick(schedule: str, times: Cron, after: float, jitter: float) -> Tick | None:
    """The first tick behind a time, None where there is none in the years to come."""
    return next(_ticks(schedule, times, after, jitter), None)


def pending(schedule: str, times: Cron, first: Tick, jitter: float, now: float) -> Pending:
    """The ticks from `first` on that are due by now."""
    found = [first]
    for tick in _ticks(schedule, times, first.fire_time, jitter):
        if tick.due_at > now:
            return Pending(found, tick)
        if len(found) == AT_ONCE:
            return Pending(found, tick, cut=True)
        found.append(tick)
    return Pending(found, None)


def divided(found: Pending, policy: Policy, now: float) -> tuple[list[tuple[Tick, str]], list[Tick]]:
    """The missed ones with why, and those that fire, which are all newer."""
    grace = ON_TIME if policy.misfire == "skip" else max(ON_TIME, min(policy.grace, LONGEST_GRACE))
    late = sum(now - tick.due_at > grace for tick in found.ticks)
    if found.cut:
        # Which of the others fires is known when all are.
        return [(tick, LATE) for tick in found.ticks[:late]], []
    most = {"skip": len(found.ticks), "once": 1}.get(policy.misfire, policy.most)
    first = max(late, len(found.ticks) - most)
    missed = [(tick, LATE if place < late else SUPERSEDED) for place, tick in enumerate(found.ticks[:first])]
    return missed, list(found.ticks[first:])
