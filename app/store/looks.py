"""What is looked for again and again, mostly in vain: statements that are made once and asked by a glance.

SQLAlchemy takes half a millisecond to make a statement of its parts and to find it among those that it has compiled.
The tick asks thirty every second, and holds the interpreter against everything else of its worker while it does.
"""

from __future__ import annotations

from collections import namedtuple
from typing import Any

from sqlalchemy import Integer, Select, bindparam

from app.store.db import Store
from app.store.prepared import Query


class Look:
    """A SELECT of at most so many rows, each with its columns as attributes; written as for `app.store.prepared`."""

    def __init__(self, statement: Select[Any], most: int) -> None:
        self.most = most
        columns = [str(column.key) for column in statement.selected_columns]
        # Its fields are the statement's, which no type checker knows.
        row: Any = namedtuple("row", columns)  # type: ignore[misc]
        self._query: Query[Any] = Query(statement.limit(bindparam("at_most", type_=Integer)), row)

    def rows(self, store: Store, **values: Any) -> list[Any]:
        """What is committed by now."""
        with store.glance() as connection:
            return self._query.all(connection, at_most=self.most, **values)

    def first(self, store: Store, **values: Any) -> Any:
        """The first row, None where there is none."""
        found = self.rows(store, **values)
        return found[0] if found else None
