"""One circuit breaker a host, for all flows of this process: a host that does not answer is left alone for a while."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from app.ssh.breaker import Breaker

log = logging.getLogger(__name__)

PATIENCE = 60.0
"""Seconds in which a probe must have come to something."""


class Breakers:
    """`threshold` failures in a row open one for `cooldown` seconds. Safe from any thread."""

    def __init__(
        self, threshold: int = 3, cooldown: float = 30.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._new = Breaker(threshold, cooldown)
        self._clock = clock
        self._hosts: dict[str, Breaker] = {}
        self._lock = threading.Lock()

    def refusal(self, host: str) -> str:
        """Why nothing may be attempted now, "" where it may: then it has begun, and says how it ended."""
        with self._lock:
            now, one = self._clock(), self._hosts.get(host, self._new)
            if one.admits(now):
                self._hosts[host] = one.began(now, PATIENCE)
                return ""
            left = max(one.until, one.probing) - now
            last = f": {one.error}" if one.error else ""
            return f"its circuit breaker is open for {left:.0f} s more, after {one.failures} failures{last}"

    def failed(self, host: str, why: str) -> None:
        """It could not be reached, or did not answer in time."""
        with self._lock:
            now, one = self._clock(), self._hosts.get(host, self._new)
            after = self._hosts[host] = one.failed(now, why[:200])
        if after.opened > one.opened:
            log.warning(
                "the circuit breaker of %s is open for %.0f s: %s", host, after.until - now, why[:200]
            )

    def succeeded(self, host: str) -> None:
        """It answered."""
        with self._lock:
            if self._hosts.pop(host, self._new).opened:
                log.info("the circuit breaker of %s is closed", host)
