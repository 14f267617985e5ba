"""Databases as `migrate` makes them, without a row: copied, which takes a tenth of the time of making one."""

from __future__ import annotations

import shutil
import tempfile
from functools import cache
from pathlib import Path

from app.store import migrate
from app.store.db import Store


def sqlite(path: Path) -> str:
    """The URL of a new database at this path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(_template().name) / "muster.db", path)
    return f"sqlite:///{path}"


@cache
def _template() -> tempfile.TemporaryDirectory[str]:
    """Holds the one that is copied, and goes with the process."""
    directory = tempfile.TemporaryDirectory(prefix="muster-migrated-")
    store = Store(f"sqlite:///{directory.name}/muster.db")
    migrate.upgrade(store)
    with store.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    store.close()
    return directory
