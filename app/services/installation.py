"""This installation: its id, which every order carries, and the control keys."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import insert, select

from app.errors import Conflict, Unavailable
from app.ids import ulid
from app.store.db import Store
from app.store.tables import Installation, table
from app.transport.keys import KeyPair

KEY_FILE = "control.keys"

LEASE = 5.0
"""Seconds that one worker holds the tick; the tick itself is due every second."""

installations = table(Installation)


@dataclass(frozen=True, slots=True)
class Installed:
    """The installation's id and the public control keys that nodes pin."""

    id: str
    public: dict[str, Any]


def key_path(data_dir: str) -> Path:
    return Path(data_dir) / KEY_FILE


def ensure(store: Store, data_dir: str, now: float) -> Installed:
    """Make the key file and the row unless they are there. Raises Conflict if the file is not the row's.

    A control worker calls this at start; the key file must then be on every control machine.
    """
    path = key_path(data_dir)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        known = _row(store)
        if known is not None:
            raise Conflict(
                f"this installation has control keys, but {path} is not here",
                hint=f"copy {KEY_FILE} from the machine where the installation was made",
                code="keys-missing",
            )
        try:
            KeyPair.generate().save(path)
        except Conflict:
            pass  # another process was first: its keys are the ones
    public = KeyPair.load(path).public()
    with store.write() as connection:
        row = connection.execute(select(installations.c.id, installations.c.control_keys)).first()
        if row is None:
            id_ = ulid(now)
            connection.execute(insert(installations).values(id=id_, control_keys=public, created_at=now))
            return Installed(id_, public)
    if row.control_keys != public:
        raise Conflict(
            f"{path} does not hold the keys of this installation",
            hint="put the right key file there; nodes refuse orders that other keys signed",
            code="other-keys",
        )
    return Installed(row.id, public)


def read(store: Store) -> Installed:
    """The installation as the database knows it. Raises Unavailable before `ensure` ran."""
    row = _row(store)
    if row is None:
        raise Unavailable(
            "this installation has not been set up",
            hint="run `muster setup`, or `muster up` on one machine",
        )
    return row


def _row(store: Store) -> Installed | None:
    with store.read() as connection:
        row = connection.execute(select(installations.c.id, installations.c.control_keys)).first()
    return None if row is None else Installed(row.id, dict(row.control_keys))
