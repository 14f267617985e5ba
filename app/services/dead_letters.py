"""Messages that were refused are kept, cut, with their reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, insert

from app.store.tables import DeadLetter, table

dead_letters = table(DeadLetter)


def letter(connection: Connection, queue: str, reason: str, item: str, now: float) -> None:
    """Keep one in the caller's transaction. `reason` is one of a few words."""
    values: Mapping[str, Any] = {"at": now, "queue": queue, "reason": reason[:64], "item": item[:2000]}
    connection.execute(insert(dead_letters).values(values))
