"""Values under keys, for every workflow to read. Each change has a revision of its own."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from app.errors import Conflict, NotFound, TooLarge
from app.services import audit
from app.services.control import Control
from app.store.tables import KeyValue, table
from app.transport.messages import canonical

kv = table(KeyValue)

MOST_BYTES = 64_000
"""Of a value as JSON."""

NEVER = 0
"""The revision that a key has before there is anything under it."""


def values(connection: Connection, keys: Collection[str], now: float) -> dict[str, Any]:
    """What is under these keys; those with nothing are left out."""
    query = select(kv.c.key, kv.c.value).where(kv.c.key.in_(keys), _there(now))
    return {key: value for key, value in connection.execute(query)}


def _there(now: float) -> Any:
    return or_(kv.c.expires_at.is_(None), kv.c.expires_at > now)


def list_keys(
    connection: Connection, now: float, *, limit: int, after: str | None = None, prefix: str = ""
) -> list[RowMapping]:
    """Keys in their order with their values, those behind `after`."""
    query = select(kv).where(_there(now))
    if prefix:
        # LIKE takes `a` for `A` on SQLite.
        query = query.where(func.substr(kv.c.key, 1, len(prefix)) == prefix)
    if after is not None:
        query = query.where(kv.c.key > after)
    return list(connection.execute(query.order_by(kv.c.key).limit(limit)).mappings())


def get(connection: Connection, key: str, now: float) -> RowMapping:
    """Raises NotFound."""
    found = connection.execute(select(kv).where(kv.c.key == key, _there(now))).mappings().first()
    if found is None:
        raise NotFound(
            f"there is nothing under {key}", hint="list them: `muster kv list`", code="unknown-key-value"
        )
    return found


def put(
    control: Control,
    key: str,
    value: Any,
    person: str,
    *,
    expires_in: float | None = None,
    expected: int | None = None,
) -> bool:
    """Keep a value, for `expires_in` seconds or for good. True where there was none.

    Raises TooLarge, and Conflict where `expected` is not the revision that is there (`NEVER`: that there is none).
    """
    size = len(canonical(value))
    if size > MOST_BYTES:
        raise TooLarge(
            f"the value is {size} bytes as JSON, {MOST_BYTES} are the most", hint="keep it in a file"
        )
    now = control.clock()
    told = {"bytes": size, "expires_in": expires_in}
    with audit.writing(control, person, "kv.put", key, told) as connection:
        known = connection.execute(
            select(kv.c.revision, kv.c.expires_at).where(kv.c.key == key).with_for_update()
        ).first()
        is_there = known is not None and (known.expires_at is None or known.expires_at > now)
        revision = known.revision if is_there and known is not None else NEVER
        _check(key, revision, expected)
        written = {
            "value": value,
            "revision": revision + 1,
            "updated_by": person,
            "updated_at": now,
            "expires_at": None if expires_in is None else now + expires_in,
        }
        if known is not None:
            connection.execute(update(KeyValue).where(kv.c.key == key).values(written))
        else:
            try:
                connection.execute(insert(KeyValue).values(key=key, **written))
            except IntegrityError:
                raise Conflict(f"{key} was set by somebody else just now", hint="try again") from None
    return not is_there


def remove(control: Control, key: str, person: str, *, expected: int | None = None) -> None:
    """Raises NotFound, and Conflict where `expected` is not the revision that is there."""
    with audit.writing(control, person, "kv.delete", key) as connection:
        known = get(connection, key, control.clock())
        _check(key, known["revision"], expected)
        connection.execute(delete(KeyValue).where(kv.c.key == key, kv.c.revision == known["revision"]))


def _check(key: str, revision: int, expected: int | None) -> None:
    if expected is not None and expected != revision:
        raise Conflict(f"{key} is at revision {revision}, not {expected}", code="revision-conflict")
