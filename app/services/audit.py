"""The audit trail: who did what to which thing, and what was refused."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, RowMapping, bindparam, insert, select

from app.errors import Conflict, MusterError, NotAllowed
from app.services.control import Control
from app.store.head import Head
from app.store.prepared import Command
from app.store.tables import AuditEntry, Job, table

jobs = table(Job)
_insert = Command(
    insert(table(AuditEntry))
    .inline()
    .values({name: bindparam(name) for name in ("at", "person", "action", "subject", "outcome", "detail")})
)

ACCEPTED = "accepted"
REFUSED = "refused"
WOULD_REFUSE = "would_refuse"
"""The allowlist would have refused it, and is only watched."""

MOST_JOBS = 500
"""Jobs whose exit codes the entry of an execution's end tells."""


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
    _insert.run(connection, values)


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


KEPT: tuple[type[MusterError], ...] = (NotAllowed, Conflict)
"""Refusals that are kept: a request that makes no sense leaves no trace."""


@contextmanager
def refusals(
    control: Control,
    person: str,
    action: str,
    subject: str,
    kinds: tuple[type[MusterError], ...] = KEPT,
) -> Iterator[None]:
    """Keep what the block refuses, for what a person asks of services that are asked by others too."""
    try:
        yield
    except kinds as error:
        refuse(control, person, action, subject, error)
        raise


def refuse(
    control: Control,
    person: str,
    action: str,
    subject: str,
    error: MusterError,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Keep a refusal, in a transaction of its own: what was refused is being rolled back."""
    with control.store.write() as connection:
        detail = {**(detail or {}), "code": error.code, "message": error.message}
        record(connection, person, action, subject, REFUSED, detail, at=control.clock())


def completed(connection: Connection, head: Head, now: float) -> None:
    """Keep how an execution ended, with the exit code of each job: the other half of the entry of its submission."""
    query = (
        select(jobs.c.node, jobs.c.task, jobs.c.attempt, jobs.c.status, jobs.c.exit_code)
        .where(jobs.c.execution == head.state.id, jobs.c.node != "")
        .order_by(jobs.c.created_at, jobs.c.id)
        .limit(MOST_JOBS + 1)
    )
    found = [dict(row) for row in connection.execute(query).mappings()]
    detail: dict[str, Any] = {"origin": head.origin, "jobs": found[:MOST_JOBS]}
    if found[MOST_JOBS:]:
        detail["cut"] = True
    record(connection, head.requester, "execution.end", head.state.id, head.state.status, detail, at=now)


def list_entries(
    connection: Connection,
    *,
    limit: int,
    before: int | None = None,
    person: str | None = None,
    action: str | None = None,
    subject: str | None = None,
) -> list[RowMapping]:
    """Entries, the newest first, those with an id less than `before`; of one person, action or subject."""
    query = select(AuditEntry.__table__)
    if before is not None:
        query = query.where(AuditEntry.id < before)
    if person is not None:
        query = query.where(AuditEntry.person == person)
    if action is not None:
        query = query.where(AuditEntry.action == action)
    if subject is not None:
        query = query.where(AuditEntry.subject == subject)
    return list(connection.execute(query.order_by(AuditEntry.id.desc()).limit(limit)).mappings())
