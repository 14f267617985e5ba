"""An empty database for a test: SQLite, and PostgreSQL where a server is named."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from app.store.db import Store

SERVER = os.environ.get("MUSTER_TEST_DATABASE_URL", "")
BACKENDS = ["sqlite", *([pytest.param("postgres", marks=pytest.mark.postgres)] if SERVER else [])]


@pytest.fixture(params=BACKENDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty database."""
    if request.param == "sqlite":
        made = Store(f"sqlite:///{tmp_path / '100% new' / 'muster.db'}")
        yield made
        made.close()
        return
    server = make_url(SERVER).set(drivername="postgresql+psycopg")
    name = f"muster_migrate_{secrets.token_hex(4)}"
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    made = Store(server.set(database=name).render_as_string(hide_password=False))
    yield made
    made.close()
    with engine.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()
