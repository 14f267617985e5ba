"""Brings a database to the schema of this version. Needs no file beside the installed package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from app.errors import Conflict, Unavailable
from app.store.db import Store

_SCRIPTS = Path(__file__).parent / "migrations"
_LOCK = 0x4D757374
"""The advisory lock of PostgreSQL that one migration at a time holds ("Must")."""


class UnknownRevision(Conflict):
    """The database was migrated by a newer version of Muster."""

    code = "unknown-schema"


def head() -> str:
    """The revision of the schema that this version of Muster needs."""
    found = _scripts().get_current_head()
    if found is None:
        raise RuntimeError(f"there are no migrations in {_SCRIPTS}")
    return found


def current(store: Store) -> str | None:
    """The revision of the database's schema; None before the first `upgrade`."""
    with store.read() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def upgrade(store: Store) -> str:
    """Apply the migrations that are missing, all or none, and return the revision reached.

    Processes that call it at once wait for one another. Raises UnknownRevision where the database is newer
    than this version.
    """
    wanted = head()
    found = current(store)
    if found == wanted:
        return wanted
    if found is not None and found not in {script.revision for script in _scripts().walk_revisions()}:
        raise UnknownRevision(
            f"the database has schema {found}, which this version of Muster does not know",
            hint="start the version of Muster that migrated it, or a newer one",
        )
    config = _config()
    with _alone(store) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return wanted


def require(store: Store) -> None:
    """Raises Unavailable unless the database has the schema of this version."""
    found = current(store)
    if found != head():
        raise Unavailable(
            f"the database has schema {found or 'none'}, this version needs {head()}",
            hint="migrate it: `muster setup` does, and so does `muster up`",
            code="schema",
        )


@contextmanager
def _alone(store: Store) -> Iterator[Connection]:
    """A transaction that no other migration runs beside."""
    with store.engine.connect() as connection:
        if not store.is_sqlite:
            with connection.begin():
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
                yield connection
            return
        # Changing a table copies it, and dropping the old one would cascade. The pragma is ignored inside of
        # a transaction, so it goes to the driver before SQLAlchemy begins one.
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.execute("PRAGMA foreign_keys=OFF")
        try:
            connection = connection.execution_options(muster_write=True)
            with connection.begin():
                yield connection
                broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
                if broken:
                    raise RuntimeError(f"the migration left {len(broken)} rows that refer to nothing")
        finally:
            driver.execute("PRAGMA foreign_keys=ON")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())
