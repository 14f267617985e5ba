"""Who may ask, what they asked, and what was refused."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from app.store.tables.root import Base
from app.store.types import Instant, Json


class User(Base):
    """A person. `role` holds everywhere; where `grants` says more, `role` is empty and the grants count."""

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    login: Mapped[str] = mapped_column(String(64), unique=True)
    role: Mapped[str] = mapped_column(String(16), default="viewer")
    grants: Mapped[Any | None] = mapped_column(Json)
    enabled: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[float] = mapped_column(Instant)


class Token(Base):
    """A bearer token, kept as SHA-256 only; it belongs to a user."""

    __tablename__ = "tokens"

    id: Mapped[str] = mapped_column(String(26), primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(64), default="")
    created_at: Mapped[float] = mapped_column(Instant)
    expires_at: Mapped[float | None] = mapped_column(Instant)
    revoked_at: Mapped[float | None] = mapped_column(Instant)
    used_at: Mapped[float | None] = mapped_column(Instant)


class IdempotencyKey(Base):
    """One answer for one key of one person; inserted in the execution's own transaction."""

    __tablename__ = "idempotency_keys"

    person: Mapped[str] = mapped_column(String(64), primary_key=True)
    key: Mapped[str] = mapped_column(String(128), primary_key=True)
    request_digest: Mapped[str] = mapped_column(String(64))
    execution: Mapped[str] = mapped_column(String(26))
    created_at: Mapped[float] = mapped_column(Instant, index=True)


class AuditEntry(Base):
    """Who did what to which thing, with the outcome; refusals too.

    `seq` is its place in the chain and `hash` seals it with all before it; a tick gives both, soon after the writing.
    """

    __tablename__ = "audit_entries"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    at: Mapped[float] = mapped_column(Instant, index=True)
    person: Mapped[str] = mapped_column(String(64))
    action: Mapped[str] = mapped_column(String(64), index=True)
    subject: Mapped[str] = mapped_column(String(255), default="", index=True)
    outcome: Mapped[str] = mapped_column(String(16))
    detail: Mapped[Any] = mapped_column(Json, default=dict)
    seq: Mapped[int | None] = mapped_column(BigInteger, unique=True)
    hash: Mapped[str] = mapped_column(String(64), default="")


class AuditChain(Base):
    """One row: the newest sealed entry, and the anchor: the last one that was pruned from the front (0 for none)."""

    __tablename__ = "audit_chain"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    seq: Mapped[int] = mapped_column(BigInteger, default=0)
    hash: Mapped[str] = mapped_column(String(64), default="")
    anchor_seq: Mapped[int] = mapped_column(BigInteger, default=0)
    anchor_hash: Mapped[str] = mapped_column(String(64), default="")
    noted_at: Mapped[float | None] = mapped_column(Instant)


class DeadLetter(Base):
    """A message that was refused before it could do anything, by kind; the item itself is cut to 2 kB."""

    __tablename__ = "dead_letters"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    at: Mapped[float] = mapped_column(Instant, index=True)
    queue: Mapped[str] = mapped_column(String(128))
    reason: Mapped[str] = mapped_column(String(64))
    worker: Mapped[str] = mapped_column(String(128), default="")
    item: Mapped[str] = mapped_column(Text, default="")
