"""Writing columns of rows: one prepared UPDATE for each shape, and the INSERT that knows what to do about a conflict.

A shape is a table, the columns that are set and those that select the row. Values come in as parameters: those of
the key are named `key_<column>`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Table, bindparam, update
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from app.store.prepared import Command

SHAPES = 512


@lru_cache(maxsize=SHAPES)
def _update(table: Table, columns: tuple[str, ...], keys: tuple[str, ...]) -> Command:
    where = [table.c[name] == bindparam(f"key_{name}", type_=table.c[name].type) for name in keys]
    return Command(update(table).where(*where).values({name: bindparam(name) for name in columns}))


def insert_into(connection: Connection, table: Table) -> Any:
    """An INSERT of the database's own kind, which has `on_conflict_do_nothing` and `on_conflict_do_update`."""
    insert = sqlite_insert if connection.dialect.name == "sqlite" else postgres_insert
    return insert(table)


def set_columns(connection: Connection, table: Table, values: Mapping[str, Any], **key: Any) -> int:
    """Set columns of the rows whose key columns have these values; how many rows there were."""
    statement = _update(table, tuple(values), tuple(key))
    return statement.run(connection, {**values, **{f"key_{name}": value for name, value in key.items()}})


def set_each(
    connection: Connection, table: Table, rows: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]]
) -> None:
    """Set columns of many rows, given as (key, values); rows of one shape go to the database together."""
    shapes: dict[tuple[tuple[str, ...], tuple[str, ...]], list[dict[str, Any]]] = {}
    for key, values in rows:
        parameters = {**values, **{f"key_{name}": value for name, value in key.items()}}
        shapes.setdefault((tuple(values), tuple(key)), []).append(parameters)
    for (columns, keys), found in shapes.items():
        _update(table, columns, keys).run_each(connection, found)
