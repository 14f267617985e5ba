"""Directories of SSH nodes: keys that the row has too, once, whoever else tries and wherever a gateway is killed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import insert, update
from waiting import PATIENCE

from app.errors import Conflict
from app.gateway.gateway import Gateway, Watch
from app.gateway.home import DIRECTORY, Home
from app.gateway.lane import Lane
from app.node.identity import load_identity
from app.services import installation, ssh_nodes
from app.services.control import Control
from app.services.ssh_nodes import SshNode
from app.settings import Settings
from app.store import migrate
from app.store.db import Store
from app.store.tables import Node, table
from app.transport.celery_app import make_celery

nodes = table(Node)
NAME = "far-1"


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    settings = Settings(data_dir=str(tmp_path))
    store = Store(settings.database)
    migrate.upgrade(store)
    installation.ensure(store, settings.data_dir, time.time())
    values = {"name": NAME, "transport": "ssh", "public_keys": {}, "sign_kid": "", "enrolled_at": time.time()}
    with store.write() as connection:
        connection.execute(insert(nodes).values(values))
    yield Control(settings, store)
    store.close()


@pytest.fixture
def home(control: Control) -> Home:
    return Home(control, installation.read(control.store))


def row(control: Control) -> SshNode:
    with control.store.read() as connection:
        (found,) = ssh_nodes.known(connection)
    return found


def reset(control: Control) -> None:
    """As when the node is added anew, at another place."""
    with control.store.write() as connection:
        connection.execute(update(nodes).values(public_keys={}, sign_kid=""))


def test_keys_are_made_once_and_the_row_has_them(control: Control, home: Home) -> None:
    directory = home.prepare(row(control))
    identity = load_identity(directory)
    assert (identity.node, identity.keys.kid) == (NAME, row(control).sign_kid)
    assert identity.installation == installation.read(control.store).id
    assert directory.stat().st_mode & 0o777 == 0o700
    (directory / "journal.db").touch()
    assert home.prepare(row(control)) == directory
    assert load_identity(directory).keys.kid == identity.keys.kid
    assert (directory / "journal.db").exists()


def test_a_node_that_was_added_anew_begins_with_nothing(control: Control, home: Home) -> None:
    first = home.prepare(row(control))
    before = load_identity(first).keys.kid
    (first / "journal.db").touch()
    reset(control)
    home.prepare(row(control))
    assert load_identity(first).keys.kid == row(control).sign_kid != before
    assert not (first / "journal.db").exists()


def test_another_gateway_gets_nothing_and_breaks_nothing(
    control: Control, home: Home, tmp_path: Path
) -> None:
    stale = row(control)
    directory = home.prepare(stale)
    kid = load_identity(directory).keys.kid
    other = Home(
        Control(Settings(data_dir=str(tmp_path / "other")), control.store), installation.read(control.store)
    )
    for gateway, seen in ((other, row(control)), (other, stale), (home, stale)):
        with pytest.raises(Conflict) as refused:
            gateway.prepare(seen)
        assert refused.value.code == "other-gateway"
    assert load_identity(directory).keys.kid == kid == row(control).sign_kid
    assert [path.name for path in directory.parent.iterdir()] == [NAME]
    assert home.prepare(row(control)) == directory


def test_a_gateway_that_was_killed_between_row_and_directory_goes_on(control: Control, home: Home) -> None:
    directory = home.prepare(row(control))
    kid = row(control).sign_kid
    directory.rename(directory.with_name(f"{NAME}.new"))
    assert load_identity(home.prepare(row(control))).keys.kid == kid


def test_nothing_is_left_of_a_node_that_is_forgotten(control: Control, home: Home, tmp_path: Path) -> None:
    home.prepare(row(control))
    home.forget(NAME)
    home.forget(NAME)
    assert list((tmp_path / DIRECTORY).iterdir()) == []
    with pytest.raises(Conflict):
        home.prepare(row(control))


def test_a_node_is_nobodys_before_all_of_it_is_forgotten(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    monkeypatch.setattr(Home, "forget", lambda *_: seen.append(NAME in gateway._watches))
    app = make_celery("sender", broker_url="redis://127.0.0.1:1/0", name="gateway")
    gateway = Gateway(control, installation.read(control.store), app)
    watch = gateway._watches[NAME] = Watch(NAME, busy=True)
    gateway._see_to(watch, replace(row(control), is_removed=True))
    assert (seen, gateway._watches) == ([True], {})
    gateway.close()


def test_a_lane_does_so_much_at_once_and_has_so_much_wait() -> None:
    gate, began, done = threading.Event(), threading.Semaphore(0), threading.Semaphore(0)

    def work() -> None:
        began.release()
        gate.wait(PATIENCE)
        done.release()

    lane = Lane("test", 2, 3)
    assert [lane.put(work) for _ in range(7)] == [True] * 5 + [False] * 2
    assert began.acquire(timeout=5)
    assert began.acquire(timeout=5)
    assert not began.acquire(timeout=0.05)
    gate.set()
    for _ in range(5):
        assert done.acquire(timeout=5)
    assert lane.put(work)
    lane.close()
    assert not lane.put(work)
