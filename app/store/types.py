"""Column types that mean the same on SQLite and PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime
from sqlalchemy.types import TypeDecorator

Json = JSON(none_as_null=True)
"""Never PostgreSQL's JSONB: that forgets the order of a mapping's keys, and a workflow may go through them in order."""


def as_kept(moment: float) -> float:
    """A moment as a database gives it back: it keeps whole microseconds."""
    return datetime.fromtimestamp(moment, UTC).timestamp()


class Instant(TypeDecorator[float]):
    """A moment: Unix seconds in Python, a UTC timestamp in the database.

    SQLite gives naive datetimes back whatever it was told; here that is repaired once, for every column.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: float | None, dialect: Any) -> datetime | None:
        return None if value is None else datetime.fromtimestamp(value, UTC)

    def process_result_value(self, value: datetime | None, dialect: Any) -> float | None:
        if value is None:
            return None
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
