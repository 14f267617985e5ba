"""Words to people outside: a row for each, written with what it tells of, sent after the commit (`courier`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, bindparam, insert, select

from app.ids import ulid
from app.store.prepared import Command
from app.store.tables import Notification, table

notifications = table(Notification)

ASKED: Final = "approval.asked"
DECIDED: Final = "approval.decided"
EXPIRED: Final = "approval.expired"
HELD_UP: Final = "schedule.alarm"

PENDING, SENT, FAILED, UNWANTED = "pending", "sent", "failed", "unwanted"
STATUSES: Final = (PENDING, SENT, FAILED, UNWANTED)
"""`failed` was given up after the last try; `unwanted` found nowhere to be sent to."""

_FIELDS = ("id", "kind", "subject", "data", "created_at", "due_at")
_insert = Command(insert(notifications).inline().values({name: bindparam(name) for name in _FIELDS}))


def tell(connection: Connection, kind: str, subject: str, data: Mapping[str, Any], now: float) -> str:
    """Have people told, if this transaction commits. Returns the id, which every try to send it carries.

    `kind` is `thing.what`, `subject` the id of what it is about. `data` is JSON, without secrets: it leaves the
    installation as it is.
    """
    id_ = ulid(now)
    values = {"id": id_, "kind": kind, "subject": subject, "data": dict(data), "created_at": now}
    _insert.run(connection, {**values, "due_at": now})
    return id_


def list_notifications(
    connection: Connection, *, limit: int, before: str | None = None, status: str | None = None
) -> list[RowMapping]:
    """The newest first, those with an id less than `before`."""
    query = select(notifications)
    if status is not None:
        query = query.where(notifications.c.status == status)
    if before is not None:
        query = query.where(notifications.c.id < before)
    return list(connection.execute(query.order_by(notifications.c.id.desc()).limit(limit)).mappings())
