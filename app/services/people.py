"""People, their roles and their bearer tokens. A token is shown once and kept as its SHA-256."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, RowMapping, bindparam, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from app.errors import Conflict, InvalidInput, NotAuthenticated, NotFound
from app.ids import fingerprint, secret, ulid
from app.services import audit, roles
from app.services.control import Control
from app.services.roles import Grants
from app.store.db import Store
from app.store.prepared import Query
from app.store.tables import Token, User

users, tokens = User.__table__, Token.__table__

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
    users.c.grants,
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
    grants: Any


_by_token = Query(
    select(
        *(tokens.c[name] for name in ("id", "expires_at", "revoked_at", "used_at")),
        users.c.login,
        users.c.role,
        users.c.grants,
    )
    .join(users, users.c.id == tokens.c.user_id)
    .where(tokens.c.sha256 == bindparam("sha256"), users.c.enabled.is_(True)),
    _Held,
)


@dataclass(frozen=True, slots=True)
class Person:
    """Who asks: the login and what is granted behind a token that holds. `role` is empty where grants say more."""

    login: str
    role: str
    token: str
    grants: Grants

    def may(self, role: str, pack: str | None = None) -> bool:
        """Whether something granted gives `role`; in `pack`, if one is named, else anywhere at all."""
        return roles.may(self.grants, role, pack)

    def may_everywhere(self, role: str) -> bool:
        """Whether something granted gives `role` for every pack and node."""
        return roles.may_everywhere(self.grants, role)

    @property
    def is_scoped(self) -> bool:
        """Whether there is more to this person than a role that holds everywhere."""
        return not self.role

    @property
    def described(self) -> str:
        """The roles in words."""
        return self.role or " and ".join(dict.fromkeys(one.role for one in self.grants)) + " for a part"


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
    with control.store.glance() as connection:
        row = _by_token.first(connection, sha256=fingerprint(token))
    if row is None or row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= now):
        raise _unknown()
    grants = roles.kept(row.role, row.grants)
    if not grants:
        raise _unknown()
    if row.used_at is None or row.used_at < now - _USED_EVERY:
        with control.store.write() as connection:
            connection.execute(update(Token).where(tokens.c.id == row.id).values(used_at=now))
    return Person(row.login, row.role, row.id, grants)


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
                values = _user(FIRST_ADMIN, roles.columns("admin", None), now)
                connection.execute(insert(User), values)
        except IntegrityError:
            # Another process was first. Only PostgreSQL can come here: SQLite has one writer at a time.
            return None
        made = _make_token(connection, FIRST_ADMIN, "first", None, now)
        audit.record(connection, FIRST_ADMIN, "user.bootstrap", FIRST_ADMIN, at=now)
        if keep is not None:
            keep(made.token)
    return made.token


def create_user(
    control: Control, login: str, role: str | None, person: str, *, grants: Sequence[Any] | None = None
) -> RowMapping:
    """A new person, with a role or with grants. Raises InvalidInput, and Conflict where the login is taken."""
    if not LOGIN.fullmatch(login):
        raise InvalidInput(f"{login[:80]!r} is not a login", hint=LOGIN_RULE, code="bad-login")
    given = roles.columns(role, grants)
    with audit.writing(control, person, "user.create", login, _told(given)) as connection:
        try:
            with connection.begin_nested():
                connection.execute(insert(User), _user(login, given, control.clock()))
        except IntegrityError:
            raise Conflict(
                f"there is a user {login} already", hint="create a token for that login", code="user-exists"
            ) from None
        found = _row(connection, login)
    control.scoped.forget()
    return found


def _user(login: str, given: Mapping[str, Any], now: float) -> dict[str, Any]:
    return {"login": login, **given, "created_at": now}


def _told(given: Mapping[str, Any]) -> dict[str, Any]:
    """What the audit trail tells of a role, or of grants."""
    return {"grants": given["grants"]} if given["grants"] else {"role": given["role"]}


@dataclass(frozen=True, slots=True)
class Change:
    """What is to become of a person; None leaves it. Only one of `role` and `grants`."""

    role: str | None = None
    grants: Sequence[Any] | None = None
    enabled: bool | None = None


def change_user(control: Control, login: str, change: Change, person: str) -> RowMapping:
    """Give a person another role or other grants, or switch them on or off: that counts from the next request on.

    Raises InvalidInput, NotFound, and Conflict where no enabled administrator would be left.
    """
    columns: dict[str, Any] = {}
    detail: dict[str, Any] = {}
    if change.role is not None or change.grants is not None:
        columns = roles.columns(change.role, change.grants)
        detail = _told(columns)
    if change.enabled is not None:
        columns["enabled"] = detail["enabled"] = change.enabled
    if not columns:
        raise InvalidInput("nothing is to be changed", hint="give role, grants or enabled", code="bad-change")
    with audit.writing(control, person, "user.change", login, detail) as connection:
        admins = _enabled_admins(connection)
        before = _row(connection, login)
        detail["before"] = {**_told(dict(before)), "enabled": before["enabled"]}
        left = {**before, **columns}
        if admins == [login] and not (left["role"] == "admin" and left["enabled"]):
            raise Conflict(
                f"{login} is the last enabled administrator",
                hint="make somebody else one first",
                code="last-admin",
            )
        connection.execute(update(User).where(users.c.login == login).values(columns))
        found = _row(connection, login)
    control.scoped.forget()
    return found


def _enabled_admins(connection: Connection) -> list[str]:
    """Locked until the transaction ends, so that two of them cannot take the role from each other."""
    query = select(users.c.login).where(users.c.role == "admin", users.c.enabled.is_(True))
    return list(connection.execute(query.order_by(users.c.id).with_for_update()).scalars())


def get_user(connection: Connection, login: str) -> RowMapping:
    """One person. Raises NotFound."""
    return _row(connection, login)


def _row(connection: Connection, login: str) -> RowMapping:
    found = connection.execute(select(users).where(users.c.login == login)).mappings().first()
    if found is None:
        raise NotFound(f"there is no user {login}", hint="list them: `muster user list`", code="unknown-user")
    return found


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


def revoke_token(control: Control, token: str, person: str, *, of: str | None = None) -> None:
    """Revoke a token by its id, at once and for ever; doing it twice changes nothing.

    Raises NotFound; with `of` for those of others than this login too.
    """
    with audit.writing(control, person, "token.revoke", token) as connection:
        known = select(tokens.c.id).join(users, users.c.id == tokens.c.user_id).where(tokens.c.id == token)
        if of is not None:
            known = known.where(users.c.login == of)
        if connection.execute(known).first() is None:
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


def list_tokens(
    connection: Connection, *, limit: int, before: str | None = None, of: str | None = None
) -> list[RowMapping]:
    """Tokens without what they are, the newest first; those of one login only, if `of` names it."""
    query = select(*TOKEN_COLUMNS).join(users, users.c.id == tokens.c.user_id)
    if of is not None:
        query = query.where(users.c.login == of)
    if before is not None:
        query = query.where(tokens.c.id < before)
    return list(connection.execute(query.order_by(tokens.c.id.desc()).limit(limit)).mappings())
