"""What the API is made of: settings, the store, the nudge, Redis; and the session that views read by."""

from __future__ import annotations

import atexit
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, cast

from flask import Flask, current_app
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Connection, Engine

from app.services import spans
from app.services.control import Control
from app.services.tally import Tally
from app.settings import Settings
from app.store.db import Store
from app.store.tables import Base
from app.transport import counters
from app.transport.celery_app import make_celery
from app.transport.ends import Ends
from app.transport.output import connect
from app.transport.send import Sender

log = logging.getLogger(__name__)

Send = Callable[[Iterable[str]], None]

_NUDGES = 10_000
_APART = 0.005
"""Seconds between two writes to the broker at the least: a write takes longer than what one more nudge adds to it."""
_TOGETHER = 100
"""Nudges that are sent in one write at the most."""
_LAST = ""
_OTHER_THREADS = 4


class Nudger:
    """Sends nudges from a thread of its own, so that no answer ever waits for the broker.

    The thread starts with the first nudge, thus behind a fork. What does not fit is dropped: the tick finds it.
    """

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._waiting: queue.SimpleQueue[tuple[Send, str]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    def __call__(self, executions: Iterable[str]) -> None:
        """Has control settle these executions."""
        self._put(self._sender.settle, executions)

    def look(self, nodes: Iterable[str]) -> None:
        """Has the gateway look at these SSH nodes."""
        self._put(self._sender.look, nodes)

    def _put(self, send: Send, names: Iterable[str]) -> None:
        with self._lock:
            if self._thread is None and not self._closed.is_set():
                self._thread = threading.Thread(target=self._run, name="nudge", daemon=True)
                self._thread.start()
        for name in names:
            if self._waiting.qsize() >= _NUDGES:
                log.warning("a nudge was dropped; its work is found without it")
                return
            self._waiting.put((send, name))

    def close(self, seconds: float) -> None:
        """Drop what waits and end the thread; waits so many seconds for what is being sent."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is None:
            return
        self._closed.set()
        while self._more():
            pass
        self._waiting.put((self._sender.settle, _LAST))
        thread.join(seconds)

    def _run(self) -> None:
        sent_at = float("-inf")
        while not self._closed.is_set():
            first = self._waiting.get()
            # The first goes at once; those close behind it go together.
            self._closed.wait(max(0.0, sent_at + _APART - time.monotonic()))
            together: dict[Send, list[str]] = {}
            for send, name in (first, *self._more()):
                if name != _LAST:
                    together.setdefault(send, []).append(name)
            for send, names in together.items():
                send(names)
            sent_at = time.monotonic()

    def _more(self) -> list[tuple[Send, str]]:
        """What waits by now, so that it goes out in one write."""
        found: list[tuple[Send, str]] = []
        try:
            while len(found) < _TOGETHER:
                found.append(self._waiting.get_nowait())
        except queue.Empty:
            pass
        return found


class Seats:
    """How many requests may be held open (streams, waits), so that threads are left for the others."""

    def __init__(self, number: int) -> None:
        self._free = threading.Semaphore(number)

    def take(self) -> bool:
        """False if there is none. One that was taken must be given back."""
        return self._free.acquire(blocking=False)

    def give_back(self) -> None:
        self._free.release()


@dataclass
class Wiring:
    """One per app, in `app.extensions["muster"]`."""

    control: Control
    seats: Seats = field(init=False)

    def __post_init__(self) -> None:
        self.seats = Seats(max(1, self.control.settings.api_threads - _OTHER_THREADS))

    @cached_property
    def redis(self) -> Any:
        """A client of the Redis that holds live output; connects when it is used."""
        return connect(self.control.settings.redis_url)

    @cached_property
    def broker(self) -> Any:
        """A client of the Redis that is the broker; None where the broker is none."""
        url = self.control.settings.broker
        if url == self.control.settings.redis_url:
            return self.redis
        return connect(url) if url.startswith(("redis", "socket")) else None

    @property
    def ends(self) -> Ends:
        """Where one hears that an execution is over."""
        return Ends(self.redis)


def make_control(settings: Settings) -> Control:
    """The control side as the API has it: it may read, write and nudge, and holds no key."""
    sender = Sender(make_celery("sender", broker_url=settings.broker, name="api"))
    tally = Tally(partial(counters.add, connect(settings.redis_url)))
    atexit.register(tally.close)
    tell = spans.exporter(settings, "api")
    nudger = Nudger(sender)
    return Control(settings, Store(settings.database), nudger, look=nudger.look, tally=tally, spans=tell)


class _Database(SQLAlchemy):
    """Flask-SQLAlchemy on the store's engine, which begins transactions as SQLite needs it."""

    def _make_engine(self, bind_key: str | None, options: dict[str, Any], app: Flask) -> Engine:
        return cast(Wiring, app.extensions["muster"]).control.store.engine


db = _Database(metadata=Base.metadata, session_options={"expire_on_commit": False}, add_models_to_shell=False)


def register(app: Flask, control: Control) -> None:
    """Give the app its wiring and its sessions."""
    app.extensions["muster"] = Wiring(control)
    # Only for the check that there is one: the engine is the store's.
    app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite://"
    db.init_app(app)


def wiring() -> Wiring:
    """That of the current app."""
    return cast(Wiring, current_app.extensions["muster"])


def control() -> Control:
    """That of the current app."""
    return wiring().control


@contextmanager
def reading() -> Iterator[Connection]:
    """The request's session for a few reads. It holds no transaction behind them, so that the next reads see what
    was written in between."""
    try:
        yield db.session.connection()
    finally:
        db.session.rollback()
