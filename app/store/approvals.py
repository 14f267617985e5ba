"""Questions to people as rows, written where the engine's answer is written."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, case, insert, update

from app.engine.state import Ask
from app.ids import ulid
from app.store.tables import Approval, table

approvals = table(Approval)

PENDING = "pending"
APPROVED = "approved"
EXPIRED = "expired"
CLOSED = "closed"
STATUSES = (PENDING, APPROVED, "rejected", "answered", EXPIRED, CLOSED)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a question is about, as the text that its digest is over, and who asks. `id` is that of its row."""

    id: str
    subject: str
    requester: str

    @classmethod
    def now(cls, subject: str, requester: str, now: float) -> Asked:
        return cls(ulid(now), subject, requester)


def open_each(
    connection: Connection, execution: str, asks: Sequence[Ask], asked: Mapping[str, Asked], now: float
) -> None:
    """A row for every question; `asked` is by the job of each."""
    rows = [
        {
            "id": asked[ask.job].id,
            "execution": execution,
            "task": ask.task,
            "unit": ask.unit,
            "job": ask.job,
            "kind": ask.kind,
            "prompt": ask.prompt,
            "approvers": list(ask.approvers),
            "quorum": ask.quorum,
            "answer_schema": ask.schema,
            "subject": asked[ask.job].subject,
            "digest": hashlib.sha256(asked[ask.job].subject.encode()).hexdigest(),
            "requester": asked[ask.job].requester,
            "created_at": now,
            "expires_at": ask.expires_at,
        }
        for ask in asks
    ]
    connection.execute(insert(approvals), rows)


def give_up(connection: Connection, job_ids: Collection[str], now: float) -> None:
    """Nobody need answer these any more: they expired, or their task was stopped."""
    expired = approvals.c.expires_at.is_not(None) & (approvals.c.expires_at <= now)
    connection.execute(
        update(approvals)
        .where(approvals.c.job.in_(job_ids), approvals.c.status == PENDING)
        .values(status=case((expired, EXPIRED), else_=CLOSED), decided_at=now)
    )
