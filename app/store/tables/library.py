"""What is kept to be run: packs, workflow definitions with their versions, compiled plans."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.store.tables.root import Base
from app.store.types import Instant, Json


class Pack(Base):
    """A pack by its name. `revision` counts its registrations that changed something; 0: none was ever registered.

    `config_schema` are the keys of its configuration as config.yaml declares them, `config` the values that were set.
    """

    __tablename__ = "packs"

    id: Mapped[int] = mapped_column(primary_key=True)
    ref: Mapped[str] = mapped_column(String(64), unique=True)
    label: Mapped[str] = mapped_column(String(255), default="")
    description: Mapped[str] = mapped_column(Text, default="")
    version: Mapped[str] = mapped_column(String(50), default="")
    author: Mapped[str] = mapped_column(String(255), default="")
    tags: Mapped[Any] = mapped_column(Json, default=list)
    revision: Mapped[int] = mapped_column(default=0)
    config_schema: Mapped[Any] = mapped_column(Json, nullable=True)
    config: Mapped[Any] = mapped_column(Json, default=dict)
    created_at: Mapped[float] = mapped_column(Instant)
    updated_at: Mapped[float] = mapped_column(Instant)


class PackFile(Base):
    """One file of a registered pack, as it was registered last."""

    __tablename__ = "pack_files"

    pack_id: Mapped[int] = mapped_column(ForeignKey("packs.id", ondelete="CASCADE"), primary_key=True)
    path: Mapped[str] = mapped_column(String(200), primary_key=True)
    bytes: Mapped[int]
    sha256: Mapped[str] = mapped_column(String(64))
    content: Mapped[str] = mapped_column(Text)


class PackAction(Base):
    """An action of a pack as it is now; plans hold it as it was. `digest` is over what it does, `body` is all of it."""

    __tablename__ = "pack_actions"

    id: Mapped[int] = mapped_column(primary_key=True)
    ref: Mapped[str] = mapped_column(String(129), unique=True)
    pack_id: Mapped[int] = mapped_column(ForeignKey("packs.id", ondelete="CASCADE"), index=True)
    revision: Mapped[int]
    digest: Mapped[str] = mapped_column(String(64))
    body: Mapped[Any] = mapped_column(Json)
    enabled: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[float] = mapped_column(Instant)
    updated_at: Mapped[float] = mapped_column(Instant)


class WorkflowDefinition(Base):
    """A workflow by its reference; what it says is in its versions. `registered`: it came with its pack's folder."""

    __tablename__ = "workflow_definitions"

    id: Mapped[int] = mapped_column(primary_key=True)
    ref: Mapped[str] = mapped_column(String(129), unique=True)
    pack_id: Mapped[int] = mapped_column(ForeignKey("packs.id", ondelete="CASCADE"), index=True)
    pack_ref: Mapped[str] = mapped_column(String(64))
    label: Mapped[str] = mapped_column(String(255), default="")
    description: Mapped[str] = mapped_column(Text, default="")
    version: Mapped[str] = mapped_column(String(50), default="1")
    revision: Mapped[int] = mapped_column(default=1)
    tags: Mapped[Any] = mapped_column(Json, default=list)
    param_schema: Mapped[Any] = mapped_column(Json, default=list)
    out_schema: Mapped[Any] = mapped_column(Json, nullable=True)
    enabled: Mapped[bool] = mapped_column(default=True)
    registered: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[float] = mapped_column(Instant)
    updated_at: Mapped[float] = mapped_column(Instant)


class WorkflowVersion(Base):
    """One immutable snapshot; `revision` counts from 1 and never goes back."""

    __tablename__ = "workflow_versions"
    __table_args__ = (UniqueConstraint("workflow_id", "revision"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    workflow_id: Mapped[int] = mapped_column(ForeignKey("workflow_definitions.id", ondelete="CASCADE"))
    revision: Mapped[int]
    version: Mapped[str] = mapped_column(String(50))
    source: Mapped[str] = mapped_column(Text)
    plan_digest: Mapped[str] = mapped_column(ForeignKey("plans.digest"))
    author: Mapped[str] = mapped_column(String(64), default="")
    created_at: Mapped[float] = mapped_column(Instant)


class StoredPlan(Base):
    """A compiled plan by the digest of its text; executions of one definition share one row."""

    __tablename__ = "plans"
    __table_args__ = (Index("ix_plans_used_at", "used_at"),)

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    plan_version: Mapped[int]
    body: Mapped[str] = mapped_column(Text)
    source: Mapped[str] = mapped_column(Text, default="")
    used_at: Mapped[float] = mapped_column(Instant)
