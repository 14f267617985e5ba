"""Connections and transactions. SQLite and PostgreSQL behave alike behind `read` and `write`.

SQLite: WAL, synchronous=FULL (an accepted execution survives a power cut), writers begin IMMEDIATE (a deferred writer
fails at once with BUSY_SNAPSHOT whatever the timeout), busy timeout 30 s (its wait is unfair, so it must be long).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, make_url

from app.store.group import Group
from app.store.prepared import hand_over

_T = TypeVar("_T")

BUSY_TIMEOUT_MS = 30_000
_POOL: Any = {"pool_size": 10, "max_overflow": 20}
_GLANCING = 4
"""Connections that stay open for single statements: those of threads that look at the same time."""


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
        self._alone = self.engine.execution_options(muster_alone=True)
        self._glancing: list[Connection] = []
        self._turn = Turn()
        self._writing: list[Connection] = []
        self._group = Group(self.write) if self.is_sqlite else None

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads."""
        with self.engine.connect() as connection:
            yield connection
            connection.rollback()

    @contextmanager
    def glance(self) -> Iterator[Connection]:
        """For one statement that reads, or several that need not see the same: each is a transaction by itself.

        On SQLite it costs a fraction of `read`: no transaction is begun or ended, and the connection stays open.
        """
        if not self.is_sqlite:
            with self.read() as connection:
                yield connection
            return
        try:
            connection = self._glancing.pop()
        except IndexError:
            connection = self._alone.connect()
        is_whole = False
        try:
            yield connection
            is_whole = True
        finally:
            if is_whole and len(self._glancing) < _GLANCING:
                self._glancing.append(connection)
            else:
                connection.close()

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that writes: committed at the end, rolled back on an exception.

        On SQLite, where one thread writes at a time, its connection stays open: to take one from the pool and to give
        it back takes as long as a small transaction.
        """
        if not self.is_sqlite:
            with self._writers.begin() as connection:
                yield connection
            return
        with self._turn:
            try:
                connection = self._writing.pop()
            except IndexError:
                # The first, or one who has waited for too long for the turn and finds it in use.
                connection = self._writers.connect()
            try:
                with connection.begin():
                    yield connection
            except BaseException:
                # Where the COMMIT itself failed, its transaction may be open still, and hold SQLite's lock.
                connection.invalidate()
                connection.close()
                raise
            if self._writing:
                connection.close()
            else:
                self._writing.append(connection)

    def write_together(self, work: Callable[[Connection], _T]) -> _T:
        """What `work` gives in a transaction that writes. On SQLite it shares that with threads that wait for theirs.

        It may be called in another thread, and must not mind what others write before it in the same transaction.
        """
        if self._group is not None:
            return self._group.write(work)
        with self.write() as connection:
            return work(connection)

    def close(self) -> None:
        for kept in (self._glancing, self._writing):
            while kept:
                kept.pop().close()
        self.engine.dispose()


def _sqlite_engine(url: Any) -> Engine:
    # Every transaction here is ended by its own block, so that a connection comes back with none to roll back.
    options = {"timeout": BUSY_TIMEOUT_MS / 1000, "check_same_thread": False}
    engine = create_engine(url, connect_args=options, pool_reset_on_return=None, **_POOL)

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
        options = connection.get_execution_options()
        if options.get("muster_alone"):
            return
        writes = options.get("muster_write")
        hand_over(connection, "BEGIN IMMEDIATE" if writes else "BEGIN DEFERRED").close()

    return engine


def _postgres_engine(url: Any) -> Engine:
    return create_engine(url, pool_pre_ping=True, **_POOL)
