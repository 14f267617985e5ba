"""Rotation of the keys for secrets under kill -9: a real process, killed while it works, as often as it takes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import func, insert, select
from waiting import wait_until

from app.services import keyring, rotation, secrets, vault
from app.services.control import Control
from app.settings import Settings
from app.store import migrate
from app.store.db import Store
from app.store.tables import Secret, table

ROWS = 3000
SECRET = table(Secret)


@pytest.fixture
def control(tmp_path: Path) -> Control:
    settings = Settings(data_dir=str(tmp_path))
    store = Store(settings.database)
    migrate.upgrade(store)
    made = Control(settings, store)
    rotation.ensure(made)
    keys = keyring.read(settings)
    rows = []
    for number in range(ROWS):
        name = f"s/{number:04}"
        sealed = keys.seal(secrets.about(name), f"value of {number}")
        row = {"name": name, "ciphertext": sealed.ciphertext, "key_id": sealed.key_id, "version": 1}
        rows.append({**row, "users": [], "updated_by": "ada", "created_at": 1.0, "updated_at": 1.0})
    with store.write() as connection:
        connection.execute(insert(Secret), rows)
    return made


def rotated(control: Control, first: str) -> int:
    """How many rows are no longer encrypted with the key that was first."""
    query = select(func.count()).where(SECRET.c.key_id != first)
    with control.store.read() as connection:
        return int(connection.execute(query).scalar_one())


def start(control: Control) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MUSTER_")}
    environment["MUSTER_DATA_DIR"] = control.settings.data_dir
    command = [sys.executable, "-m", "app.cli.main", "secret", "rotate"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_rotation_that_is_killed_is_completed_by_the_next(control: Control) -> None:
    before = keyring.read(control.settings)
    done = kills = 0
    for goal in (1, ROWS // 4, ROWS // 2):
        running = start(control)
        wait_until(
            lambda at=goal, one=running: one.poll() is not None or rotated(control, before.ids[0]) >= at,
            "its progress",
        )
        running.send_signal(signal.SIGKILL)
        running.communicate()
        kills += running.returncode == -signal.SIGKILL
        done = rotated(control, before.ids[0])
        assert done >= goal
    assert kills
    running = start(control)
    out, errors = running.communicate(timeout=120)
    assert running.returncode == 0, errors
    assert before.ids[0].encode() in out
    keys = keyring.read(control.settings)
    assert keys.texts[-1:] == before.texts
    # One that came to its end before it was killed lets the next one begin with another key.
    assert len(keys.texts) == 2 or kills < 3
    first = keyring.Keys(keys.texts[:1], "")
    with control.store.read() as connection:
        rows = list(connection.execute(select(SECRET.c.name, SECRET.c.ciphertext)))
    assert len(rows) == ROWS
    for row in rows:
        assert first.open(secrets.about(row.name), row.ciphertext) == f"value of {int(row.name[2:])}"
    assert vault.about_parameter("e", "p") != secrets.about("p")
    control.store.close()


def test_of_many_that_add_a_key_at_once_none_loses_anothers(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    keyring.make(path)
    with ThreadPoolExecutor(8) as pool:
        added = [one.texts[0] for one in pool.map(lambda _: keyring.add(path), range(16))]
    assert set(added) < set(path.read_text().split())
