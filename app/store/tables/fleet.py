"""The machines, and this installation itself."""

from __future__ import annotations

from typing import Any

from sqlalchemy import CheckConstraint, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from app.store.tables.root import Base
from app.store.types import Instant, Json


class Installation(Base):
    """One row: the id that orders carry, so that a restored database cannot be mistaken for another."""

    __tablename__ = "installation"

    id: Mapped[str] = mapped_column(String(26), primary_key=True)
    control_keys: Mapped[Any] = mapped_column(Json)
    created_at: Mapped[float] = mapped_column(Instant)
    tick_holder: Mapped[str] = mapped_column(String(64), default="")
    tick_until: Mapped[float | None] = mapped_column(Instant)
    tick_since: Mapped[float | None] = mapped_column(Instant)
    pruned_at: Mapped[float | None] = mapped_column(Instant)
    swept_at: Mapped[float | None] = mapped_column(Instant)


class Node(Base):
    """A machine. `state` is what an operator said; whether it is online follows from `last_seen`.

    `epoch` is that of its journal, `left_epochs` are those of journals that it had before.

    A node with the transport `ssh` has no keys until the gateway has made them. `ssh` says how it is reached (user,
    host, port, key, which is the name of a secret, backend, workdir, slots), `host_key` is the host key that somebody
    trusted and `offered_key` the one that was last seen, each as OpenSSH writes it; `breaker` is the gateway's word on
    its connection: state, failures, until, error.
    """

    __tablename__ = "nodes"
    __table_args__ = (CheckConstraint("state IN ('active', 'draining', 'removed')", name="state"),)

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    transport: Mapped[str] = mapped_column(String(8), default="worker")
    state: Mapped[str] = mapped_column(String(16), default="active")
    labels: Mapped[Any] = mapped_column(Json, default=dict)
    address: Mapped[str] = mapped_column(String(255), default="")
    public_keys: Mapped[Any] = mapped_column(Json)
    sign_kid: Mapped[str] = mapped_column(String(64), index=True)
    epoch: Mapped[str] = mapped_column(String(64), default="")
    left_epochs: Mapped[Any] = mapped_column(Json, default=list)
    sequence: Mapped[int] = mapped_column(default=0)
    slots: Mapped[int] = mapped_column(default=0)
    free: Mapped[int] = mapped_column(default=0)
    shells: Mapped[Any] = mapped_column(Json, default=list)
    versions: Mapped[Any] = mapped_column(Json, default=dict)
    last_seen: Mapped[float | None] = mapped_column(Instant)
    heard_at: Mapped[float | None] = mapped_column(Instant)
    enrolled_at: Mapped[float] = mapped_column(Instant)
    enrolled_by: Mapped[str] = mapped_column(String(64), default="")
    ssh: Mapped[Any] = mapped_column(Json, default=dict)
    host_key: Mapped[str] = mapped_column(Text, default="")
    offered_key: Mapped[str] = mapped_column(Text, default="")
    breaker: Mapped[Any] = mapped_column(Json, default=dict)


class EnrolmentToken(Base):
    """A one-time token for one node name, kept as SHA-256."""

    __tablename__ = "enrolment_tokens"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    node: Mapped[str] = mapped_column(String(64))
    labels: Mapped[Any] = mapped_column(Json, default=dict)
    replaces: Mapped[bool] = mapped_column(default=False)
    created_by: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[float] = mapped_column(Instant)
    expires_at: Mapped[float] = mapped_column(Instant)
    used_at: Mapped[float | None] = mapped_column(Instant)
    note: Mapped[str] = mapped_column(Text, default="")
