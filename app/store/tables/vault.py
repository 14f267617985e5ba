"""What workflows read while they run: values under keys, and secrets."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ForeignKey, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from app.store.tables.root import Base
from app.store.types import Instant, Json


class KeyValue(Base):
    """A JSON value under a key. It is not there any more from `expires_at` on."""

    __tablename__ = "kv"

    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    value: Mapped[Any] = mapped_column(Json, nullable=True)
    revision: Mapped[int] = mapped_column(default=1)
    updated_by: Mapped[str] = mapped_column(String(64))
    updated_at: Mapped[float] = mapped_column(Instant)
    expires_at: Mapped[float | None] = mapped_column(Instant, index=True)


class Secret(Base):
    """A secret, encrypted with the key that `key_id` names. `users`: logins and roles; empty: every operator."""

    __tablename__ = "secrets"

    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    ciphertext: Mapped[str] = mapped_column(Text)
    key_id: Mapped[str] = mapped_column(String(16), index=True)
    version: Mapped[int] = mapped_column(default=1)
    users: Mapped[Any] = mapped_column(Json, default=list)
    updated_by: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[float] = mapped_column(Instant)
    updated_at: Mapped[float] = mapped_column(Instant)


class SecretParameter(Base):
    """The value of a secret parameter of one execution, encrypted; or the name of the secret that it stands for."""

    __tablename__ = "secret_parameters"

    execution: Mapped[str] = mapped_column(ForeignKey("executions.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    ciphertext: Mapped[str] = mapped_column(Text, default="")
    key_id: Mapped[str] = mapped_column(String(16), default="", index=True)
    secret: Mapped[str] = mapped_column(String(255), default="")
