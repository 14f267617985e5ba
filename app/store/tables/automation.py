"""Saved scripts and what they were before."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ForeignKey, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from app.store.tables.root import Base
from app.store.types import Instant, Json


class Script(Base):
    """A saved script by its name. What it does is in its versions; the rest holds for all of them.

    `approval` says how executions are decided on where `requires_approval`: quorum, approvers, expires_in (seconds),
    on_expire.
    """

    __tablename__ = "scripts"

    id: Mapped[str] = mapped_column(String(26), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    description: Mapped[str] = mapped_column(Text, default="")
    tags: Mapped[Any] = mapped_column(Json, default=list)
    version: Mapped[int] = mapped_column(default=1)
    timeout: Mapped[float]
    requires_approval: Mapped[bool] = mapped_column(default=False)
    approval: Mapped[Any] = mapped_column(Json, default=dict)
    revision: Mapped[int] = mapped_column(default=1)
    updated_by: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[float] = mapped_column(Instant)
    updated_at: Mapped[float] = mapped_column(Instant)


class ScriptVersion(Base):
    """One immutable snapshot; `version` counts from 1 and never goes back. `digest` is over what it does."""

    __tablename__ = "script_versions"

    script_id: Mapped[str] = mapped_column(ForeignKey("scripts.id", ondelete="CASCADE"), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    shell: Mapped[str] = mapped_column(String(32))
    body: Mapped[str] = mapped_column(Text)
    parameters: Mapped[Any] = mapped_column(Json, default=list)
    substitution: Mapped[str] = mapped_column(String(8), default="bound")
    digest: Mapped[str] = mapped_column(String(64))
    author: Mapped[str] = mapped_column(String(64), default="")
    created_at: Mapped[float] = mapped_column(Instant)
