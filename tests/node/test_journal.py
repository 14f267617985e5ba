"""The journal: promises that survive kill -9, cancels, replays, and what happens when the file is broken."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from app.errors import Unavailable
from app.node import journal as journal_module
from app.node.journal import MAX_CANCELS, MOST_MARKS, Accepted, Journal

ROOT = Path(__file__).resolve().parents[2]
HERE = ("inst", "job.1")


def accepted(journal: Journal, job: str = "job.1", digest: str = "d", now: float = 1.0) -> Accepted:
    return journal.accept("inst", job, digest, "order-1", '{"chain": [1]}', now)


def test_the_life_of_a_job(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert accepted(journal) is Accepted.FRESH
    assert accepted(journal) is Accepted.RUNNING
    assert accepted(journal, digest="other") is Accepted.OTHER_DIGEST
    assert [entry.job for entry in journal.held()] == ["job.1"]
    assert journal.held()[0].status == "accepted"
    assert journal.unpublished() == []
    assert journal.ended(*HERE, "token", 2.0)
    assert not journal.ended(*HERE, "another", 3.0)
    assert accepted(journal) is Accepted.ENDED
    assert accepted(journal, digest="other") is Accepted.OTHER_DIGEST
    assert journal.held() == []
    (entry,) = journal.unpublished()
    assert (entry.outcome, entry.canvas, entry.order_id, entry.ended_at) == (
        "token",
        '{"chain": [1]}',
        "order-1",
        2.0,
    )
    journal.published(*HERE)
    assert journal.unpublished() == []
    found = journal.find(*HERE)
    assert found is not None
    assert found.outcome == "token"
    assert accepted(journal) is Accepted.ENDED
    journal.close()


def test_jobs_of_another_installation_are_others(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert accepted(journal) is Accepted.FRESH
    assert journal.accept("other", "job.1", "x", "o", "null", 1.0) is Accepted.FRESH
    journal.ended("other", "job.1", "token", 2.0)
    assert [(entry.installation, entry.job) for entry in journal.held()] == [HERE]
    assert journal.find("third", "job.1") is None
    assert not journal.ended("third", "job.1", "token", 2.0)
    journal.close()


def test_what_was_promised_is_there_after_kill_9(tmp_path: Path) -> None:
    code = f"""
        import os, signal
        from app.node.journal import Journal
        journal = Journal({str(tmp_path)!r})
        print(journal.epoch, journal.next_sequence(), flush=True)
        for number in range(50):
            journal.accept("inst", f"job.{{number}}", "d", "o", "null", float(number))
        journal.ended("inst", "job.2", "token", 9.0)
        journal.ended("inst", "job.3", "token", 9.0)
        journal.published("inst", "job.3")
        journal.cancel_requested("inst", "later", 1.0)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL
    epoch, sequence = done.stdout.split()
    journal = Journal(tmp_path)
    assert journal.epoch == epoch
    assert journal.next_sequence() > int(sequence)
    assert len(journal.held()) == 48
    assert [entry.job for entry in journal.unpublished()] == ["job.2"]
    assert accepted(journal, "job.3") is Accepted.ENDED
    assert journal.is_cancelled("inst", "later")
    # What an earlier process accepted and this one sees the end of.
    journal.ended("inst", "job.5", "late", 10.0)
    found = [(entry.job, entry.outcome, entry.canvas) for entry in journal.unpublished()]
    assert found == [("job.2", "token", "null"), ("job.5", "late", "null")]
    journal.close()


def published_on_disk(directory: Path) -> list[str]:
    with sqlite3.connect(directory / "journal.db") as db:
        found = [job for (job,) in db.execute("SELECT job FROM jobs WHERE published = 1 ORDER BY job")]
    db.close()
    return found


def test_marks_go_to_the_disk_with_whatever_is_written_next(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    names = [f"job.{number}" for number in range(MOST_MARKS + 3)]
    for name in names:
        accepted(journal, name)
        journal.ended("inst", name, "token", 2.0)
    journal.published("inst", names[0])
    assert names[0] not in [entry.job for entry in journal.unpublished()]
    journal.next_sequence()
    assert published_on_disk(tmp_path) == [names[0]]
    for name in names[1 : MOST_MARKS + 1]:
        journal.published("inst", name)
    assert published_on_disk(tmp_path) == sorted(names[: MOST_MARKS + 1])
    journal.published("inst", names[-1])
    assert [entry.job for entry in journal.unpublished()] == [names[-2]]
    journal.close()
    assert published_on_disk(tmp_path) == sorted({*names} - {names[-2]})


def test_more_than_memory_may_hold_waits_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "MOST_OUTBOX", 1000)
    journal = Journal(tmp_path)
    assert journal.unpublished() == []
    for number in range(8):
        accepted(journal, f"job.{number}", now=float(number))
        journal.ended("inst", f"job.{number}", "o" * 200, 9.0)
        assert len(journal.unpublished()) == number + 1
    while waiting := journal.unpublished():
        assert {len(entry.outcome or "") for entry in waiting} == {200}
        journal.published("inst", waiting[0].job)
    accepted(journal, "last")
    journal.ended("inst", "last", "token", 10.0)
    assert [entry.job for entry in journal.unpublished()] == ["last"]
    journal.close()


def test_twenty_threads_and_one_is_fresh(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    found: list[Accepted] = []
    gate = threading.Barrier(20)

    def take() -> None:
        gate.wait()
        found.append(accepted(journal))

    threads = [threading.Thread(target=take) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found.count(Accepted.FRESH) == 1
    assert found.count(Accepted.RUNNING) == 19
    journal.close()


def test_cancels_are_remembered_within_bounds_and_go_with_the_job(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert not journal.is_cancelled(*HERE)
    journal.cancel_requested(*HERE, 1.0)
    journal.cancel_requested(*HERE, 2.0)
    assert journal.is_cancelled(*HERE)
    assert not journal.is_cancelled("other", "job.1")
    accepted(journal)
    journal.ended(*HERE, "token", 3.0)
    assert not journal.is_cancelled(*HERE)
    journal._db.executemany(
        "INSERT INTO cancels (installation, job, at) VALUES ('inst', ?, 1.0)",
        [(f"many.{number}",) for number in range(MAX_CANCELS)],
    )
    journal.close()
    journal = Journal(tmp_path)
    journal.cancel_requested("inst", "newest", 5.0)
    assert not journal.is_cancelled("inst", "many.0")
    assert journal.is_cancelled("inst", "many.1")
    assert journal.is_cancelled("inst", "newest")
    journal.close()


def test_an_order_is_met_once(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert not journal.seen_order("a", 100.0, 1.0)
    assert journal.seen_order("a", 100.0, 2.0)
    assert not journal.seen_order("b", 100.0, 2.0)
    journal.close()
    journal = Journal(tmp_path)
    assert journal.seen_order("a", 100.0, 3.0)
    # Past its expiry an order is refused for that; nothing of it is kept.
    assert not journal.seen_order("c", 300.0, 200.0)
    assert not journal.seen_order("a", 300.0, 200.0)
    journal.close()


def test_pruning_keeps_what_is_still_needed(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for number in range(4):
        accepted(journal, f"job.{number}")
    for number in range(3):
        journal.ended("inst", f"job.{number}", "token", 10.0 + number)
    journal.published("inst", "job.0")
    journal.published("inst", "job.1")
    journal.cancel_requested("inst", "old", 1.0)
    assert journal.prune(now=110.5, keep_seconds=100.0) == [("inst", "job.0")]
    assert journal.find("inst", "job.0") is None
    assert [entry.job for entry in journal.unpublished()] == ["job.2"]
    assert [entry.job for entry in journal.held()] == ["job.3"]
    assert not journal.is_cancelled("inst", "old")
    journal.close()


def _garbage(path: Path) -> None:
    path.write_bytes(os.urandom(8192))


def _middle(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for page in range(1, len(data) // 4096):
        data[page * 4096 : page * 4096 + 512] = os.urandom(512)
    path.write_bytes(data)


def _half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: 4096 * 3])


def _without_epoch(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("DELETE FROM meta")
    db.close()


@pytest.mark.parametrize("damage", [_garbage, _middle, _half, _without_epoch])
def test_a_corrupt_journal_is_put_aside_and_a_new_epoch_begins(
    tmp_path: Path, damage: object, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(tmp_path)
    epoch = journal.epoch
    for number in range(200):
        journal.accept("inst", f"job.{number}", "d" * 64, "o", "c" * 200, 1.0)
    journal.close()
    assert callable(damage)
    damage(tmp_path / "journal.db")
    again = Journal(tmp_path)
    assert again.epoch != epoch
    assert again.held() == []
    assert accepted(again) is Accepted.FRESH
    again.close()
    assert len([name for name in os.listdir(tmp_path) if ".corrupt-" in name]) == 1
    assert "corrupt" in caplog.text
    third = Journal(tmp_path)
    assert third.epoch == again.epoch
    third.close()


def test_a_deleted_journal_is_a_new_epoch(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.close()
    os.unlink(tmp_path / "journal.db")
    again = Journal(tmp_path)
    assert again.epoch != journal.epoch
    assert len(again.epoch) == 26
    again.close()


def test_a_journal_of_a_later_muster_is_left_alone(tmp_path: Path) -> None:
    Journal(tmp_path).close()
    with sqlite3.connect(tmp_path / "journal.db") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(Unavailable, match="schema 99"):
        Journal(tmp_path)
    assert os.listdir(tmp_path) == ["journal.db"]


def test_a_disk_that_refuses_is_no_promise(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    accepted(journal, "before")
    journal._db.execute("PRAGMA max_page_count = 1")

    def accept_until_full() -> None:
        for number in range(1000):
            journal.accept("inst", f"job.{number}", "d", "o", "x" * 4000, 1.0)

    with pytest.raises(Unavailable, match="journal"):
        accept_until_full()
    journal._db.execute("PRAGMA max_page_count = 1000000")
    held = {entry.job for entry in journal.held()}
    assert "before" in held
    assert accepted(journal, "after") is Accepted.FRESH
    journal.close()


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "state")
    assert os.stat(tmp_path / "state").st_mode & 0o777 == 0o700
    assert os.stat(journal.path).st_mode & 0o777 == 0o600
    journal.close()
