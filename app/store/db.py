"""Connections and transactions. SQLite and PostgreSQL behave alike behind `read` and `write`.

SQLite: WAL, synchronous=FULL (an accepted execution survives a power cut), writers begin IMMEDIATE (a deferred writer
fails at once with BUSY_SNAPSHOT whatever the timeout), busy timeout 30 s (its wait is unfair, so it must be long).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url

from app.store.prepared import hand_over

BUSY_TIMEOUT_MS = 30_000


class Turn:
    """Lets the writing threads of this process at SQLite one after another.

    SQLite has no queue: who finds it locked sleeps for up to 100 ms before looking again, while it lies idle. A
    thread that has waited for as long as SQLite itself would let it wait goes on and hears SQLite's own answer.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._mine = threading.local()

    def __enter__(self) -> None:
        self._mine.held = self._lock.acquire(timeout=BUSY_TIMEOUT_MS / 1000)

    def __exit__(self, *_: object) -> None:
        if self._mine.held:
            self._lock.release()


class Store:
    """One database. Thread safe; connections are pooled."""

    def __init__(self, url: str) -> None:
        self.url = make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        if self.url.drivername == "postgresql":
            self.url = self.url.set(drivername="postgresql+psycopg")
        if self.is_sqlite and self.url.database:
            Path(self.url.database).parent.mkdir(parents=True, exist_ok=True)
        self.engine = _sqlite_engine(self.url) if self.is_sqlite else _postgres_engine(self.url)
        self._writers = self.engine.execution_options(muster_write=True)
        self._turn = Turn() if self.is_sqlite else nullcontext()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads."""
        with self.engine.connect() as connection:
            yield connection
            connection.rollback()

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that writes: committed at the end, rolled back on an exception."""
        with self._turn, self._writers.begin() as connection:
            yield connection

    def close(self) -> None:
        self.engine.dispose()


def _sqlite_engine(url: Any) -> Engine:
    # Every transaction here is ended by its own block, so that a connection comes back with none to roll back.
    options = {"timeout": BUSY_TIMEOUT_MS / 1000, "check_same_thread": False}
    engine = create_engine(url, connect_args=options, pool_reset_on_return=None)

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, record: Any) -> None:
        connection.isolation_level = None
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            f"busy_timeout={BUSY_TIMEOUT_MS}",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        writes = connection.get_execution_options().get("muster_write")
        hand_over(connection, "BEGIN IMMEDIATE" if writes else "BEGIN DEFERRED").close()

    return engine


def _postgres_engine(url: Any) -> Engine:
    return create_engine(url, pool_size=10, max_overflow=20, pool_pre_ping=True)
