"""Whether a node is well, as somebody beside its worker sees it: nothing here asks the worker."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.errors import Unavailable
from app.node import endpoint, pulse
from app.settings import Settings
from app.transport import rabbit_ping
from app.transport.output import ping

BEATS = 3
"""Heartbeats that may be missing before the last one is too old."""
ANSWER_WITHIN = 2.0
"""Seconds that the broker, the runner and the journal may each take to answer."""
FRESH_FOR = 1.0
"""Seconds that an answer serves everybody who asks."""
_PROBE = ".writable"
_PROBE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Health:
    """What was seen. `heartbeat_age`: seconds since a heartbeat got out, None if none ever did."""

    node: str
    address: str
    worker: bool
    broker: bool
    runner: bool
    journal: bool
    heartbeat_age: float | None
    is_fresh: bool

    @property
    def failing(self) -> list[str]:
        """What keeps the node from doing its work; empty for one that is well."""
        parts = {"worker": self.worker, "broker": self.broker, "runner": self.runner, "journal": self.journal}
        return [name for name, is_well in {**parts, "heartbeat": self.is_fresh}.items() if not is_well]

    def to_json(self) -> dict[str, Any]:
        return {
            "status": "failing" if self.failing else "ok",
            "failing": self.failing,
            "node": self.node,
            "address": self.address,
            "worker": self.worker,
            "broker": self.broker,
            "runner": self.runner,
            "journal": self.journal,
            "heartbeat_age": self.heartbeat_age,
        }


class Doctor:
    """Looks at the node of the settings, at most once in `FRESH_FOR` seconds. Any thread may ask."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._directory = Path(settings.node_directory)
        self._lock = threading.Lock()
        self._last: tuple[float, Health] | None = None

    def examine(self) -> Health:
        """What is so now, or was within the last second."""
        with self._lock:
            if self._last is None or time.monotonic() - self._last[0] > FRESH_FOR:
                health = self._look()
                self._last = (time.monotonic(), health)
            return self._last[1]

    def _look(self) -> Health:
        settings = self._settings
        seen = pulse.look(self._directory)
        # A clock that was put back makes no heartbeat come from the future.
        age = None if seen.beat_at is None else round(max(0.0, time.time() - seen.beat_at), 3)
        return Health(
            node=settings.node,
            address=settings.node_address.lower(),
            worker=seen.is_alive,
            broker=_succeeds(self._reach_broker),
            runner=_succeeds(self._ask_runner),
            journal=_succeeds(self._try_journal),
            heartbeat_age=age,
            is_fresh=age is not None and age <= BEATS * settings.heartbeat_every,
        )

    def _reach_broker(self) -> None:
        """Redis holds the streams of output whatever the broker is."""
        ping(self._settings.redis_url, ANSWER_WITHIN)
        if self._settings.broker.startswith(("amqp", "pyamqp")):
            rabbit_ping.ping(self._settings.broker, seconds=ANSWER_WITHIN)

    def _ask_runner(self) -> None:
        with endpoint.connect(str(self._directory), ANSWER_WITHIN) as sock:
            sock.sendall(b'{"id": 1, "do": "ping"}\n')
            if not sock.recv(1):
                raise Unavailable("the runner hung up")

    def _try_journal(self) -> None:
        """Its lock can be had, and the disk takes something more."""
        path = self._directory / "journal.db"
        with closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=ANSWER_WITHIN)
        ) as db:
            db.execute("BEGIN IMMEDIATE")
            db.rollback()
        _write_through(self._directory / _PROBE)


def _write_through(path: Path) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.write(file, bytes(_PROBE_BYTES))
        os.fsync(file)
    finally:
        os.close(file)
        path.unlink()


def _succeeds(check: Callable[[], None]) -> bool:
    try:
        check()
    except (Unavailable, OSError, sqlite3.Error):
        return False
    return True
