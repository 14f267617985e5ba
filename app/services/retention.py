"""What is kept and for how long: executions with all that hangs on them, output, keys, dead letters, plans, files."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, exists, or_, select, update

from app.engine.status import EXECUTION_OVER
from app.errors import Unavailable
from app.services import audit, chain, unused_files
from app.services.control import Control
from app.store.looks import Look
from app.store.tables import (
    DeadLetter,
    EnrolmentToken,
    Execution,
    IdempotencyKey,
    Installation,
    KeyValue,
    Notification,
    Output,
    Pin,
    ScheduleTick,
    StoredPlan,
    WorkflowVersion,
    table,
)

executions, outputs, plans = table(Execution), table(Output), table(StoredPlan)
kv, ticks, notifications = table(KeyValue), table(ScheduleTick), table(Notification)
keys, letters, tokens = table(IdempotencyKey), table(DeadLetter), table(EnrolmentToken)
versions, installations, pins = table(WorkflowVersion), table(Installation), table(Pin)

log = logging.getLogger(__name__)

HOUR = 3600.0
DAY = 86400.0
AT_ONCE = 200
"""Executions deleted in one transaction: a long delete would hold writers up."""

KEY_LIFETIME = DAY
"""How long an Idempotency-Key answers with its execution."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """How many rows of each kind went; `bytes` are those of the blobs."""

    executions: int
    outputs: int
    others: int
    blobs: int = 0
    bytes: int = 0
    snapshots: int = 0


def prune(
    control: Control, person: str = "", *, older_than: float | None = None, files: bool = True
) -> Pruned:
    """Delete what its retention no longer keeps. `older_than`: seconds for executions instead of the setting's.

    A `person` who asked for it is noted in the audit trail. Without `files` those of workspaces are left alone. Raises
    Unavailable where they are in a store that does not answer: the rest is done by then.
    """
    settings, now = control.settings, control.clock()
    before = now - (settings.retention if older_than is None else older_than)
    gone = 0
    while True:
        old = select(executions.c.id).where(
            executions.c.ended_at < before, executions.c.status.in_(EXECUTION_OVER)
        )
        with control.store.write() as connection:
            # Locked, so that none is tried again in the meantime; one that is locked is just being tried again.
            ids = list(connection.execute(old.limit(AT_ONCE).with_for_update(skip_locked=True)).scalars())
            if ids:
                connection.execute(delete(outputs).where(outputs.c.execution.in_(ids)))
                gone += connection.execute(delete(executions).where(executions.c.id.in_(ids))).rowcount
        if len(ids) < AT_ONCE:
            break
    aged = select(executions.c.id).where(executions.c.ended_at < now - settings.output_retention)
    with control.store.write() as connection:
        streams = connection.execute(delete(outputs).where(outputs.c.execution.in_(aged))).rowcount
        if person:
            detail = {"older_than": older_than, "executions": gone}
            audit.record(connection, person, "retention.prune", "", "accepted", detail)
        others = sum(connection.execute(query).rowcount for query in _rest(now, before))
    swept = unused_files.sweep(control) if files else unused_files.Swept(0, 0, 0)
    return Pruned(gone, streams, others, swept.blobs, swept.bytes, swept.snapshots)


def _rest(now: float, before: float) -> list[Any]:
    unused = ~or_(
        exists().where(executions.c.plan_digest == plans.c.digest),
        exists().where(versions.c.plan_digest == plans.c.digest),
        exists().where(pins.c.plan_digest == plans.c.digest),
    )
    return [
        delete(keys).where(keys.c.created_at < now - KEY_LIFETIME),
        delete(kv).where(kv.c.expires_at < now),
        delete(ticks).where(ticks.c.at < before, ticks.c.status != "queued"),
        delete(letters).where(letters.c.at < before),
        delete(notifications).where(notifications.c.created_at < before),
        delete(tokens).where(tokens.c.expires_at < now - DAY),
        delete(plans).where(plans.c.used_at < now - DAY, unused),
    ]


_LAST = Look(select(installations.c.pruned_at, installations.c.swept_at), 1)


def hourly(control: Control) -> None:
    """`prune`, if the last one is an hour ago, of files once a day. The caller holds the tick's lease."""
    now = control.clock()
    last, swept = _LAST.first(control.store) or (None, None)
    if last is not None and last > now - HOUR:
        return
    files = swept is None or swept <= now - DAY
    with control.store.write() as connection:
        noted = {"pruned_at": now} | ({"swept_at": now} if files else {})
        connection.execute(update(installations).values(noted))
    try:
        prune(control, files=files)
    except Unavailable as error:
        log.warning("files that nothing names stay until tomorrow: %s", error.message)
    if control.settings.audit_retention:
        chain.prune(control, now - control.settings.audit_retention)
