"""One-time tokens as rows: which may still be used, and which machine used one. `fleet` makes and spends them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, and_, select

from app.ids import fingerprint
from app.services.control import Control
from app.store.tables import EnrolmentToken, Node

nodes, enrolments = Node.__table__, EnrolmentToken.__table__


def unused(connection: Connection, token: str, node: str, now: float) -> Any:
    """The row of a token that may make a machine this node; None if it may not, or not any more."""
    query = select(enrolments).where(
        enrolments.c.sha256 == fingerprint(token),
        enrolments.c.node == node,
        enrolments.c.used_at.is_(None),
        enrolments.c.expires_at > now,
    )
    return connection.execute(query).first()


def used_by(connection: Connection, token: str, node: str, now: float) -> str | None:
    """The `kid` of the machine that a token made this node, while it is that node and the token has not expired."""
    same = and_(enrolments.c.node == nodes.c.name, enrolments.c.used_at == nodes.c.enrolled_at)
    query = (
        select(nodes.c.sign_kid)
        .join(enrolments, same)
        .where(
            enrolments.c.sha256 == fingerprint(token),
            enrolments.c.expires_at > now,
            nodes.c.name == node,
            nodes.c.state != "removed",
        )
    )
    kid: str | None = connection.execute(query).scalar()
    return kid


def valid_until(control: Control, token: str, node: str) -> float | None:
    """Until when a token may make a machine this node, in Unix seconds; None if it may not."""
    with control.store.read() as connection:
        row = unused(connection, token, node, control.clock())
    return None if row is None else float(row.expires_at)
