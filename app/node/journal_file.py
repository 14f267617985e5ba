"""The file of a node's journal: SQLite in WAL, with its tables and the epoch that names it."""

from __future__ import annotations

import os
import secrets
import sqlite3

from app.errors import Unavailable

SCHEMA = 1

_HOLDS = """
CREATE TABLE IF NOT EXISTS holds (
    installation TEXT NOT NULL, job TEXT NOT NULL, at REAL NOT NULL, PRIMARY KEY (installation, job)
) STRICT
"""
"""Came later than the others, and is no other schema: a version that does not know of it goes on without."""

BROKEN = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_TABLES = """
CREATE TABLE meta (
    epoch TEXT NOT NULL, created_at REAL NOT NULL, sequence INTEGER NOT NULL
) STRICT;
CREATE TABLE jobs (
    installation TEXT NOT NULL, job TEXT NOT NULL, digest TEXT NOT NULL, order_id TEXT NOT NULL,
    canvas TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('accepted', 'ended')), outcome TEXT,
    published INTEGER NOT NULL DEFAULT 0, accepted_at REAL NOT NULL, ended_at REAL,
    PRIMARY KEY (installation, job)
) STRICT;
CREATE INDEX jobs_open ON jobs (accepted_at) WHERE published = 0;
CREATE TABLE orders (id TEXT PRIMARY KEY, expires_at REAL NOT NULL) STRICT;
CREATE TABLE cancels (
    number INTEGER PRIMARY KEY AUTOINCREMENT, installation TEXT NOT NULL, job TEXT NOT NULL, at REAL NOT NULL,
    UNIQUE (installation, job)
) STRICT;
"""


def open_file(path: str, now: float) -> sqlite3.Connection:
    """Opens the journal, or makes it with a new epoch.

    Raises sqlite3.DatabaseError where it is broken, Unavailable where another version wrote it.
    """
    db = sqlite3.connect(path, timeout=30.0, check_same_thread=False, isolation_level=None)
    try:
        os.chmod(path, 0o600)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        state = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if state != "ok":
            raise _corrupt(str(state))
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            first = f"INSERT INTO meta VALUES ('{_new_epoch(now)}', {now!r}, 0);"
            db.executescript(
                f"BEGIN IMMEDIATE; {_TABLES} {_HOLDS}; {first} PRAGMA user_version = {SCHEMA}; COMMIT"
            )
        elif version == SCHEMA:
            db.execute(_HOLDS)
        else:
            raise Unavailable(
                f"the journal {path} has schema {version}, this Muster knows {SCHEMA}",
                hint="start the version of Muster that wrote it, or move the file away for a new epoch",
            )
        if db.execute("SELECT count(*) FROM meta").fetchone()[0] != 1:
            raise _corrupt("it has no epoch")
    except BaseException:
        db.close()
        raise
    return db


def _corrupt(reason: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(reason)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def put_aside(path: str, now: float) -> str:
    """Keeps what is there under another name, which it returns."""
    aside = f"{path}.corrupt-{int(now)}-{secrets.token_hex(2)}"
    for ending in ("", "-wal", "-shm"):
        if os.path.exists(path + ending):
            os.rename(path + ending, aside + ending)
    return aside


def _new_epoch(now: float) -> str:
    number = (int(now * 1000) << 80) | secrets.randbits(80)
    return "".join(_CROCKFORD[(number >> shift) & 31] for shift in range(125, -1, -5))
