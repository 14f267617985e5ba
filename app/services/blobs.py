"""Blobs: which are there for whom, taken in checked and counted, given out whole.

The bytes are in the blob store, and a row says that they are there: it is written behind the bytes, and deleted before
them. Who is not shown everything has the blobs that they put themselves, whatever digests they know.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

from sqlalchemy import Connection, select, update

from app.errors import Conflict, TooLarge
from app.files import bundles
from app.files.bundles import Source
from app.files.limits import Limits
from app.files.names import BadTree
from app.services import audit
from app.services.allowance import Allowance
from app.services.bearers import Bearer
from app.services.control import Control
from app.store.blobs import Blobs
from app.store.blobs.local import unknown
from app.store.statements import insert_into
from app.store.tables import Blob, BlobHolder, table

blobs, holders = table(Blob), table(BlobHolder)

HOUR = 3600.0
AT_ONCE = 500
"""Digests in one statement."""

MOST_DIGESTS = 100_000
"""Digests in one request."""


@dataclass(frozen=True, slots=True)
class Stored:
    """How many blobs were put, and how many bytes they have."""

    blobs: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Part:
    """`length` bytes from `offset` on, of a blob that has `total` bytes; None: it starts anew."""

    offset: int | None
    length: int
    total: int


def limits_of(control: Control) -> Limits:
    """How much one workspace may be here."""
    settings = control.settings
    return Limits(files=settings.workspace_files, bytes=settings.workspace_bytes)


def check_size(control: Control, size: int) -> None:
    """Raises TooLarge for more bytes than one file may have."""
    most = control.settings.blob_limit
    if size > most:
        raise TooLarge(
            f"a file of {size} bytes, {most} are allowed",
            hint="leave it out with `exclude`, or raise MUSTER_BLOB_LIMIT",
            code="blob-too-large",
        )


def parts(digests: Collection[str]) -> Iterator[list[str]]:
    """The digests in lists that fit into a statement."""
    every = list(digests)
    for at in range(0, len(every), AT_ONCE):
        yield every[at : at + AT_ONCE]


def sizes(connection: Connection, digests: Collection[str]) -> dict[str, int]:
    """The sizes of those that are there."""
    query = select(blobs.c.digest, blobs.c.size)
    found: dict[str, int] = {}
    for part in parts(digests):
        found.update((row[0], row[1]) for row in connection.execute(query.where(blobs.c.digest.in_(part))))
    return found


def held(connection: Connection, owner: str, digests: Collection[str]) -> set[str]:
    """Those that this owner put: `job:ID`, or `person:LOGIN`."""
    query = select(holders.c.digest).where(holders.c.holder == owner)
    found: set[str] = set()
    for part in parts(digests):
        found.update(connection.execute(query.where(holders.c.digest.in_(part))).scalars())
    return found


def missing(
    control: Control, bearer: Bearer, digests: Collection[str], known: Collection[str] = ()
) -> list[str]:
    """Those of the digests that the bearer has to put, in their order. `known` are there for them anyway.

    Those that are there stay for a day at the least.
    """
    wanted = list(dict.fromkeys(digests))
    with control.store.read() as connection:
        fresh, stale = _there(connection, wanted, control.clock() - HOUR)
        mine = None if bearer.sees_all else {*held(connection, bearer.owner, wanted), *known}
    if stale:
        fresh |= renew(control, stale)
    return [digest for digest in wanted if digest not in fresh or (mine is not None and digest not in mine)]


def _there(connection: Connection, digests: Collection[str], since: float) -> tuple[set[str], set[str]]:
    """Those that were used since, and those that were not."""
    query = select(blobs.c.digest, blobs.c.used_at)
    fresh: set[str] = set()
    stale: set[str] = set()
    for part in parts(digests):
        for digest, used_at in connection.execute(query.where(blobs.c.digest.in_(part))):
            (fresh if used_at >= since else stale).add(digest)
    return fresh, stale


def renew(control: Control, digests: Collection[str]) -> set[str]:
    """Note that they are used; those that are still there."""
    now = control.clock()
    found: set[str] = set()
    with control.store.write() as connection:
        for part in parts(digests):
            query = update(blobs).where(blobs.c.digest.in_(part)).values(used_at=now)
            found.update(connection.execute(query.returning(blobs.c.digest)).scalars())
    return found


def put_bundle(control: Control, bearer: Bearer, stream: Source) -> Stored:
    """Keep every blob of a bundle. What came before something is wrong with it is kept too.

    Raises BadTree, TooLarge, NotAllowed (more than the pass lets the node put) and Unavailable.
    """
    store = control.blobs.open(control.settings)
    kept: dict[str, int] = {}
    sizes_of: dict[str, int] = {}
    with Allowance(control, bearer) as allowance:
        try:
            for digest in store.put_many(_admitted(control, allowance, stream, sizes_of)):
                kept[digest] = sizes_of[digest]
        finally:
            allowance.give_back(sum(sizes_of.values()) - sum(kept.values()))
            if kept:
                _record(control, store, bearer, kept)
    return Stored(len(kept), sum(kept.values()))


def _admitted(
    control: Control, allowance: Allowance, stream: Source, sizes_of: dict[str, int]
) -> Iterator[tuple[str, int, Source]]:
    """The blobs of a bundle, each once there is room for it; their sizes are noted."""
    for digest, blob in bundles.read(stream, limits_of(control)):
        check_size(control, blob.size)
        allowance.take(blob.size)
        sizes_of[digest] = blob.size
        yield digest, blob.size, blob


def put_part(control: Control, bearer: Bearer, digest: str, part: Part, stream: Source) -> bool:
    """Keep a blob, or go on with one; True once it is whole. Raises as `put_bundle`, and Conflict (`wrong-offset`)."""
    check_size(control, part.total)
    store = control.blobs.open(control.settings)
    with Allowance(control, bearer) as allowance:
        allowance.take(part.length)
        came = None
        try:
            if store.append(digest, part.offset, part.total, stream, bearer.owner):
                came = part.length
        except Conflict:
            came = 0
            if missing(control, bearer, [digest]):
                raise
            return True  # it was whole before: only the answer was lost
        except BadTree:
            came = part.length
            raise
        finally:
            # However it broke off: a connection that is gone is the server's own exception.
            allowance.give_back(part.length - (_came(store, bearer, digest, part) if came is None else came))
        if came is None:
            return False
    _record(control, store, bearer, {digest: part.total})
    return True


def _came(store: Blobs, bearer: Bearer, digest: str, part: Part) -> int:
    return max(0, store.partial(digest, bearer.owner) - (part.offset or 0))


def progress(control: Control, bearer: Bearer, digest: str) -> int:
    """How many bytes of the bearer's own upload are here."""
    return control.blobs.open(control.settings).partial(digest, bearer.owner)


def _record(control: Control, store: Blobs, bearer: Bearer, kept: Mapping[str, int]) -> None:
    # A row promises the bytes, and is on the disk itself as soon as it is committed.
    store.sync()
    now = control.clock()
    rows = [
        {"digest": digest, "size": size, "created_at": now, "used_at": now} for digest, size in kept.items()
    ]
    with control.store.write() as connection:
        # In one order, so that two who put the same blobs do not wait for each other.
        rows.sort(key=lambda row: str(row["digest"]))
        connection.execute(
            insert_into(connection, blobs).on_conflict_do_update(
                index_elements=["digest"], set_={"used_at": now}
            ),
            rows,
        )
        if not bearer.sees_all:
            mine = [{"holder": bearer.owner, "digest": row["digest"], "at": now} for row in rows]
            once = insert_into(connection, holders).on_conflict_do_update(
                index_elements=["holder", "digest"], set_={"at": now}
            )
            connection.execute(once, mine)
        if bearer.person is not None:
            detail = {"blobs": len(kept), "bytes": sum(kept.values())}
            audit.record(connection, bearer.name, "blob.put", next(iter(kept)), detail=detail, at=now)


def open_blob(control: Control, digest: str, start: int = 0) -> BinaryIO:
    """Its bytes from `start` on. Raises NotFound."""
    return control.blobs.open(control.settings).open(digest, start)


def bundle_of(control: Control, digests: Sequence[str]) -> Iterator[bytes]:
    """A bundle of these blobs, piece by piece. Raises NotFound at once where one is not there."""
    wanted = list(dict.fromkeys(digests))
    with control.store.read() as connection:
        known = sizes(connection, wanted)
    for digest in wanted:
        if digest not in known:
            raise unknown(digest)
    return bundles.pieces(_opened(control, wanted, known))


def _opened(
    control: Control, digests: Iterable[str], known: Mapping[str, int]
) -> Iterator[tuple[str, int, Callable[[], BinaryIO]]]:
    for digest, opened in control.blobs.open(control.settings).open_many(digests):
        yield digest, known[digest], partial(_itself, opened)


def _itself(opened: BinaryIO) -> BinaryIO:
    return opened
