"""The audit trail: who did what to which thing, and what was refused."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, RowMapping, insert, select

from app.errors import Conflict, MusterError, NotAllowed
from app.services.control import Control
from app.store.tables import AuditEntry

ACCEPTED = "accepted"
REFUSED = "refused"


def record(
    connection: Connection,
    person: str,
    action: str,
    subject: str = "",
    outcome: str = ACCEPTED,
    detail: Mapping[str, Any] | None = None,
    *,
    at: float | None = None,
) -> None:
    """Add one entry in the caller's transaction. `action` is `thing.verb`; `at` is Unix seconds."""
    values = {
        "at": time.time() if at is None else at,
        "person": person[:64],
        "action": action,
        "subject": subject[:255],
        "outcome": outcome,
        "detail": dict(detail or {}),
    }
    connection.execute(insert(AuditEntry), values)


@contextmanager
def writing(
    control: Control, person: str, action: str, subject: str, detail: Mapping[str, Any] | None = None
) -> Iterator[Connection]:
    """A write transaction with its entry: `accepted` if it commits, `refused` where the block refuses.

    Only NotAllowed and Conflict are kept: a request that makes no sense leaves no trace.
    """
    try:
        with control.store.write() as connection:
            yield connection
            record(connection, person, action, subject, ACCEPTED, detail, at=control.clock())
    except (NotAllowed, Conflict) as error:
        refuse(control, person, action, subject, error)
        raise


def refuse(control: Control, person: str, action: str, subject: str, error: MusterError) -> None:
    """Keep a refusal, in a transaction of its own: what was refused is being rolled back."""
    with control.store.write() as connection:
        detail = {"code": error.code, "message": error.message}
        record(connection, person, action, subject, REFUSED, detail, at=control.clock())


def list_entries(connection: Connection, *, limit: int, before: int | None = None) -> list[RowMapping]:
    """Entries, the newest first, those with an id less than `before`."""
    query = select(AuditEntry.__table__)
    if before is not None:
        query = query.where(AuditEntry.id < before)
    return list(connection.execute(query.order_by(AuditEntry.id.desc()).limit(limit)).mappings())
