"""How many units of a fan-out or loop may be outstanding, and whose turn it is."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, func, select

from app.engine.status import JOB_OUT, QUEUED
from app.services.control import Control
from app.store import executions as rows
from app.store.tables import Job, table

jobs = table(Job)


def width(own: int, cap: int) -> int:
    """How many units may be outstanding: as many as the task says, never more than the server lets."""
    return min(own or cap, cap)


def is_early(connection: Connection, row: Any) -> bool:
    """Whether a unit waits that comes before this one, of a task that says how many may be outstanding."""
    if not row.window:
        return False
    before = (jobs.c.execution == row.execution, jobs.c.task == row.task, jobs.c.unit < row.unit)
    waiting = select(jobs.c.id).where(*before, jobs.c.status == QUEUED, jobs.c.give_up_at.is_(None))
    return connection.execute(waiting.limit(1)).first() is not None


def has_room(control: Control, connection: Connection, row: Any, room: dict[tuple[str, str], int]) -> bool:
    """Whether the job's task may have one more outstanding: only fan-outs and loops have a window."""
    plan = rows.plan(connection, row.plan_digest)
    if plan.tasks[row.task].kind not in ("fanout", "loop"):
        return True
    key = (row.execution, row.task)
    if key not in room:
        query = select(func.count()).where(
            jobs.c.execution == row.execution, jobs.c.task == row.task, jobs.c.status.in_(JOB_OUT)
        )
        window = width(row.window, control.settings.fanout_window)
        room[key] = window - connection.execute(query).scalar_one()
    room[key] -= 1
    return room[key] >= 0
