"""Which plan an execution is held to, from which event on."""

from __future__ import annotations

from sqlalchemy import Connection, insert, select

from app.compiler.plan import Plan
from app.store.head import Head
from app.store.statements import set_columns, set_each
from app.store.tables import Execution, Pin, Task, table

executions, tasks, pins = table(Execution), table(Task), table(Pin)


def turn_to(connection: Connection, head: Head, before: str, plan_: Plan, revision: int | None) -> None:
    """Pin the plan that `head` names instead of the one with the digest `before`, from the newest event on.

    The caller holds the lock, and has saved the event that says so.
    """
    execution, digest = head.state.id, head.plan_digest
    known = select(pins.c.seq).where(pins.c.execution == execution).limit(1)
    held = [{"execution": execution, "seq": head.event_seq, "plan_digest": digest}]
    if connection.execute(known).first() is None:
        held.append({"execution": execution, "seq": 1, "plan_digest": before})
    connection.execute(insert(pins), held)
    set_columns(connection, executions, {"plan_digest": digest, "workflow_revision": revision}, id=execution)
    places = (
        (
            {"execution": execution, "name": task.name},
            {"task_index": task.index, "is_finally": task.is_finally},
        )
        for task in plan_.tasks.values()
    )
    set_each(connection, tasks, places)


def first(connection: Connection, execution: str) -> str | None:
    """The digest of the plan that held at first; None where no other ever did."""
    query = select(pins.c.plan_digest).where(pins.c.execution == execution, pins.c.seq == 1)
    return connection.execute(query).scalar()
