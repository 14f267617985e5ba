"""Snapshots as rows: the manifest of each once, compressed, under its digest."""

from __future__ import annotations

import zlib
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, bindparam, select

from app.errors import NotFound
from app.files.limits import Limits
from app.files.manifest import EMPTY, Manifest
from app.store.prepared import Query
from app.store.statements import insert_into
from app.store.tables import Snapshot, table

snapshots = table(Snapshot)

_select = Query(select(snapshots.c.body).where(snapshots.c.digest == bindparam("digest")), bytes)


def load(connection: Connection, digest: str) -> Manifest:
    """The snapshot of that name; "" is one without files. Raises NotFound."""
    if not digest:
        return EMPTY
    body = _select.first(connection, digest=digest)
    if body is None:
        raise NotFound(
            f"there is no snapshot {digest[:64]}",
            hint="it may have been pruned: upload the directory again",
            code="unknown-snapshot",
        )
    return _read(body)


@lru_cache(maxsize=32)
def _read(body: bytes) -> Manifest:
    data = zlib.decompress(body)
    # What is stored was held to the limits of its day, whatever they are now.
    return Manifest.read(data, Limits(files=len(data), bytes=1 << 62))


def keep(connection: Connection, manifest: Manifest, now: float) -> None:
    """Store a snapshot, or note that it is used (Unix seconds) where it is there already."""
    values: dict[str, Any] = {
        "digest": manifest.digest,
        "body": zlib.compress(manifest.to_bytes()),
        "files": len(manifest.files),
        "bytes": manifest.bytes,
        "created_at": now,
        "used_at": now,
    }
    statement = insert_into(connection, snapshots).values(values)
    connection.execute(statement.on_conflict_do_update(index_elements=["digest"], set_={"used_at": now}))
