"""Where a test's fleet keeps its rows."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from sqlalchemy import URL, Engine, create_engine, make_url


class Database:
    """SQLite in the fleet's directory, or a PostgreSQL database of the fleet's own.

    `postgres` is the server's URL. MUSTER_TEST_FLEET=postgres puts every fleet on MUSTER_TEST_DATABASE_URL.
    """

    def __init__(self, directory: Path, postgres: str) -> None:
        everywhere = os.environ.get("MUSTER_TEST_FLEET") == "postgres"
        given = postgres or (os.environ["MUSTER_TEST_DATABASE_URL"] if everywhere else "")
        self._server: URL | None = make_url(given) if given else None
        self._sqlite = f"sqlite:///{directory / 'muster.db'}"
        self._name = f"muster_fleet_{secrets.token_hex(6)}"

    def make(self) -> str:
        if self._server is None:
            return self._sqlite
        self._administrate(f"CREATE DATABASE {self._name}")
        return self._server.set(database=self._name).render_as_string(hide_password=False)

    def drop(self) -> None:
        if self._server is not None:
            self._administrate(f"DROP DATABASE IF EXISTS {self._name} WITH (FORCE)")

    def _administrate(self, statement: str) -> None:
        assert self._server is not None
        url = self._server
        if url.drivername in ("postgresql", "postgres"):
            url = url.set(drivername="postgresql+psycopg")
        engine: Engine = create_engine(url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(statement)
        engine.dispose()
