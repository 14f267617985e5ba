"""Everything that is stored of one execution: its rows as the engine's states, and its events from the first on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, bindparam, select

from app.engine.replay import Happened, Stored
from app.store import executions as rows
from app.store.head import HEAD_COLUMNS, Head
from app.store.prepared import Query
from app.store.tables import Event, Job, Task, Variable, table

tasks, jobs, variables, events = table(Task), table(Job), table(Variable), table(Event)

_AT_ONCE = 500

_head = Query(select(*HEAD_COLUMNS).where(rows.executions.c.id == bindparam("id")), Head)


def head(connection: Connection, execution: str) -> Head:
    """The execution's row, not locked. Raises UnknownExecution."""
    found = _head.first(connection, id=execution)
    if found is None:
        raise rows.unknown(execution)
    return found


def stored(connection: Connection, of: Head) -> Stored:
    """All rows of an execution as they are now."""
    execution = of.state.id
    names = connection.execute(select(tasks.c.name).where(tasks.c.execution == execution)).scalars().all()
    ids = connection.execute(select(jobs.c.id).where(jobs.c.execution == execution)).scalars().all()
    counting = (variables.c.execution == execution, variables.c.void.is_(False))
    columns = (variables.c.seq, variables.c.name, variables.c.value, variables.c.task)
    published = connection.execute(select(*columns).where(*counting).order_by(variables.c.seq))
    return Stored(
        of.state,
        rows.load_tasks(connection, execution, names),
        rows.load_jobs(connection, execution, ids),
        [(row.seq, row.name, row.value, row.task) for row in published],
    )


def happened(connection: Connection, execution: str) -> Iterator[Happened]:
    """The events in order, read as they are asked for."""
    last = 0
    while True:
        query = select(events.c.seq, events.c.at, events.c.data).where(
            events.c.execution == execution, events.c.seq > last
        )
        found: list[Any] = list(connection.execute(query.order_by(events.c.seq).limit(_AT_ONCE)))
        yield from (Happened(row.seq, row.at, row.data) for row in found)
        if len(found) < _AT_ONCE:
            return
        last = found[-1].seq
