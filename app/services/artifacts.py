"""Artifacts: files that tasks keep for people, and what a task had changed before it failed."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, RowMapping, select

from app.errors import NotFound
from app.store.tables import Artifact, table

artifacts = table(Artifact)


def unknown(artifact: str) -> NotFound:
    """That the execution has no such artifact."""
    return NotFound(
        f"this execution has no artifact {artifact}",
        hint="`muster execution artifacts ID` lists them",
        code="unknown-artifact",
    )


def list_artifacts(
    connection: Connection,
    execution: str,
    *,
    limit: int,
    after: str | None = None,
    path: str | None = None,
    kind: str | None = None,
) -> list[RowMapping]:
    """An execution's artifacts in the order in which they came, those with an id greater than `after`."""
    query = select(artifacts).where(artifacts.c.execution == execution).order_by(artifacts.c.id).limit(limit)
    for column, value in ((artifacts.c.path, path), (artifacts.c.kind, kind)):
        if value is not None:
            query = query.where(column == value)
    if after is not None:
        query = query.where(artifacts.c.id > after)
    return list(connection.execute(query).mappings())


def get(connection: Connection, execution: str, artifact: str) -> dict[str, Any]:
    """One artifact. Raises NotFound."""
    query = select(artifacts).where(artifacts.c.execution == execution, artifacts.c.id == artifact)
    row = connection.execute(query).mappings().first()
    if row is None:
        raise unknown(artifact)
    return dict(row)
