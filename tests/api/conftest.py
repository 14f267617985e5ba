"""Each test has a database of its own: SQLite, and with MUSTER_TEST_FLEET=postgres (`make test-all`) PostgreSQL too.

What is behind the API runs on both each time, in tests/services.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import api_world
import migrated
import pytest
import redis
from sqlalchemy import create_engine, delete, make_url, text
from waiting import PATIENCE

from app.store import migrate
from app.store.db import Store
from app.store.tables import Base
from app.transport.output import connect

IS_ON_BOTH = os.environ.get("MUSTER_TEST_FLEET") == "postgres"
SERVER = os.environ.get("MUSTER_TEST_DATABASE_URL", "") if IS_ON_BOTH else ""
BACKENDS = ["sqlite", *([pytest.param("postgres", marks=pytest.mark.postgres)] if SERVER else [])]


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A migrated database on the server named, dropped at the end."""
    server = make_url(SERVER).set(drivername="postgresql+psycopg")
    name = f"muster_test_{secrets.token_hex(4)}"
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    url = server.set(database=name).render_as_string(hide_password=False)
    store = Store(url)
    migrate.upgrade(store)
    store.close()
    yield url
    with engine.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


@pytest.fixture(params=BACKENDS)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a migrated database without a row."""
    if request.param == "sqlite":
        return migrated.sqlite(tmp_path / "muster.db")
    url: str = request.getfixturevalue("postgres_url")
    store = Store(url)
    with store.write() as connection:
        # TRUNCATE makes a file for every table and index: most of a second, where there are a few rows to delete.
        for one in reversed(Base.metadata.sorted_tables):
            connection.execute(delete(one))
        connection.execute(text("SELECT setval(oid::regclass, 1, false) FROM pg_class WHERE relkind = 'S'"))
    store.close()
    return url


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[api_world.World]:
    made = api_world.build(database_url, tmp_path)
    yield made
    made.control.store.close()


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A server of its own on a unix socket."""
    directory = Path(tempfile.mkdtemp(prefix="ma-"))
    beside = shutil.which("redis-server", path=str(Path(sys.executable).parent))
    program = beside or shutil.which("redis-server") or "redis-server"
    socket = directory / "r.sock"
    process = subprocess.Popen(
        [program, "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(directory)],
        stdout=subprocess.DEVNULL,
    )
    url = f"redis+socket://{socket}"
    client = connect(url)
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            client.ping()
            break
        except redis.RedisError:
            assert time.monotonic() < deadline, "redis-server did not start"
            threading.Event().wait(0.01)
    yield url
    process.terminate()
    process.wait()
    client.close()
    shutil.rmtree(directory)
