"""Another key for secrets: every row is encrypted anew with the first one. If it is stopped, run it again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, func, select, update

from app.errors import Conflict
from app.services import audit, keyring, secrets, vault
from app.services.control import Control
from app.services.keyring import Keys
from app.store.tables import Secret, SecretParameter, table

AT_ONCE = 100
"""Rows that are encrypted in one transaction."""

_secrets, _parameters = table(Secret), table(SecretParameter)


@dataclass(slots=True)
class Rotated:
    """What was done. `key` names the first key now, `idle` those that nothing is encrypted with any more.

    `unreadable` are rows that no key of the list opens, `left` those and what was written with another key meanwhile.
    """

    key: str
    added: bool = False
    rows: int = 0
    idle: list[str] = field(default_factory=list)
    unreadable: int = 0
    left: int = 0


def ensure(control: Control) -> None:
    """Make the file of keys unless there is one, or the environment has them.

    Raises Conflict where there are secrets already: then the right file is somewhere else.
    """
    settings = control.settings
    if settings.secret_keys or settings.secret_keys_path.exists():
        return
    with control.store.read() as connection:
        known = _behind(connection, _secrets, "") + _behind(connection, _parameters, "")
    if known:
        raise Conflict(
            f"there are secrets, but {settings.secret_keys_path} is not here",
            hint="copy it from the machine where it was made, or from a backup",
            code="no-secret-keys",
        )
    keyring.make(settings.secret_keys_path)


def rotate(control: Control, person: str) -> Rotated:
    """Add a first key, unless an earlier rotation is not complete, and encrypt every row with it.

    Raises Unavailable where there are no keys; Conflict where a key cannot be added here.
    """
    keys = control.keyring.current(control.settings)
    done = Rotated(keys.ids[0])
    if not _left(control, keys):
        keys, done.added = _with_another(control), True
        done.key = keys.ids[0]
        with control.store.write() as connection:
            detail = {"key": done.key}
            audit.record(connection, person, "secret.rotate", "", audit.ACCEPTED, detail, at=control.clock())
    for rows, about, order in (
        (_secrets, lambda row: secrets.about(row.name), (_secrets.c.name,)),
        (
            _parameters,
            lambda row: vault.about_parameter(row.execution, row.name),
            (_parameters.c.execution, _parameters.c.name),
        ),
    ):
        _table(control, keys, done, rows, about, order)
    done.left = _left(control, keys)
    done.idle = [] if done.left else keys.ids[1:]
    return done


def _with_another(control: Control) -> Keys:
    settings = control.settings
    if settings.secret_keys:
        raise Conflict(
            "MUSTER_SECRET_KEYS is not ours to change, and everything is encrypted with its first key",
            hint="put a new key in front of it everywhere, then run this again",
            code="keys-from-environment",
        )
    return keyring.add(settings.secret_keys_path)


def _left(control: Control, keys: Keys) -> int:
    with control.store.read() as connection:
        return _behind(connection, _secrets, keys.ids[0]) + _behind(connection, _parameters, keys.ids[0])


def _behind(connection: Connection, rows: Any, first: str) -> int:
    query = select(func.count()).select_from(rows).where(rows.c.ciphertext != "", rows.c.key_id != first)
    return int(connection.execute(query).scalar_one())


def _table(
    control: Control,
    keys: Keys,
    done: Rotated,
    rows: Any,
    about: Callable[[Any], str],
    order: tuple[Any, ...],
) -> None:
    """Every row of a table, in the order of its key, so many at once."""
    after: tuple[Any, ...] | None = None
    while True:
        query = select(rows).where(rows.c.ciphertext != "", rows.c.key_id != keys.ids[0])
        if after is not None:
            query = query.where(_behind_place(order, after))
        with control.store.write() as connection:
            found = list(connection.execute(query.order_by(*order).limit(AT_ONCE).with_for_update()))
            for row in found:
                value = keys.open(about(row), row.ciphertext)
                if value is None:
                    done.unreadable += 1
                    continue
                sealed = keys.seal(about(row), value)
                mine = [column == row._mapping[column.name] for column in order]
                written = {"ciphertext": sealed.ciphertext, "key_id": sealed.key_id}
                connection.execute(update(rows).where(*mine).values(written))
                done.rows += 1
        if len(found) < AT_ONCE:
            return
        after = tuple(found[-1]._mapping[column.name] for column in order)


def _behind_place(order: tuple[Any, ...], after: tuple[Any, ...]) -> Any:
    """Of a key of one or two columns: what comes behind a place."""
    if len(order) == 1:
        return order[0] > after[0]
    return (order[0] > after[0]) | ((order[0] == after[0]) & (order[1] > after[1]))
