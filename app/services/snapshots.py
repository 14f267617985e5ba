"""Snapshots: states of workspaces by their digests, who may see them, and whether their files are all there."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, or_, select, update

from app.errors import InvalidInput, NotFound
from app.files.manifest import Manifest
from app.services import audit, blobs, scope
from app.services.bearers import Bearer
from app.services.control import Control
from app.store import snapshots as rows
from app.store.statements import insert_into
from app.store.tables import (
    Artifact,
    Execution,
    Job,
    Snapshot,
    SnapshotPoster,
    Task,
    WorkspaceStep,
    table,
)

snapshots, posters, steps = table(Snapshot), table(SnapshotPoster), table(WorkspaceStep)
executions, tasks, jobs, artifacts = table(Execution), table(Task), table(Job), table(Artifact)

MOST_TOLD = 20


def unknown(digest: str) -> NotFound:
    """That there is no such snapshot."""
    return NotFound(
        f"there is no snapshot {digest}",
        hint="post its manifest to /api/v1/snapshots",
        code="unknown-snapshot",
    )


def digests_of(found: Manifest) -> list[str]:
    """The blobs of its files, each once."""
    return list(dict.fromkeys(entry.sha256 for entry in found.files.values()))


def post(control: Control, bearer: Bearer, data: bytes) -> tuple[str, list[str]]:
    """Store what a person says that a directory holds: the digest, and the blobs that they have to put.

    Raises BadTree for what is no manifest, and TooLarge for a file that is too large to be put.
    """
    found = Manifest.read(data, blobs.limits_of(control))
    blobs.check_size(control, max((entry.size for entry in found.files.values()), default=0))
    lacking = blobs.missing(control, bearer, digests_of(found))
    now = control.clock()
    with control.store.write() as connection:
        before = connection.execute(
            select(posters.c.login).where(posters.c.digest == found.digest, posters.c.login == bearer.name)
        ).first()
        rows.keep(connection, found, now)
        if before is None:
            once = (
                insert_into(connection, posters)
                .values(digest=found.digest, login=bearer.name)
                .on_conflict_do_nothing()
            )
            connection.execute(once)
            detail = {"files": len(found.files), "bytes": found.bytes}
            audit.record(connection, bearer.name, "snapshot.post", found.digest, detail=detail, at=now)
    return found.digest, lacking


def ready(control: Control, bearer: Bearer, digest: str) -> None:
    """Raises InvalidInput where an execution cannot start from it: it is not there for them, or lacks blobs.

    What is ready stays so for a day at the least, and for as long as an execution names it.
    """
    at = {"pointer": "/workspace"}
    with control.store.read() as connection:
        if not may_see(connection, bearer, digest, ""):
            detail = f"there is no snapshot {digest}"
            hint = "post its manifest to /api/v1/snapshots first"
            raise InvalidInput(
                detail, hint=hint, code="unknown-snapshot", errors=[{**at, "detail": detail, "hint": hint}]
            )
        found = rows.load(connection, digest)
    lacking = blobs.missing(control, bearer, digests_of(found))
    if lacking:
        detail = f"{len(lacking)} of its files are not here, the first with sha256:{lacking[0]}"
        hint = "put what POST /api/v1/snapshots tells to be missing"
        errors = [{**at, "detail": f"sha256:{one} is missing"} for one in lacking[:MOST_TOLD]]
        raise InvalidInput(detail, hint=hint, code="missing-blobs", errors=errors)
    with control.store.write() as connection:
        query = update(snapshots).where(snapshots.c.digest == digest)
        connection.execute(query.values(used_at=control.clock()))


def may_see(connection: Connection, bearer: Bearer, digest: str, execution: str) -> bool:
    """Whether there is such a snapshot for them: they posted it, or it is one of an execution that they see.

    People whose role is bounded name that `execution`; for the others "" will do.
    """
    if bearer.given is not None:
        return bool(digest) and digest == bearer.given.snapshot
    if bearer.sees_all:
        return _is_there(connection, select(snapshots.c.digest).where(snapshots.c.digest == digest))
    if _is_there(
        connection, select(posters.c.login).where(posters.c.digest == digest, posters.c.login == bearer.name)
    ):
        return True
    return _sees_execution(connection, bearer, execution) and _belongs(connection, digest, execution)


def readable(
    connection: Connection, bearer: Bearer, digests: list[str], *, snapshot: str = "", execution: str = ""
) -> set[str]:
    """Which of the blobs they may read: people those of the `snapshot` or `execution` that they name, unless they
    see everything; nodes those of their pass; everybody what they put themselves.

    A snapshot that they posted gives them nothing: it may name whatever digest they have heard of.
    """
    if bearer.sees_all:
        return set(digests)
    mine = blobs.held(connection, bearer.owner, digests)
    if bearer.given is not None:
        snapshot = bearer.given.snapshot
    elif not (_sees_execution(connection, bearer, execution) and _belongs(connection, snapshot, execution)):
        snapshot = ""
    if snapshot:
        mine |= {entry.sha256 for entry in rows.load(connection, snapshot).files.values()}
    if execution and _sees_execution(connection, bearer, execution):
        query = select(artifacts.c.sha256).where(artifacts.c.execution == execution)
        for part in blobs.parts(digests):
            mine.update(connection.execute(query.where(artifacts.c.sha256.in_(part))).scalars())
    return mine.intersection(digests)


def known_of(connection: Connection, bearer: Bearer) -> list[str]:
    """The blobs that a node need not put, for its pass lets it read them."""
    given = bearer.given
    return digests_of(rows.load(connection, given.snapshot)) if given is not None and given.snapshot else []


def _sees_execution(connection: Connection, bearer: Bearer, execution: str) -> bool:
    return (
        bool(execution)
        and bearer.person is not None
        and scope.execution(connection, execution, scope.executions_of(bearer.person))
    )


def _belongs(connection: Connection, digest: str, execution: str) -> bool:
    """Whether a snapshot is or was one of this execution's."""
    return any(
        _is_there(connection, query)
        for query in (
            select(executions.c.id).where(executions.c.id == execution, executions.c.workspace == digest),
            select(steps.c.seq).where(
                steps.c.execution == execution, or_(steps.c.base == digest, steps.c.snapshot == digest)
            ),
            select(tasks.c.name).where(tasks.c.execution == execution, tasks.c.snapshot == digest),
            select(jobs.c.id).where(jobs.c.execution == execution, jobs.c.snapshot == digest),
        )
    )


def _is_there(connection: Connection, query: Any) -> bool:
    return connection.execute(query.limit(1)).first() is not None
