"""The circuit breaker of one machine: after some failures in a row nobody tries for a while, then one does.

    closed ──k failures──> open ──cool-down is over──> half-open ──the one probe succeeds──> closed
                            ^───────────── it fails: twice the cool-down ─────┘

Pure: every call is given the time, in seconds of any clock that only goes forward.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

State = Literal["closed", "open", "half-open"]

LONGEST = 300.0
"""Seconds that a cool-down grows to."""


@dataclass(frozen=True, slots=True)
class Breaker:
    """`failures` in a row open it for `cooldown` seconds. `opened` counts how often it opened since it was closed.

    `until` is when the next probe may be made; `probing` is until when the one that is under way has time.
    """

    threshold: int = 3
    cooldown: float = 30.0
    failures: int = 0
    opened: int = 0
    until: float = 0.0
    probing: float = 0.0
    error: str = ""

    def state(self, now: float) -> State:
        if not self.opened:
            return "closed"
        return "open" if now < self.until else "half-open"

    def admits(self, now: float) -> bool:
        """May somebody try now? Who is told so in half-open has to say `began` first."""
        state = self.state(now)
        return state == "closed" or (state == "half-open" and now >= self.probing)

    def began(self, now: float, patience: float) -> Breaker:
        """An attempt begins, which has `patience` seconds; in half-open it is the only one."""
        if self.state(now) == "half-open":
            return replace(self, probing=now + patience)
        return self

    def succeeded(self) -> Breaker:
        return Breaker(self.threshold, self.cooldown)

    def failed(self, now: float, error: str) -> Breaker:
        """An attempt failed, of those that began while it was open too: they change nothing."""
        state = self.state(now)
        failures = self.failures + 1
        if state == "open":
            return replace(self, failures=failures, error=error)
        if state == "closed" and failures < self.threshold:
            return replace(self, failures=failures, error=error)
        wait = min(LONGEST, self.cooldown * 2**self.opened)
        return replace(
            self, failures=failures, error=error, opened=self.opened + 1, until=now + wait, probing=0.0
        )
