"""The hottest statements, handed to the driver as they are: SQLAlchemy's own way of running one costs more than SQLite.

A statement is written with SQLAlchemy Core like any other. Its text and the conversions of its values are asked for
once for each dialect; from then on the driver's cursor gets the text and a row of values, inside of the connection's
transaction. Types, exceptions and the marking of a lost connection are SQLAlchemy's.

Written for this: no `IN` over a list of values (`one_of`, or `ByNames`), and defaults of columns that are constants.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Connection, Dialect, Select, bindparam, literal_column
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.dml import UpdateBase

_T = TypeVar("_T")
_Convert = Callable[[Any], Any]

WIDEST = 256
"""Names in one statement of `ByNames`; more go in several."""


class Query(Generic[_T]):
    """A SELECT; `make` is called with the columns of each row, in the order in which they were selected."""

    def __init__(self, statement: Select[Any], make: Callable[..., _T]) -> None:
        self._statement = statement
        self._make = make
        self._texts: dict[str, _Text] = {}
        self._converts: dict[str, Sequence[tuple[int, _Convert]]] = {}

    def all(self, connection: Connection, **values: Any) -> list[_T]:
        """What `make` makes of every row."""
        dialect = connection.dialect
        text = _text(self._texts, self._statement, dialect)
        cursor = execute(connection, text.sql, text.bind(values))
        converts = self._converts.get(dialect.name)
        if converts is None:
            converts = self._converts[dialect.name] = _results(self._statement, dialect, cursor.description)
        found = cursor.fetchall()
        cursor.close()
        make = self._make
        if not converts:
            return [make(*row) for row in found]
        return [make(*_converted(row, converts)) for row in found]

    def first(self, connection: Connection, **values: Any) -> _T | None:
        """What `make` makes of the only row, None where there is none."""
        found = self.all(connection, **values)
        return found[0] if found else None


class ByNames(Generic[_T]):
    """A SELECT of the rows in which `column` is one of several names: one text for each power of two of them."""

    def __init__(self, statement: Select[Any], column: ColumnElement[str], make: Callable[..., _T]) -> None:
        self._statement = statement
        self._column = column
        self._make = make
        self._by_width: dict[int, Query[_T]] = {}

    def all(self, connection: Connection, names: Collection[str], **values: Any) -> list[_T]:
        """What `make` makes of every row; the order is the database's."""
        wanted, found = list(names), []
        for start in range(0, len(wanted), WIDEST):
            part = wanted[start : start + WIDEST]
            width = 1 << (len(part) - 1).bit_length()
            part += part[-1:] * (width - len(part))
            named = {f"name_{number}": name for number, name in enumerate(part)}
            found += self._query(width).all(connection, **named, **values)
        return found

    def _query(self, width: int) -> Query[_T]:
        query = self._by_width.get(width)
        if query is None:
            names = [bindparam(f"name_{number}", type_=self._column.type) for number in range(width)]
            query = Query(self._statement.where(self._column.in_(names)), self._make)
            self._by_width[width] = query
        return query


class Command:
    """An INSERT, UPDATE or DELETE without RETURNING."""

    def __init__(self, statement: UpdateBase) -> None:
        self._statement = statement
        self._texts: dict[str, _Text] = {}

    def run(self, connection: Connection, values: Mapping[str, Any]) -> int:
        """How many rows there were."""
        text = _text(self._texts, self._statement, connection.dialect)
        cursor = execute(connection, text.sql, text.bind(values))
        count = int(cursor.rowcount)
        cursor.close()
        return count

    def run_each(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """The same for many rows of values at once."""
        if len(rows) == 1:
            self.run(connection, rows[0])
        elif rows:
            text = _text(self._texts, self._statement, connection.dialect)
            execute(connection, text.sql, [text.bind(values) for values in rows], many=True).close()


def one_of(column: ColumnElement[str], words: Iterable[str]) -> ColumnElement[bool]:
    """`column IN (…)` for a fixed set of words (statuses), which become part of the text."""
    return column.in_([literal_column(f"'{word}'") for word in sorted(words)])


def execute(connection: Connection, sql: str, values: Any, *, many: bool = False) -> Any:
    """The driver's cursor after running `sql` in the connection's transaction. Every statement here goes through this.

    Raises what SQLAlchemy would have raised (OperationalError, IntegrityError …), without the values.
    """
    if not connection.in_transaction():
        connection.begin()
    return hand_over(connection, sql, values, many=many)


def hand_over(connection: Connection, sql: str, values: Any = (), *, many: bool = False) -> Any:
    """The same outside of any transaction that SQLAlchemy knows of: what begins one."""
    cursor = connection.connection.cursor()
    try:
        if many:
            cursor.executemany(sql, values)
        else:
            cursor.execute(sql, values)
    except connection.dialect.loaded_dbapi.Error as error:
        raise _as_sqlalchemy(connection, cursor, sql, error) from error
    return cursor


def _as_sqlalchemy(connection: Connection, cursor: Any, sql: str, error: Exception) -> BaseException:
    dialect = connection.dialect
    lost = dialect.is_disconnect(error, connection.connection.dbapi_connection, cursor)  # type: ignore[arg-type]
    told = DBAPIError.instance(
        sql, None, error, dialect.loaded_dbapi.Error, connection_invalidated=lost, dialect=dialect
    )
    if lost:
        connection.invalidate(error)
    return told


@dataclass(frozen=True, slots=True)
class _Text:
    """A statement for one dialect: `binds` says how each value is converted (None: not at all)."""

    sql: str
    positional: bool
    binds: tuple[tuple[str, _Convert | None], ...]
    constants: Mapping[str, Any]

    def bind(self, values: Mapping[str, Any]) -> Any:
        if self.constants:
            values = {**self.constants, **values}
        if self.positional:
            return [
                values[name] if convert is None else convert(values[name]) for name, convert in self.binds
            ]
        return {
            name: values[name] if convert is None else convert(values[name]) for name, convert in self.binds
        }


def _converted(row: Sequence[Any], converts: Sequence[tuple[int, _Convert]]) -> Sequence[Any]:
    values = list(row)
    for position, convert in converts:
        if values[position] is not None:
            values[position] = convert(values[position])
    return values


def _text(known: dict[str, _Text], statement: Select[Any] | UpdateBase, dialect: Dialect) -> _Text:
    found = known.get(dialect.name)
    if found is None:
        found = known[dialect.name] = _prepare(statement, dialect)
    return found


def _prepare(statement: Select[Any] | UpdateBase, dialect: Dialect) -> _Text:
    compiled: Any = statement.compile(dialect=dialect)
    constants = {name: value for name, value in compiled.params.items() if value is not None}
    constants |= {column.name: column.default.arg for column in getattr(compiled, "insert_prefetch", ())}
    names = compiled.positiontup if compiled.positional else compiled.params
    types = {name: compiled.binds[name].type for name in names}
    binds = tuple((name, types[name].dialect_impl(dialect).bind_processor(dialect)) for name in names)
    return _Text(str(compiled), bool(compiled.positional), binds, constants)


def _results(statement: Select[Any], dialect: Dialect, description: Any) -> list[tuple[int, _Convert]]:
    """How the columns of a result are converted, by position. The driver's own types count as well."""
    found: list[tuple[int, _Convert]] = []
    for position, (column, told) in enumerate(zip(statement.selected_columns, description, strict=True)):
        convert = column.type.dialect_impl(dialect).result_processor(dialect, told[1])
        if convert is not None:
            found.append((position, convert))
    return found
