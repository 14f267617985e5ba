"""A node's station with a real journal and runner, and no broker: what it promises before anything is said."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from station_place import Place
from waiting import PATIENCE, wait_until

from app.node import jobdir, runner_client
from app.node.journal import Journal
from app.node.policy import PolicyFile
from app.node.sweep import boot_id
from app.transport.deploy import Command, File
from app.transport.gate import Canvas
from app.transport.keys import KeyPair
from app.transport.messages import Job, Order
from app.transport.sealing import seal_order


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.close()


def test_an_order_runs_once_however_often_it_comes(place: Place) -> None:
    job = place.job("a")
    for _ in range(3):
        place.station.run(place.order(job), Canvas())
    assert place.ran() == ["a"]
    assert place.outcome(job).status == "succeeded"


def test_an_order_by_another_key_runs_nothing(place: Place) -> None:
    place.station.run(place.order(place.job("a"), signer=KeyPair.generate()), Canvas())
    place.station.run("not a token", Canvas())
    place.station.run(None, Canvas())
    assert place.ran() == []
    assert place.station.journal.held() == []
    assert place.station._state()["versions"]["refused"] == "3"


def test_a_known_id_with_another_content_is_refused(place: Place) -> None:
    place.station.run(place.order(place.job("a")), Canvas())
    place.station.run(place.order(place.job("a", f"echo other >> {place.effects}")), Canvas())
    assert place.ran() == ["a"]


def test_a_worker_that_died_before_the_start_starts_it_now(place: Place) -> None:
    job = place.job("a")
    accept(place, job)
    place.station._take_up(place.station.journal.held()[0])
    assert place.ran() == ["a"]
    assert place.outcome(job).status == "succeeded"


def test_after_a_restart_of_the_machine_it_is_unknown(place: Place) -> None:
    """Claims are not synced: a missing one proves nothing once the machine was down."""
    job = place.job("a")
    accept(place, job, boot="another-boot")
    place.station._take_up(place.station.journal.held()[0])
    assert place.ran() == []
    outcome = place.outcome(job)
    assert outcome.status == "unknown"
    assert outcome.error is not None
    assert outcome.error["type"] == "restarted"


def test_a_runner_that_stands_still_is_waited_for(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it does not answer nobody knows whether the script runs: nothing may be said of it."""
    monkeypatch.setattr(runner_client, "ANSWER_WITHIN", 0.3)
    pid = place.station.runner.ping()["pid"]
    job = place.job("a")
    os.kill(pid, signal.SIGSTOP)
    try:
        worker = threading.Thread(target=place.station.run, args=(place.order(job), Canvas()))
        worker.start()
        worker.join(2.0)
        assert worker.is_alive()
        assert [entry.job for entry in place.station.journal.held()] == [job.id]
    finally:
        os.kill(pid, signal.SIGCONT)
    worker.join(PATIENCE)
    assert place.outcome(job).status == "succeeded"
    assert place.ran() == ["a"]


def test_an_outcome_that_a_full_disk_does_not_take_is_stored_once_there_is_room(place: Place) -> None:
    """It is over and the runner says so only once: to give up here would leave it running for ever."""
    gate = place.directory / "gate"
    job = place.job("a", f"until [ -e {gate} ]; do sleep 0.02; done; head -c 30000 /dev/urandom | base64")
    worker = threading.Thread(target=place.station.run, args=(place.order(job), Canvas()))
    worker.start()
    wait_until(lambda: [entry.job for entry in place.station.journal.held()] == [job.id])
    allow_pages(place.station.journal, 1)
    gate.touch()
    wait_until(lambda: jobdir.exit_record(place.station.runner.spool(job.id)) is not None)
    worker.join(0.5)
    assert worker.is_alive()
    allow_pages(place.station.journal, 100_000)
    worker.join(PATIENCE)
    assert place.outcome(job).status == "succeeded"
    assert place.station.journal.held() == []


def test_output_with_nul_is_refused_where_it_is_written(place: Place) -> None:
    job = place.job("a", """printf '{"x": "a\\u0000b"}' > "$MUSTER_OUTPUT\"""")
    place.station.run(place.order(job), Canvas())
    outcome = place.outcome(job)
    assert (outcome.status, outcome.output) == ("failed", None)
    assert outcome.error is not None
    assert outcome.error["type"] == "output"


def test_a_cancel_that_comes_first_is_kept(place: Place) -> None:
    job = place.job("a")
    now = time.time()
    cancel = Order(
        "C1", "INST", "web-1", place.station.journal.epoch, "cancel", now, now + 60, job_ids=(job.id,)
    )
    place.station.obey(seal_order(cancel, place.control, place.keys.public_keys))
    place.station.run(place.order(job), Canvas())
    assert place.ran() == []
    assert place.outcome(job).status == "cancelled"


def test_a_job_that_the_policy_refuses_is_never_started(place: Place) -> None:
    """A file that is named and not there allows nothing."""
    place.station.policy = PolicyFile(str(place.directory / "policy.toml"))
    job = place.job("a")
    place.station.run(place.order(job), Canvas())
    outcome = place.outcome(job)
    assert (outcome.status, outcome.started_at) == ("failed", None)
    assert outcome.error is not None
    assert outcome.error["type"] == "refused_by_node"
    assert place.ran() == []
    assert place.station._state()["versions"]["policy_refused"] == "1"


def test_what_runs_already_is_not_refused_by_a_later_policy(place: Place) -> None:
    """A worker that takes it up again under another policy waits for its end, and tells the truth."""
    gate = place.directory / "gate"
    script = f"echo a >> {place.effects}; until [ -e {gate} ]; do sleep 0.05; done"
    job = place.job("a", script)
    first = threading.Thread(target=place.station.run, args=(place.order(job), Canvas()))
    first.start()
    wait_until(lambda: place.ran() == ["a"])
    place.station.release()
    first.join(PATIENCE)
    # A client that lives on would start another runner when this one is told to stop.
    place.station.runner.close()
    place.station.journal.close()
    place.station = place.new_station()
    place.station.policy = PolicyFile(str(place.directory / "policy.toml"))
    second = threading.Thread(target=place.station._take_up, args=(place.station.journal.held()[0],))
    second.start()
    gate.touch()
    second.join(PATIENCE)
    assert place.outcome(job).status == "succeeded"
    assert place.ran() == ["a"]


@pytest.mark.parametrize(
    ("file", "commands"),
    [
        (File("../../evil", "id"), (Command(("sh", "../../evil")),)),
        (File("/tmp/sysmanage_script_1.sh", "id"), (Command(("sh", "/tmp/sysmanage_script_1.sh")),)),
        (File("record", "id"), (Command(("sh", "record")),)),
        (
            File("script", "id"),
            (Command(("sh", "script")), Command(("touch", "EFFECTS"), ignore_errors=True)),
        ),
        (File("script", "id"), (Command(("sh", "-c", "touch EFFECTS")),)),
    ],
)
def test_a_plan_that_control_would_not_make_is_refused_though_it_is_signed(
    place: Place, file: File, commands: tuple[Command, ...]
) -> None:
    there = [
        replace(one, argv=tuple(word.replace("EFFECTS", str(place.effects)) for word in one.argv))
        for one in commands
    ]
    job = replace(place.job("a"), files=(file,), commands=tuple(there))
    place.station.run(place.order(job), Canvas())
    assert (place.effects.exists(), place.station.journal.held()) == (False, [])
    assert place.station.journal.find("INST", job.id) is None
    assert place.station._state()["versions"]["refused"] == "1"


def test_an_order_of_version_1_is_refused_and_runs_once_it_is_sent_again(place: Place) -> None:
    """It waited in the queue over an upgrade: nothing is journalled of it, so control sends the job anew."""
    job = place.job("a")
    place.station.run(place.order_of_version_1(job)[0], Canvas())
    assert (place.ran(), place.station.journal.held()) == ([], [])
    assert place.station._state()["versions"]["refused"] == "1"
    place.station.run(place.order(job), Canvas())
    assert place.ran() == ["a"]
    assert place.outcome(job).digest == job.digest


def test_what_was_accepted_before_an_upgrade_is_taken_up(place: Place) -> None:
    """Its outcome names the digest that control knows the job by."""
    job = place.job("a")
    token, digest = place.order_of_version_1(job)
    kept = json.dumps({"canvas": Canvas().to_json(), "token": token, "boot": boot_id()})
    place.station.journal.accept("INST", job.id, digest, "O1", kept, time.time())
    place.station._take_up(place.station.journal.held()[0])
    assert place.ran() == ["a"]
    outcome = place.outcome(job)
    assert (outcome.status, outcome.digest) == ("succeeded", digest)


def allow_pages(journal: Journal, most: int) -> None:
    """How large the file may become; SQLite takes the size it has where that is more."""
    with journal._lock:
        journal._db.execute(f"PRAGMA max_page_count = {most}")


def accept(place: Place, job: Job, boot: str | None = None) -> None:
    """What a worker has journalled when it dies before it tells the runner."""
    kept = json.dumps({"canvas": Canvas().to_json(), "token": place.order(job), "boot": boot or boot_id()})
    place.station.journal.accept("INST", job.id, job.digest, "O1", kept, time.time())
