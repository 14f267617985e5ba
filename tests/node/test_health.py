"""How a node is, as somebody beside its worker sees it: a real runner, a real journal, a Redis that is not there."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from app.node import health, pulse
from app.node.health import Doctor
from app.node.journal import Journal
from app.node.pulse import Pulse
from app.node.runner_client import RunnerClient
from app.settings import Settings


def doctor_of(directory: Path) -> Doctor:
    url = f"redis+socket://{directory}/redis.sock"
    return Doctor(Settings(node="web-1", node_dir=str(directory), redis_url=url, heartbeat_every=1.0))


def test_a_node_that_never_was_fails_in_everything(tmp_path: Path) -> None:
    found = doctor_of(tmp_path).examine()
    assert found.failing == ["worker", "broker", "runner", "journal", "heartbeat"]
    assert (found.heartbeat_age, found.to_json()["status"]) == (None, "failing")


def test_a_pulse_is_held_and_as_old_as_the_last_heartbeat(tmp_path: Path) -> None:
    pulse_ = Pulse(tmp_path)
    assert pulse.look(tmp_path) == pulse.Seen(True, None)
    before = time.time()
    pulse_.beat()
    seen = pulse.look(tmp_path)
    assert seen.is_alive
    assert seen.beat_at is not None
    assert before - 0.01 <= seen.beat_at <= time.time() + 0.01
    pulse_.close()
    assert pulse.look(tmp_path) == pulse.Seen(False, seen.beat_at)
    # The next worker has not said anything yet; what the last one said is as old as it is.
    again = Pulse(tmp_path)
    assert pulse.look(tmp_path) == pulse.Seen(True, seen.beat_at)
    again.close()


@pytest.mark.parametrize(("age", "is_fresh"), [(0.0, True), (2.5, True), (3.5, False), (-60.0, True)])
def test_three_heartbeats_may_be_missing(tmp_path: Path, age: float, is_fresh: bool) -> None:
    Pulse(tmp_path).beat()
    at = time.time() - age
    os.utime(tmp_path / pulse.FILE, (at, at))
    found = doctor_of(tmp_path).examine()
    assert ("heartbeat" not in found.failing) is is_fresh
    assert found.heartbeat_age is not None
    assert found.heartbeat_age >= 0


def test_the_runner_and_the_journal_are_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "ANSWER_WITHIN", 0.2)
    client = RunnerClient(tmp_path, "web-1")
    client.ensure()
    journal = Journal(tmp_path)
    try:
        assert doctor_of(tmp_path).examine().failing == ["worker", "broker", "heartbeat"]
        # Nothing of the probe stays.
        assert not (tmp_path / ".writable").exists()
        with closing(sqlite3.connect(journal.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert "journal" in doctor_of(tmp_path).examine().failing
        assert "journal" not in doctor_of(tmp_path).examine().failing
        (tmp_path / ".writable").symlink_to(tmp_path / "elsewhere")
        assert "journal" in doctor_of(tmp_path).examine().failing
        assert not (tmp_path / "elsewhere").exists()
    finally:
        journal.close()
        client.stop(cancel=True)
        client.close()


def test_who_asks_at_once_gets_one_answer(tmp_path: Path) -> None:
    doctor = doctor_of(tmp_path)
    assert doctor.examine() is doctor.examine()
