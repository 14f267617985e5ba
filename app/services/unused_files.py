"""Files that nothing names any more: snapshots of no execution, and blobs of no snapshot, step or artifact.

What is fresh stays, so that nothing goes between an upload and the execution that is started with it. A blob's row
goes before its bytes, and bytes without a row are taken for fresh ones: whatever is interrupted is done the next time.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, select, union

from app.services import blobs as service
from app.services.control import Control
from app.store.blobs import Blobs
from app.store.statements import insert_into
from app.store.tables import (
    Artifact,
    Blob,
    BlobHolder,
    Execution,
    Job,
    Snapshot,
    Task,
    WorkspaceStep,
    table,
)

blobs, holders, snapshots = table(Blob), table(BlobHolder), table(Snapshot)
steps, artifacts, executions = table(WorkspaceStep), table(Artifact), table(Execution)
tasks, jobs = table(Task), table(Job)

GRACE = 86400.0
"""Seconds for which a blob or snapshot stays that was put, posted or asked for."""

HELD = 7 * 86400.0
"""Seconds for which it is remembered who put a blob. An outcome that names it has come by then."""

_DIGEST = re.compile(rb'"([0-9a-f]{64})"')
_ROWS = 100
_NAMED = union(
    *(
        # A job without files has none, and NOT IN with a NULL in it takes nothing.
        select(column).where(column.is_not(None))
        for column in (
            executions.c.workspace,
            tasks.c.snapshot,
            jobs.c.snapshot,
            steps.c.base,
            steps.c.snapshot,
        )
    )
)


@dataclass(frozen=True, slots=True)
class Swept:
    """How many went, and how many bytes the blobs had."""

    blobs: int
    bytes: int
    snapshots: int


def sweep(control: Control) -> Swept:
    """Delete what nothing names. Raises Unavailable where the blob store does not answer."""
    now = control.clock()
    store, before = control.blobs.open(control.settings), now - GRACE
    with control.store.write() as connection:
        connection.execute(delete(holders).where(holders.c.at < now - HELD))
        unnamed = delete(snapshots).where(snapshots.c.used_at < before, snapshots.c.digest.not_in(_NAMED))
        gone = connection.execute(unnamed).rowcount
    found = list(_unnamed(control, before))
    number = size = 0
    for part in service.parts(found):
        old = delete(blobs).where(blobs.c.digest.in_(part), blobs.c.used_at < before)
        with control.store.write() as connection:
            rows = connection.execute(old.returning(blobs.c.digest, blobs.c.size)).all()
        for row in rows:
            store.delete(row.digest, before)
            number, size = number + 1, size + row.size
        _disown(control, store, [row.digest for row in rows])
    _adopt(control, store, now)
    store.drop_partials(before)
    return Swept(number, size, gone)


def _unnamed(control: Control, before: float) -> set[str]:
    """Old blobs that no snapshot, step, artifact or fresh upload names."""
    with control.store.read() as connection:
        old = set(connection.execute(select(blobs.c.digest).where(blobs.c.used_at < before)).scalars())
        for column in (artifacts.c.sha256, holders.c.digest):
            if old:
                old.difference_update(connection.execute(select(column).distinct()).scalars())
        for document in _documents(connection):
            if not old:
                break
            old.difference_update(match.decode() for match in _DIGEST.findall(zlib.decompress(document)))
    return old


def _documents(connection: Connection) -> Iterator[bytes]:
    """Every manifest, and what each job did, a hundred in memory at a time."""
    for body, key in (
        (snapshots.c.body, (snapshots.c.digest,)),
        (steps.c.changes, (steps.c.execution, steps.c.seq)),
    ):
        yield from _paged(connection, body, key)


def _paged(connection: Connection, body: Any, key: tuple[Any, ...]) -> Iterator[bytes]:
    query = select(body, *key).order_by(*key).limit(_ROWS)
    rows = connection.execute(query).all()
    while rows:
        yield from (row[0] for row in rows)
        last = rows[-1][1:]
        behind = key[0] > last[0]
        if len(key) > 1:
            behind |= (key[0] == last[0]) & (key[1] > last[1])
        rows = connection.execute(query.where(behind)).all()


def _adopt(control: Control, store: Blobs, now: float) -> None:
    """Write rows for bytes that have none: somebody was killed between the two. They go a day later."""
    batch: list[str] = []
    for digest in store.every():
        batch.append(digest)
        if len(batch) == service.AT_ONCE:
            _adopt_some(control, store, batch, now)
            batch = []
    _adopt_some(control, store, batch, now)


def _adopt_some(control: Control, store: Blobs, digests: list[str], now: float) -> None:
    with control.store.read() as connection:
        known = service.sizes(connection, digests)
    lost = [(digest, store.size(digest)) for digest in digests if digest not in known]
    rows = [
        {"digest": digest, "size": size, "created_at": now, "used_at": now}
        for digest, size in lost
        if size is not None
    ]
    if rows:
        with control.store.write() as connection:
            connection.execute(insert_into(connection, blobs).on_conflict_do_nothing(), rows)
        _disown(control, store, [row["digest"] for row in rows])


def _disown(control: Control, store: Blobs, digests: Collection[Any]) -> None:
    """Delete the rows of these whose bytes are gone, so that whoever wants one is asked for it.

    Somebody put such a blob, or took it for a lost one, while it was deleted. A directory keeps what is put then, S3
    cannot: it has no deletion of what is still as old as it was.
    """
    with control.store.read() as connection:
        query = select(blobs.c.digest, blobs.c.used_at).where(blobs.c.digest.in_(digests))
        back = [(digest, used_at) for digest, used_at in connection.execute(query)]
    there = store.has([digest for digest, _ in back]) if back else ()
    for digest, used_at in back:
        if digest not in there:
            with control.store.write() as connection:
                seen = (blobs.c.digest == digest) & (blobs.c.used_at == used_at)
                connection.execute(delete(blobs).where(seen))
