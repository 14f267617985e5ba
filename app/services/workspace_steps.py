"""What became of an execution's workspace: the state it is in, and what each job did to it."""

from __future__ import annotations

import zlib
from typing import Any

from sqlalchemy import Connection, RowMapping, select

from app.files.changes import Changes
from app.files.limits import Limits
from app.services.queries import unknown
from app.store import snapshots
from app.store.tables import Execution, Snapshot, WorkspaceStep, table

executions, states, steps = table(Execution), table(Snapshot), table(WorkspaceStep)

MOST_PATHS = 1000
"""Paths that are told of one step."""


def state(connection: Connection, execution: str) -> dict[str, Any]:
    """The snapshot of its files as they are now, with their number and bytes. Raises NotFound for the execution."""
    query = select(executions.c.workspace, states.c.files, states.c.bytes)
    joined = query.join_from(executions, states, states.c.digest == executions.c.workspace, isouter=True)
    row = connection.execute(joined.where(executions.c.id == execution)).first()
    if row is None:
        raise unknown(execution)
    first = select(steps.c.base).where(steps.c.execution == execution).order_by(steps.c.seq).limit(1)
    start = connection.execute(first).scalar()
    return {
        "snapshot": row[0],
        "start": row[0] if start is None else start,
        "files": row[1] or 0,
        "bytes": row[2] or 0,
    }


def list_steps(
    connection: Connection, execution: str, *, limit: int, after: int | None, paths: bool
) -> list[dict[str, Any]]:
    """What its jobs did, in order, those with a number greater than `after`: counts, and with `paths` which files."""
    query = select(steps).where(steps.c.execution == execution).order_by(steps.c.seq).limit(limit)
    if after is not None:
        query = query.where(steps.c.seq > after)
    return [_step(connection, row, paths) for row in connection.execute(query).mappings().all()]


def _step(connection: Connection, row: RowMapping, paths: bool) -> dict[str, Any]:
    data = zlib.decompress(row["changes"])
    done = Changes.read(data, Limits(files=len(data), bytes=1 << 62))
    before = snapshots.load(connection, row["base"])
    found = {
        "added": sorted(path for path in done.put if path not in before.files),
        "changed": sorted(path for path in done.put if path in before.files),
        "deleted": sorted(done.gone),
    }
    told: dict[str, Any] = {
        **{name: row[name] for name in ("seq", "task", "job", "node", "base", "snapshot", "created_at")},
        **{name: len(names) for name, names in found.items()},
        "bytes": sum(entry.size for entry in done.put.values()),
    }
    if paths:
        told["paths"] = {name: names[:MOST_PATHS] for name, names in found.items()}
        told["cut"] = any(len(names) > MOST_PATHS for names in found.values())
    return told
