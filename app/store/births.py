"""New executions: their rows are written once, with what their first step made of them.

A step reads its execution and its tasks, and writes back what it changed. Of an execution that is made in the same
transaction all of that is known: it is written as it stands behind the step, and not read at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

from sqlalchemy import Connection, bindparam, insert

from app.compiler.plan import Plan
from app.engine.state import TaskState
from app.store.head import Head
from app.store.prepared import Command
from app.store.tables import Execution, Task, table

executions, tasks = table(Execution), table(Task)

_TASK_COLUMNS = tuple(one.name for one in fields(TaskState))
_LISTED = ("nodes", "went")
"""Columns of a task that are tuples for the engine, and lists in a row."""


@dataclass(frozen=True, slots=True)
class Birth:
    """What a new execution is made with: the columns of its row that are no defaults, and its plan."""

    columns: Mapping[str, Any]
    plan: Plan

    def head(self) -> Head:
        """The row as whoever holds its lock would read it."""
        return Head.of_new(self.columns)

    def tasks(self) -> dict[str, TaskState]:
        """A pending row for every task."""
        return {task.name: TaskState(task.name, open=task.incoming) for task in self.plan.tasks.values()}


def write(
    connection: Connection, birth: Birth, states: Mapping[str, TaskState], changed: Mapping[str, Any]
) -> None:
    """The row of the execution, with the columns that have `changed` since, and those of its tasks."""
    columns = {**birth.columns, **changed}
    _insert_execution(tuple(columns)).run(connection, columns)
    execution, planned = columns["id"], birth.plan.tasks
    rows = []
    for name, state in states.items():
        task = planned[name]
        row = {
            **state.__dict__,
            "execution": execution,
            "task_index": task.index,
            "is_finally": task.is_finally,
        }
        for column in _LISTED:
            if row[column] is not None:
                row[column] = list(row[column])
        rows.append(row)
    _insert_tasks.run_each(connection, rows)


@cache
def _insert_execution(names: tuple[str, ...]) -> Command:
    return Command(insert(executions).inline().values({name: bindparam(name) for name in names}))


_insert_tasks = Command(
    insert(tasks)
    .inline()
    .values({name: bindparam(name) for name in (*_TASK_COLUMNS, "execution", "task_index", "is_finally")})
)
