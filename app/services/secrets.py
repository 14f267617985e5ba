"""Secrets: set, listed and deleted. There is no way to read a value back: it goes to jobs only (`services.vault`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from app.errors import Conflict, InvalidInput, NotFound
from app.marks import SECRET
from app.masking import LEAST
from app.services import audit
from app.services.control import Control
from app.services.people import LOGIN, LOGIN_RULE
from app.services.roles import ROLES
from app.store.tables import Secret, table

secrets = table(Secret)

MOST_BYTES = 32_768
MOST_LINES = 400
"""Each line is looked for in what a job writes, so there are not too many."""
MOST_USERS = 200

_SHOWN = ("name", "version", "users", "updated_by", "created_at", "updated_at")


def about(name: str) -> str:
    """What a secret's value is encrypted with, so that no row can be put under another name."""
    return f"{SECRET}:{name}"


def check_value(value: str, what: str) -> None:
    """Raises InvalidInput for what cannot be a secret. The message never holds the value."""
    size = len(value.encode("utf-8", "surrogateescape"))
    wrong = ""
    if not value:
        wrong = "is empty"
    elif "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        wrong = "holds a character that no environment takes (NUL, or half of a surrogate pair)"
    elif size > MOST_BYTES:
        wrong = f"has {size} bytes, {MOST_BYTES} are the most"
    elif value.count("\n") >= MOST_LINES:
        wrong = f"has more than {MOST_LINES} lines"
    if wrong:
        raise InvalidInput(f"{what} {wrong}", hint="a secret is a text", code="bad-secret")


def warnings_of(value: str) -> list[str]:
    """What whoever sets this value should know."""
    if len(value.encode()) < LEAST:
        return [f"a value of less than {LEAST} bytes is not masked in output"]
    return []


def put(control: Control, name: str, value: str, users: Sequence[str], person: str) -> RowMapping:
    """Keep a secret. Who may use it is always said together with a new value.

    Raises InvalidInput, and Unavailable where there are no keys.
    """
    check_value(value, "the value")
    _check_users(users)
    sealed = control.keyring.current(control.settings).seal(about(name), value)
    now = control.clock()
    told = {"users": list(users)}
    with audit.writing(control, person, "secret.put", name, told) as connection:
        query = select(secrets.c.version).where(secrets.c.name == name).with_for_update()
        version = connection.execute(query).scalar()
        written: dict[str, Any] = {
            "ciphertext": sealed.ciphertext,
            "key_id": sealed.key_id,
            "version": (version or 0) + 1,
            "users": list(users),
            "updated_by": person,
            "updated_at": now,
        }
        if version is not None:
            connection.execute(update(Secret).where(secrets.c.name == name).values(written))
        else:
            try:
                connection.execute(insert(Secret).values(name=name, created_at=now, **written))
            except IntegrityError:
                raise Conflict(f"{name} was set by somebody else just now", hint="try again") from None
        return _shown(connection, name)


def _check_users(users: Sequence[str]) -> None:
    if len(users) > MOST_USERS:
        raise InvalidInput(f"{len(users)} users, {MOST_USERS} are the most", hint="name a role")
    for user in users:
        if not LOGIN.fullmatch(user):
            hint = f"a login ({LOGIN_RULE}) or a role ({', '.join(ROLES)})"
            raise InvalidInput(f"{user[:80]!r} is no user", hint=hint, code="bad-login")


def _shown(connection: Connection, name: str) -> RowMapping:
    query = select(*(secrets.c[column] for column in _SHOWN)).where(secrets.c.name == name)
    found = connection.execute(query).mappings().first()
    if found is None:
        raise NotFound(
            f"there is no secret {name}", hint="list them: `muster secret list`", code="unknown-secret"
        )
    return found


def list_secrets(connection: Connection, *, limit: int, after: str | None = None) -> list[RowMapping]:
    """Secrets by name, those behind `after`; never their values."""
    query = select(*(secrets.c[column] for column in _SHOWN)).order_by(secrets.c.name)
    if after is not None:
        query = query.where(secrets.c.name > after)
    return list(connection.execute(query.limit(limit)).mappings())


def remove(control: Control, name: str, person: str) -> None:
    """Jobs that name it fail from now on. Raises NotFound."""
    with audit.writing(control, person, "secret.delete", name) as connection:
        _shown(connection, name)
        connection.execute(delete(Secret).where(secrets.c.name == name))
