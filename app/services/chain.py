"""The chain of the audit trail: every entry gets a number without gaps and a hash over itself and all before it.

Entries are written without either, so that writers never wait for each other; the tick seals them in the order in
which it finds them. On PostgreSQL an entry with a lower id may appear later: it is sealed later. Entries go from the
front only, and leave an anchor: the number and hash of the last one that went.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, RowMapping, Select, bindparam, delete, func, insert, select, text, update
from sqlalchemy.exc import IntegrityError

from app.errors import Conflict, InvalidInput
from app.logs import scope
from app.services import audit
from app.services.control import Control
from app.store.looks import Look
from app.store.prepared import Command
from app.store.tables import AuditChain, AuditEntry, table

log = logging.getLogger(__name__)
entries, chains = table(AuditEntry), table(AuditChain)

AT_ONCE = 500
"""Entries sealed, read or pruned in one statement: what is written holds writers up on SQLite."""
MOST_SEALED = 5000
"""Entries that one tick seals."""
MOST_VERIFIED = 20_000
"""Entries that one answer is about."""
HOUR = 3600.0
_THE_ONE = 1

_set = Command(
    update(entries)
    .where(entries.c.id == bindparam("entry"))
    .values(seq=bindparam("new_seq"), hash=bindparam("new_hash"))
)
_UNSEALED = Look(select(entries.c.id).where(entries.c.seq.is_(None)), 1)
_CHAIN = Look(select(chains), 1)


class Place(NamedTuple):
    """An entry of the chain by its number, and its hash. Number 0 is what is before the first."""

    seq: int
    hash: str


START = Place(0, "")


@dataclass(frozen=True, slots=True)
class Chain:
    """How far it is sealed, and how far it was pruned."""

    head: Place = START
    anchor: Place = START


def digest(previous: str, seq: int, row: Any) -> str:
    """The hash of an entry, `previous` being that of the one before it."""
    told = {
        "seq": seq,
        "id": row.id,
        "at": round(row.at * 1e6),
        **{name: getattr(row, name) for name in ("person", "action", "subject", "outcome", "detail")},
    }
    return hashlib.sha256(
        (previous + json.dumps(told, sort_keys=True, separators=(",", ":"))).encode()
    ).hexdigest()


# sealing


def seal(control: Control) -> int:
    """Seal what was written since the last time; how many. The caller holds the tick's lease.

    Raises Conflict where entries are in the chain that were not sealed here.
    """
    done = 0
    while done < MOST_SEALED:
        if _UNSEALED.first(control.store) is None:
            break
        with control.store.write() as connection:
            number = _seal(connection)
        done += number
        if number < AT_ONCE:
            break
    return done


def _seal(connection: Connection) -> int:
    head = _locked(connection).head
    beyond = connection.execute(select(entries.c.id).where(entries.c.seq > head.seq).limit(1)).scalar()
    if beyond is not None:
        raise Conflict(
            f"entry {beyond} of the audit trail stands behind its head, and was not sealed here",
            hint="`muster audit verify` tells what is wrong; nothing is sealed until it is gone",
            code="audit-chain-broken",
        )
    query = select(entries).where(entries.c.seq.is_(None)).order_by(entries.c.id).limit(AT_ONCE)
    sealed = []
    for row in connection.execute(query):
        head = Place(head.seq + 1, digest(head.hash, head.seq + 1, row))
        sealed.append({"entry": row.id, "new_seq": head.seq, "new_hash": head.hash})
    _set.run_each(connection, sealed)
    connection.execute(update(AuditChain).values(seq=head.seq, hash=head.hash))
    return len(sealed)


def _locked(connection: Connection) -> Chain:
    """The row of the chain, made if need be, and locked until the transaction ends."""
    query = select(chains).with_for_update()
    row = connection.execute(query).first()
    if row is None:
        # If it was taken away, the chain goes on where it ends; that its anchor is gone shows when it is verified.
        last = select(entries.c.seq, entries.c.hash).where(entries.c.seq.is_not(None))
        newest = connection.execute(last.order_by(entries.c.seq.desc()).limit(1)).first() or START
        try:
            with connection.begin_nested():
                values = {"id": _THE_ONE, "seq": newest[0], "hash": newest[1]}
                connection.execute(insert(AuditChain), values)
        except IntegrityError:
            pass
        row = connection.execute(query).one()
    return _chain(row)


def _chain(row: Any) -> Chain:
    return Chain(Place(row.seq, row.hash), Place(row.anchor_seq, row.anchor_hash))


def note_head(control: Control) -> None:
    """Tell the log the head of the chain, once an hour: whoever keeps logs elsewhere can compare it later."""
    now = control.clock()
    row = _CHAIN.first(control.store)
    if row is None or (row.noted_at is not None and row.noted_at > now - HOUR):
        return
    with control.store.write() as connection:
        connection.execute(update(AuditChain).values(noted_at=now))
    log.info("head of the audit trail", extra=scope.facts(seq=row.seq, hash=row.hash))


# pruning


def prune(control: Control, before: float) -> int:
    """Delete entries from the front that are older than a moment (Unix seconds); how many.

    Raises Conflict where one of them is not as it was sealed: then it stays, and all behind it.
    """
    gone = 0
    while True:
        with control.store.write() as connection:
            chain = _locked(connection)
            last, number = chain.anchor, 0
            for row in _behind(connection, chain.anchor, chain.head, AT_ONCE):
                wrong = _wrong(last, row)
                if wrong is None and row.at >= before:
                    break
                if wrong is not None:
                    raise Conflict(
                        f"entry {row.id} of the audit trail is not as it was sealed, so nothing is pruned",
                        hint="`muster audit verify` tells what is wrong",
                        code="audit-chain-broken",
                    )
                last, number = Place(row.seq, row.hash), number + 1
            if number:
                connection.execute(delete(entries).where(entries.c.seq <= last.seq))
                connection.execute(update(AuditChain).values(anchor_seq=last.seq, anchor_hash=last.hash))
                detail = {"entries": number, "seq": last.seq, "hash": last.hash}
                audit.record(connection, "control", "audit.prune", "", detail=detail, at=control.clock())
            gone += number
        if number < AT_ONCE:
            return gone


# verifying


@dataclass(frozen=True, slots=True)
class Wrong:
    """The first thing that is not as it was sealed: where in the chain, which row if there is one, and what."""

    seq: int | None
    id: int | None
    what: str


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found in one page of the chain: `entries` were looked at. Without `next` it was the last page."""

    entries: int
    unsealed: int
    first_wrong: Wrong | None
    chain: Chain
    next: Place | None

    @property
    def ok(self) -> bool:
        """Whether nothing was wrong so far."""
        return self.first_wrong is None

    @property
    def sealed(self) -> int:
        """How many entries the chain has."""
        return self.chain.head.seq - self.chain.anchor.seq


def verify(
    control: Control, *, behind: Place | None = None, head: Place | None = None, limit: int = MOST_VERIFIED
) -> Verified:
    """Look at so many entries behind a place, from the front if none is given; compare with a head noted earlier.

    Raises InvalidInput where what was noted was pruned.
    """
    with control.store.read() as connection:
        if connection.dialect.name != "sqlite":
            # One snapshot: entries may be sealed or pruned meanwhile.
            connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        row = connection.execute(select(chains)).first()
        chain = Chain() if row is None else _chain(row)
        waiting = select(func.count()).select_from(entries).where(entries.c.seq.is_(None))
        unsealed = connection.execute(waiting).scalar_one()
        start = behind if behind is not None and behind.seq >= chain.anchor.seq else chain.anchor
        wrong = _noted(connection, chain, head) or (_before(connection, chain) if behind is None else None)
        last, number = start, 0
        if wrong is None:
            wrong, last, number = _walk(connection, chain, start, limit)
        if wrong is None and last == chain.head:
            wrong = _after(connection, chain)
    ended = wrong is not None or last == chain.head
    return Verified(number, unsealed, wrong, chain, None if ended else last)


def _walk(connection: Connection, chain: Chain, start: Place, limit: int) -> tuple[Wrong | None, Place, int]:
    last, number = start, 0
    for row in _behind(connection, start, chain.head, limit):
        wrong = _wrong(last, row)
        if wrong is not None:
            return wrong, last, number
        last, number = Place(row.seq, row.hash), number + 1
    if number < limit and last.seq != chain.head.seq:
        return _missing(last.seq + 1), last, number
    if last.seq == chain.head.seq and last.hash != chain.head.hash:
        return Wrong(last.seq, None, "the head of the chain is another one"), last, number
    return None, last, number


def _wrong(last: Place, row: Any) -> Wrong | None:
    if row.seq != last.seq + 1:
        return _missing(last.seq + 1)
    if isinstance(row, _Unreadable) or row.hash != digest(last.hash, row.seq, row):
        return Wrong(row.seq, row.id, "it is not as it was sealed")
    return None


def _missing(seq: int) -> Wrong:
    return Wrong(seq, None, "it is missing")


def _behind(connection: Connection, start: Place, head: Place, limit: int) -> Iterator[Any]:
    """Entries of the chain in order, so many at the most."""
    at, left = start.seq, limit
    while left > 0:
        query = select(entries).where(entries.c.seq > at, entries.c.seq <= head.seq).order_by(entries.c.seq)
        found = _read(connection, query.limit(min(left, AT_ONCE)))
        yield from found
        if len(found) < min(left, AT_ONCE):
            return
        at, left = found[-1].seq, left - len(found)


class _Unreadable(NamedTuple):
    """An entry in which somebody put what no column of its kind can be."""

    seq: int
    id: int


def _read(connection: Connection, query: Select[Any]) -> list[Any]:
    try:
        return list(connection.execute(query).all())
    except (ValueError, TypeError):
        # What SQLite keeps may be anything: it has types for values, not for columns.
        found: list[Any] = []
        for row in connection.execute(query.with_only_columns(entries.c.seq, entries.c.id)).all():
            try:
                found.append(connection.execute(select(entries).where(entries.c.id == row.id)).one())
            except (ValueError, TypeError):
                found.append(_Unreadable(row.seq, row.id))
        return found


def _before(connection: Connection, chain: Chain) -> Wrong | None:
    """What stands in front of the anchor was put there."""
    query = select(entries.c.seq, entries.c.id).where(entries.c.seq <= chain.anchor.seq)
    row = connection.execute(query.order_by(entries.c.seq).limit(1)).first()
    return None if row is None else Wrong(row.seq, row.id, "it stands in front of the anchor")


def _after(connection: Connection, chain: Chain) -> Wrong | None:
    """So was what stands behind the head, and what has a hash and no number was taken out of the chain."""
    query = select(entries.c.seq, entries.c.id).where(entries.c.seq > chain.head.seq)
    row = connection.execute(query.order_by(entries.c.seq).limit(1)).first()
    if row is not None:
        return Wrong(row.seq, row.id, "it stands behind the head, and was not sealed here")
    loose = select(entries.c.id).where(entries.c.seq.is_(None), entries.c.hash != "").limit(1)
    id_ = connection.execute(loose).scalar()
    return None if id_ is None else Wrong(None, id_, "it has a hash, and no place in the chain")


def _noted(connection: Connection, chain: Chain, head: Place | None) -> Wrong | None:
    if head is None:
        return None
    if head.seq < chain.anchor.seq:
        raise InvalidInput(
            f"entry {head.seq} was pruned; the chain begins behind {chain.anchor.seq}",
            hint="compare with a head that was noted later",
            code="head-pruned",
        )
    if head.seq == chain.anchor.seq:
        found: str | None = chain.anchor.hash
    else:
        found = connection.execute(select(entries.c.hash).where(entries.c.seq == head.seq)).scalar()
    if found is None:
        return Wrong(head.seq, None, "it was noted as the head, and is missing")
    return None if found == head.hash else Wrong(head.seq, None, "it is not the head that was noted")


def list_sealed(connection: Connection, *, limit: int, after: int = 0) -> list[RowMapping]:
    """Entries in the order of the chain, those with a number above `after`."""
    query = select(entries).where(entries.c.seq > after).order_by(entries.c.seq).limit(limit)
    return list(connection.execute(query).mappings())
