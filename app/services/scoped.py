"""Who is held to packs or nodes, read from the database at most once a second a process."""

from __future__ import annotations

import threading
import time

from sqlalchemy import Connection, select

from app.services import roles
from app.services.roles import Grants
from app.store.prepared import Query
from app.store.tables import User, table

users = table(User)

FRESH_FOR = 1.0
"""Seconds that a reading may be used: so long an order may still go out after somebody's scope was narrowed."""

_select = Query(
    select(users.c.login, users.c.role, users.c.grants).where(users.c.grants.is_not(None)),
    lambda login, role, grants: (login, roles.kept(role, grants)),
)


class ScopedPeople:
    """The grants of those who have more to them than a role, by login. Thread safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._read_at = float("-inf")
        self._grants: dict[str, Grants] = {}

    def grants(self, connection: Connection, login: str) -> Grants | None:
        """What somebody is held to; None for who has a role everywhere, and for what is no person."""
        with self._lock:
            if time.monotonic() - self._read_at > FRESH_FOR:
                self._grants = dict(_select.all(connection))
                self._read_at = time.monotonic()
            return self._grants.get(login)

    def has_role(self, login: str) -> bool:
        """Whether somebody is known, without a look at the database, to have a role everywhere or to be no person."""
        with self._lock:
            return time.monotonic() - self._read_at <= FRESH_FOR and login not in self._grants

    def forget(self) -> None:
        """Read anew the next time: somebody's grants were changed."""
        with self._lock:
            self._read_at = float("-inf")
