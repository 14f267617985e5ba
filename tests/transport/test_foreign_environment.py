"""What somebody set for another Celery app does nothing to ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from real_fleet import ROOT, Broker
from waiting import wait_until

from app.settings import drop_foreign
from app.store import migrate
from app.store.db import Store
from app.transport import queues
from app.transport.celery_app import make_celery
from app.transport.foreign import Connection, Foreign

NOWHERE = "redis://127.0.0.1:1/9"
FOREIGN = {
    "CELERY_RESULT_BACKEND": NOWHERE,
    "CELERY_BROKER_URL": NOWHERE,
    "CELERY_BROKER_READ_URL": NOWHERE,
    "CELERY_BROKER_WRITE_URL": NOWHERE,
    "CELERY_LOADER": "nowhere:Loader",
}
OURS = "redis://127.0.0.1:6379/3"


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in FOREIGN.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("foreign")
def test_an_app_is_set_to_what_it_was_given() -> None:
    control = make_celery("control", broker_url=OURS, backend_url="redis://127.0.0.1:6379/2", name="c1")
    assert control.conf.broker_url == OURS
    assert {control.connection_for_read().as_uri(), control.connection_for_write().as_uri()} == {
        "redis://:**@127.0.0.1:6379/3"
    }
    assert control.backend.url == "redis://127.0.0.1:6379/2"
    node = make_celery("node", broker_url=OURS, name="n1", queues=["node.n1"])
    assert (node.conf.result_backend, node.backend.as_uri()) == (None, "disabled://")
    control.close()
    node.close()


@pytest.mark.usefixtures("foreign")
def test_an_app_of_others_is_reached_where_its_connection_says() -> None:
    calls = Foreign("")
    app = calls._app(Connection("theirs", OURS))
    assert (app.conf.broker_url, app.backend.as_uri()) == (OURS, "disabled://")
    calls.close()


def test_only_what_is_celerys_and_not_ours_is_dropped() -> None:
    given = {"CELERY_WORKER_QUEUES": "x", "CELERY_BROKER_URL": "y", "MUSTER_NODE": "z", "PATH": "/bin"}
    assert drop_foreign(given) == ["CELERY_WORKER_QUEUES"]
    assert given == {"CELERY_BROKER_URL": "y", "MUSTER_NODE": "z", "PATH": "/bin"}


def test_a_worker_as_typed_among_the_variables_of_another_app(broker: Broker, tmp_path: Path) -> None:
    """It takes from our broker and our queues, and purges none of them."""
    broker.client.flushall()
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    store = Store(f"sqlite:///{data / 'muster.db'}")
    migrate.upgrade(store)
    store.close()
    theirs = {name: value for name, value in FOREIGN.items() if name != "CELERY_BROKER_URL"}
    environment = {
        **os.environ,
        **theirs,
        "CELERY_WORKER_QUEUES": "theirs",
        "CELERY_WORKER_PURGE": "1",
        "RESULT_BACKEND": NOWHERE,
        "REDIS_URL": broker.url,
        "MUSTER_DATA_DIR": str(data),
        "PYTHONPATH": str(ROOT),
    }
    # Waits for a worker: no message of ours, so it goes where what is refused goes.
    broker.client.lpush(queues.RESULTS, b"no message")
    log = tmp_path / "log"
    command = [sys.executable, "-m", "celery", "-A", "workers.control", "worker"]
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: b"not heeded" in log.read_bytes() or process.poll() is not None, "the warning")
        wait_until(lambda: store_has_dead_letter(data) or process.poll() is not None, "the message refused")
        assert process.poll() is None, log.read_text()
    finally:
        process.kill()
        process.wait()
    assert "CELERY_WORKER_PURGE, CELERY_WORKER_QUEUES" in log.read_text()
    assert "127.0.0.1:1" not in log.read_text(), "the log tells no URL, and tried none"


def test_a_worker_refuses_what_celery_takes_for_our_broker(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "BROKER_URL": NOWHERE,
        "MUSTER_DATA_DIR": str(tmp_path),
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "celery", "-A", "workers.beat", "beat"]
    done = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode != 0
    assert "BROKER_URL takes the place of CELERY_BROKER_URL" in done.stderr


def store_has_dead_letter(data: Path) -> bool:
    store = Store(f"sqlite:///{data / 'muster.db'}")
    with store.read() as connection:
        found = connection.exec_driver_sql(
            "SELECT count(*) FROM dead_letters WHERE queue = 'results'"
        ).scalar()
    store.close()
    return bool(found)
