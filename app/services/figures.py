"""What the fleet adds up to, counted in the database when it is asked."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from app.services.control import Control
from app.store.tables import DeadLetter, Execution, Job, Node

executions, jobs, nodes = Execution.__table__, Job.__table__, Node.__table__


@dataclass(frozen=True, slots=True)
class Figures:
    """Counts. `jobs` holds those that no settle has folded: what is open, and what has just ended."""

    executions: dict[str, int]
    jobs: dict[str, int]
    nodes: dict[str, int]
    dead_letters: int


def figures(control: Control, connection: Connection) -> Figures:
    """Four statements, each answered from an index."""
    by_execution = select(executions.c.status, func.count().label("number")).group_by(executions.c.status)
    by_job = (
        select(jobs.c.status, func.count().label("number"))
        .where(jobs.c.settled.is_(False))
        .group_by(jobs.c.status)
    )
    dead = select(func.count()).select_from(DeadLetter.__table__)
    oldest = control.clock() - control.settings.offline_after
    found = {"online": 0, "offline": 0, "draining": 0}
    for row in connection.execute(select(nodes.c.state, nodes.c.last_seen).where(nodes.c.state != "removed")):
        found["online" if row.last_seen is not None and row.last_seen > oldest else "offline"] += 1
        found["draining"] += row.state == "draining"
    return Figures(
        executions={row.status: row.number for row in connection.execute(by_execution)},
        jobs={row.status: row.number for row in connection.execute(by_job)},
        nodes=found,
        dead_letters=connection.execute(dead).scalar_one(),
    )
