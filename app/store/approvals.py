"""Questions to people as rows, written where the engine's answer is written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, case, insert, update

from app.engine.state import Ask
from app.ids import ulid
from app.store.tables import Approval, table

approvals = table(Approval)

PENDING = "pending"
EXPIRED = "expired"
CLOSED = "closed"
STATUSES = (PENDING, "approved", "rejected", "answered", EXPIRED, CLOSED)


def open_each(
    connection: Connection, about: dict[str, Any], requester: str, asks: Sequence[Ask], now: float
) -> None:
    """A row for every question. `about` is what all of them are decided on: execution, plan, parameters."""
    rows = [
        {
            "id": ulid(now),
            "execution": about["execution"],
            "task": ask.task,
            "unit": ask.unit,
            "job": ask.job,
            "kind": ask.kind,
            "prompt": ask.prompt,
            "approvers": list(ask.approvers),
            "quorum": ask.quorum,
            "answer_schema": ask.schema,
            "digest": _digest({**about, "task": ask.task, "unit": ask.unit, "prompt": ask.prompt}),
            "requester": requester,
            "created_at": now,
            "expires_at": ask.expires_at,
        }
        for ask in asks
    ]
    connection.execute(insert(approvals), rows)


def _digest(subject: dict[str, Any]) -> str:
    text = json.dumps(subject, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def give_up(connection: Connection, job_ids: Collection[str], now: float) -> None:
    """Nobody need answer these any more: they expired, or their task was stopped."""
    expired = approvals.c.expires_at.is_not(None) & (approvals.c.expires_at <= now)
    connection.execute(
        update(approvals)
        .where(approvals.c.job.in_(job_ids), approvals.c.status == PENDING)
        .values(status=case((expired, EXPIRED), else_=CLOSED), decided_at=now)
    )
