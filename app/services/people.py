"""People, their roles and their bearer tokens. A token is shown once and kept as its SHA-256."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, RowMapping, bindparam, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from app.errors import Conflict, InvalidInput, NotAuthenticated, NotFound
from app.ids import fingerprint, secret, ulid
from app.services import audit
from app.services.control import Control
from app.store.db import Store
from app.store.prepared import Query
from app.store.tables import Token, User

users, tokens = User.__table__, Token.__table__

ROLES = ("viewer", "operator", "author", "admin")
"""Each may do what those before it may."""

LOGIN = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")
LOGIN_RULE = "lower-case letters, digits and `._@-`, starting with a letter or digit, 64 at the most"
FIRST_ADMIN = "admin"
TOKEN_PREFIX = "mst"
LONGEST_LIFE = 10 * 365 * 86400.0
"""Seconds that a token may live at the most; one without an end lives until it is revoked."""

_TOKEN = re.compile(rf"{TOKEN_PREFIX}_[A-Za-z0-9_-]{{43}}")
_USED_EVERY = 60.0

TOKEN_COLUMNS = (
    tokens.c.id,
    users.c.login,
    users.c.role,
    tokens.c.name,
    tokens.c.created_at,
    tokens.c.expires_at,
    tokens.c.used_at,
    tokens.c.revoked_at,
)


class _Held(NamedTuple):
    """What a token's row says, and that of its person."""

    id: str
    expires_at: float | None
    revoked_at: float | None
    used_at: float | None
    login: str
    role: str


_by_token = Query(
    select(
        *(tokens.c[name] for name in ("id", "expires_at", "revoked_at", "used_at")),
        users.c.login,
        users.c.role,
    )
    .join(users, users.c.id == tokens.c.user_id)
    .where(tokens.c.sha256 == bindparam("sha256"), users.c.enabled.is_(True)),
    _Held,
)


@dataclass(frozen=True, slots=True)
class Person:
    """Who asks: the login and role behind a token that holds."""

    login: str
    role: str
    token: str

    def may(self, role: str) -> bool:
        """Whether this person's role is `role` or more."""
        return ROLES.index(self.role) >= ROLES.index(role)


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token as it is shown once; `row` is what stays."""

    token: str
    row: RowMapping


def authenticate(control: Control, token: str) -> Person:
    """The person behind a bearer token. Raises NotAuthenticated, with the same words whatever was wrong."""
    if not _TOKEN.fullmatch(token):
        raise _unknown()
    now = control.clock()
    with control.store.read() as connection:
        row = _by_token.first(connection, sha256=fingerprint(token))
    if row is None or row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= now):
        raise _unknown()
    if row.role not in ROLES:
        raise _unknown()
    if row.used_at is None or row.used_at < now - _USED_EVERY:
        with control.store.write() as connection:
            connection.execute(update(Token).where(tokens.c.id == row.id).values(used_at=now))
    return Person(row.login, row.role, row.id)


def _unknown() -> NotAuthenticated:
    return NotAuthenticated(
        "the token is not valid, or not any more",
        hint="ask an administrator for a token and send `Authorization: Bearer <token>`",
        code="bad-token",
    )


def bootstrap_admin(store: Store, now: float, keep: Callable[[str], None] | None = None) -> str | None:
    """The token of the first administrator, made with the person; None where there are people already.

    `keep` is called with the token before it holds: if it raises, there is no administrator either.
    """
    with store.write() as connection:
        if connection.execute(select(func.count()).select_from(users)).scalar_one():
            return None
        try:
            with connection.begin_nested():
                connection.execute(insert(User), _user(FIRST_ADMIN, "admin", now))
        except IntegrityError:
            # Another process was first. Only PostgreSQL can come here: SQLite has one writer at a time.
            return None
        made = _make_token(connection, FIRST_ADMIN, "first", None, now)
        audit.record(connection, FIRST_ADMIN, "user.bootstrap", FIRST_ADMIN, at=now)
        if keep is not None:
            keep(made.token)
    return made.token


def create_user(control: Control, login: str, role: str, person: str) -> RowMapping:
    """A new person. Raises InvalidInput, and Conflict where the login is taken."""
    if not LOGIN.fullmatch(login):
        raise InvalidInput(f"{login[:80]!r} is not a login", hint=LOGIN_RULE, code="bad-login")
    if role not in ROLES:
        raise InvalidInput(f"role must be one of {', '.join(ROLES)}", code="bad-role")
    with audit.writing(control, person, "user.create", login, {"role": role}) as connection:
        try:
            with connection.begin_nested():
                connection.execute(insert(User), _user(login, role, control.clock()))
        except IntegrityError:
            raise Conflict(
                f"there is a user {login} already", hint="create a token for that login", code="user-exists"
            ) from None
        return connection.execute(select(users).where(users.c.login == login)).mappings().one()


def _user(login: str, role: str, now: float) -> dict[str, Any]:
    return {"login": login, "role": role, "created_at": now}


def create_token(control: Control, login: str, name: str, expires_in: float | None, person: str) -> NewToken:
    """A token for a person; `expires_in` is seconds, None for no end.

    Raises InvalidInput, and NotFound where there is no such person.
    """
    if expires_in is not None and not 1 <= expires_in <= LONGEST_LIFE:
        raise InvalidInput(
            f"expires_in must be 1 to {LONGEST_LIFE:g} seconds",
            hint="leave it out for no end",
            code="bad-lifetime",
        )
    with audit.writing(control, person, "token.create", login, {"name": name}) as connection:
        return _make_token(connection, login, name, expires_in, control.clock())


def _make_token(
    connection: Connection, login: str, name: str, expires_in: float | None, now: float
) -> NewToken:
    user = connection.execute(
        select(users.c.id).where(users.c.login == login, users.c.enabled.is_(True))
    ).scalar()
    if user is None:
        raise NotFound(f"there is no user {login!r}", hint="create the user first", code="unknown-user")
    token, id_ = secret(TOKEN_PREFIX), ulid(now)
    values = {
        "id": id_,
        "sha256": fingerprint(token),
        "user_id": user,
        "name": name,
        "created_at": now,
        "expires_at": None if expires_in is None else now + expires_in,
    }
    connection.execute(insert(Token), values)
    query = select(*TOKEN_COLUMNS).join(users, users.c.id == tokens.c.user_id).where(tokens.c.id == id_)
    return NewToken(token, connection.execute(query).mappings().one())


def revoke_token(control: Control, token: str, person: str) -> None:
    """Revoke a token by its id, at once and for ever; doing it twice changes nothing. Raises NotFound."""
    with audit.writing(control, person, "token.revoke", token) as connection:
        if connection.execute(select(tokens.c.id).where(tokens.c.id == token)).first() is None:
            raise NotFound(
                f"there is no token {token}", hint="list them: `muster token list`", code="unknown-token"
            )
        connection.execute(
            update(Token)
            .where(tokens.c.id == token, tokens.c.revoked_at.is_(None))
            .values(revoked_at=control.clock())
        )


def list_users(connection: Connection) -> list[RowMapping]:
    """Everybody, by login."""
    return list(connection.execute(select(users).order_by(users.c.login)).mappings())


def list_tokens(connection: Connection, *, limit: int, before: str | None = None) -> list[RowMapping]:
    """Tokens without what they are, the newest first."""
    query = select(*TOKEN_COLUMNS).join(users, users.c.id == tokens.c.user_id)
    if before is not None:
        query = query.where(tokens.c.id < before)
    return list(connection.execute(query.order_by(tokens.c.id.desc()).limit(limit)).mappings())
