"""Questions to people, and what they said."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from app.store.tables.root import Base
from app.store.types import Instant, Json


class Approval(Base):
    """One question. `subject` is what is decided on as JSON, `digest` the sha256 of that text.

    One for a whole execution has no task. `closed` means that it was given up unanswered.
    """

    __tablename__ = "approvals"
    __table_args__ = (Index("ix_approvals_status_id", "status", "id"),)

    id: Mapped[str] = mapped_column(String(26), primary_key=True)
    execution: Mapped[str] = mapped_column(ForeignKey("executions.id", ondelete="CASCADE"), index=True)
    task: Mapped[str] = mapped_column(String(64))
    unit: Mapped[int]
    job: Mapped[str] = mapped_column(String(200), unique=True)
    kind: Mapped[str] = mapped_column(String(16))
    prompt: Mapped[str] = mapped_column(Text, default="")
    approvers: Mapped[Any] = mapped_column(Json, default=list)
    quorum: Mapped[int] = mapped_column(default=1)
    answer_schema: Mapped[Any] = mapped_column(Json, nullable=True)
    subject: Mapped[str] = mapped_column(Text, default="")
    digest: Mapped[str] = mapped_column(String(64))
    requester: Mapped[str] = mapped_column(String(64))
    status: Mapped[str] = mapped_column(String(16), default="pending")
    answer: Mapped[Any] = mapped_column(Json, nullable=True)
    created_at: Mapped[float] = mapped_column(Instant)
    expires_at: Mapped[float | None] = mapped_column(Instant)
    decided_at: Mapped[float | None] = mapped_column(Instant)


class Decision(Base):
    """What one person said to one question: once, and never changed."""

    __tablename__ = "approval_decisions"

    approval: Mapped[str] = mapped_column(ForeignKey("approvals.id", ondelete="CASCADE"), primary_key=True)
    person: Mapped[str] = mapped_column(String(64), primary_key=True)
    decision: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(Text, default="")
    at: Mapped[float] = mapped_column(Instant)
