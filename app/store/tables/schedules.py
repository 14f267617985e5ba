"""What starts by itself: schedules, and what became of each of their times."""

from __future__ import annotations

from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from app.store.tables.root import Base
from app.store.types import Instant, Json

MISFIRES = ("skip", "once", "all")
OVERLAPS = ("allow", "skip", "queue", "cancel")
TICKS = ("fired", "queued", "skipped", "missed")


class Schedule(Base):
    """What is to be run, on which nodes, when, and how far it is.

    `kind` is workflow or script, `ref` the workflow's reference or the script's id, `version` the one that is wanted,
    null for the newest. `nodes` says where a script runs; a workflow says so itself. Parameters hold secrets by name
    only. `next_run` is the time that the expression says next, `due_at` the moment when it fires: later by a part of
    `jitter`; both are null while it is disabled. `waiting` is the time of the one tick that waits for an execution's
    end. `skips` counts skipped ticks in a row, `seen` is the status that its last execution was seen in. `revision`
    counts what people change, and nothing else. `written_by` is who wrote what is run, `updated_by` who changed
    anything at all.
    """

    __tablename__ = "schedules"
    __table_args__ = (
        CheckConstraint("kind IN ('workflow', 'script')", name="kind"),
        CheckConstraint("misfire IN ('skip', 'once', 'all')", name="misfire"),
        CheckConstraint("overlap IN ('allow', 'skip', 'queue', 'cancel')", name="overlap"),
        Index("ix_schedules_due_at", "due_at"),
    )

    id: Mapped[str] = mapped_column(String(26), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    description: Mapped[str] = mapped_column(Text, default="")
    kind: Mapped[str] = mapped_column(String(8))
    ref: Mapped[str] = mapped_column(String(129))
    version: Mapped[Any] = mapped_column(Json, nullable=True)
    nodes: Mapped[Any] = mapped_column(Json, default=dict)
    parameters: Mapped[Any] = mapped_column(Json, default=dict)
    cron: Mapped[str] = mapped_column(String(200))
    zone: Mapped[str] = mapped_column(String(64))
    enabled: Mapped[bool] = mapped_column(default=True)
    misfire: Mapped[str] = mapped_column(String(8), default="once")
    most: Mapped[int] = mapped_column(default=1)
    grace: Mapped[float] = mapped_column(default=3600.0)
    overlap: Mapped[str] = mapped_column(String(8), default="skip")
    jitter: Mapped[float] = mapped_column(default=0.0)
    owner: Mapped[str] = mapped_column(String(64))
    next_run: Mapped[float | None] = mapped_column(Instant)
    due_at: Mapped[float | None] = mapped_column(Instant)
    waiting: Mapped[float | None] = mapped_column(Instant)
    skips: Mapped[int] = mapped_column(default=0)
    last_run: Mapped[float | None] = mapped_column(Instant)
    last_status: Mapped[str] = mapped_column(String(16), default="")
    last_reason: Mapped[str] = mapped_column(String(64), default="")
    last_execution: Mapped[str | None] = mapped_column(String(26))
    seen: Mapped[str] = mapped_column(String(16), default="")
    revision: Mapped[int] = mapped_column(default=1)
    written_by: Mapped[str] = mapped_column(String(64))
    updated_by: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[float] = mapped_column(Instant)
    updated_at: Mapped[float] = mapped_column(Instant)


class ScheduleTick(Base):
    """What became of one time of a schedule: there is one row for each, whoever looked at it, and however often."""

    __tablename__ = "schedule_ticks"
    __table_args__ = (
        CheckConstraint("status IN ('fired', 'queued', 'skipped', 'missed')", name="status"),
        Index("ix_schedule_ticks_at", "at"),
    )

    schedule: Mapped[str] = mapped_column(ForeignKey("schedules.id", ondelete="CASCADE"), primary_key=True)
    fire_time: Mapped[float] = mapped_column(Instant, primary_key=True)
    status: Mapped[str] = mapped_column(String(8))
    reason: Mapped[str] = mapped_column(String(64), default="")
    detail: Mapped[str] = mapped_column(Text, default="")
    execution: Mapped[str | None] = mapped_column(String(26))
    at: Mapped[float] = mapped_column(Instant)
