"""How jobs are ended: cancels, timeouts, what escapes them, what they leave, what holds their pipes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from runner_bench import Bench, alive, decoded
from waiting import PATIENCE, wait_until

from app.errors import Conflict
from app.node import jobdir, sweep
from app.node.runner_client import RunnerClient
from app.transport.messages import Job

# A child in a session of its own that ignores TERM; $1 is a file for its pid.
ESCAPED = "setsid sh -c 'trap \"\" TERM; echo $$ > {file}; while :; do sleep 0.1; done' >/dev/null 2>&1 &"


def read_pid(file: Path) -> int:
    return int(wait_until(lambda: file.exists() and file.read_text().strip(), f"{file} holds a pid"))


def cancelled(bench: Bench, client: RunnerClient, job: Job) -> tuple[dict[str, Any], float]:
    """Starts the job, cancels it once it has said something; its record and the seconds since the cancel."""
    client.start(job)
    bench.until_running(client, job)
    asked = time.monotonic()
    assert client.cancel(job.id, "enough") == "ending"
    return client.wait(job.id), time.monotonic() - asked


def test_a_cancelled_script_gets_term_and_says_why(bench: Bench) -> None:
    client = bench.client()
    record, took = cancelled(bench, client, bench.job("echo begun; sleep 600"))
    assert (record["status"], record["signal"]) == ("cancelled", signal.SIGTERM)
    assert record["error"] == {"type": "cancelled", "message": "enough"}
    assert took < 60


def test_cleaning_up_within_the_grace_is_let_happen(bench: Bench) -> None:
    client = bench.client()
    job = bench.job("trap 'sleep 0.4; echo cleaned; exit 0' TERM; echo begun; while :; do sleep 0.05; done")
    record, took = cancelled(bench, client, job)
    assert record["status"] == "cancelled"
    assert decoded(record["stdout"]) == b"begun\ncleaned\n"
    assert took >= 0.4


def test_the_grace_holds_for_the_children_of_a_shell_that_dies_at_once(bench: Bench, tmp_path: Path) -> None:
    client = bench.client()
    child = (
        f"trap 'sleep 0.4; echo cleaned > {tmp_path}/mark; exit' TERM; echo on; while :; do sleep 0.05; done"
    )
    job = bench.job(f'sh -c "{child}" & sleep 60')
    record, _ = cancelled(bench, client, job)
    assert record["status"] == "cancelled"
    assert (tmp_path / "mark").read_text() == "cleaned\n"


@pytest.mark.parametrize("how", ["cancel", "timeout"])
def test_nothing_survives_that_ignores_term_or_left_the_session(
    bench: Bench, tmp_path: Path, how: str
) -> None:
    client = bench.client()
    script = f"""trap '' TERM
        {ESCAPED.format(file=tmp_path / "escaped")}
        {ESCAPED.format(file=tmp_path / "again").replace("setsid", "setsid setsid")}
        (while :; do sleep 0.1; done) &
        echo $! > {tmp_path / "child"}
        (sleep 600 &)
        echo $$ > {tmp_path / "main"}
        echo begun
        while :; do sleep 0.1; done"""
    job = bench.job(script, shell="bash", grace=0.3, timeout=0.6 if how == "timeout" else None)
    client.start(job)
    files = ("escaped", "again", "child", "main")
    pids = [read_pid(tmp_path / name) for name in files]
    if how == "cancel":
        client.cancel(job.id)
    record = client.wait(job.id)
    assert record["status"] == ("cancelled" if how == "cancel" else "timed_out")
    assert record["signal"] == signal.SIGKILL
    assert "left" not in record
    assert [pid for pid in pids if alive(pid)] == []
    assert sweep.bearers(frozenset({job.id})) == {}


def test_a_member_of_the_group_without_the_cookie_is_killed_too(bench: Bench, tmp_path: Path) -> None:
    client = bench.client()
    bare = f"trap '' TERM; echo $$ > {tmp_path}/bare; while :; do /bin/sleep 0.1; done"
    job = bench.job(f'env -i /bin/sh -c "{bare}" & echo begun; wait'.replace("$$", r"\$\$"), grace=0.2)
    client.start(job)
    pid = read_pid(tmp_path / "bare")
    client.cancel(job.id)
    assert client.wait(job.id)["status"] == "cancelled"
    assert not alive(pid)


def test_a_fork_bomb_ends_and_the_runner_serves_meanwhile(bench: Bench) -> None:
    client = bench.client()
    # 400 at the most, in a chain of sessions: enough to outrun one sweep, not enough to hurt the machine.
    bomb = """import os, time
print("begun", flush=True)
for number in range(400):
    if os.fork() == 0:
        os.setsid()
        time.sleep(0.003)
        continue
    time.sleep(60)"""
    job = bench.job(argv=("python3", "-S", "-c", bomb), grace=0)
    client.start(job)
    bench.until_running(client, job)
    wait_until(lambda: len(sweep.bearers(frozenset({job.id}))) > 30, "the bomb goes off")
    client.cancel(job.id)
    assert client.ping()["pid"] in bench.pids
    assert client.wait(job.id)["status"] == "cancelled"
    assert sweep.bearers(frozenset({job.id})) == {}


@pytest.mark.parametrize("forks", [0, 100])
def test_a_daemon_that_a_job_starts_is_left_and_counted(bench: Bench, tmp_path: Path, forks: int) -> None:
    client = bench.client()
    daemon = f"setsid sh -c 'echo $$ > {tmp_path}/daemon; exec sleep 600' >/dev/null 2>&1 </dev/null &"
    many = f"for n in $(seq {forks}); do /bin/true; done"
    job = bench.job(f"{daemon}\nwhile [ ! -s {tmp_path}/daemon ]; do sleep 0.01; done; {many}")
    record = bench.run(client, job)
    pid = read_pid(tmp_path / "daemon")
    try:
        assert (record["status"], record["left"]) == ("succeeded", 1)
        assert alive(pid)
    finally:
        os.kill(pid, signal.SIGKILL)


def test_a_grandchild_that_holds_the_pipe_does_not_hold_the_job(bench: Bench) -> None:
    client = bench.client()
    job = bench.job("sleep 600 & echo $!; exit 5")
    began = time.monotonic()
    record = bench.run(client, job)
    took = time.monotonic() - began
    pid = int(decoded(record["stdout"]))
    try:
        assert (record["exit_code"], record["left"]) == (5, 1)
        assert record["duration"] < took - 1
        assert 1.8 < took < 60
        assert alive(pid)
    finally:
        os.kill(pid, signal.SIGKILL)


def test_what_a_grandchild_writes_shortly_after_the_end_is_read(bench: Bench) -> None:
    client = bench.client()
    record = bench.run(client, bench.job("(sleep 1; echo late) & echo early"))
    assert decoded(record["stdout"]) == b"early\nlate\n"
    assert record["duration"] < 1


def test_a_cancel_before_the_start_is_remembered_over_a_restart(bench: Bench, tmp_path: Path) -> None:
    client = bench.client()
    early, other = bench.job(f"touch {tmp_path}/ran"), bench.job("echo hi")
    assert client.cancel(early.id, "changed my mind") == "remembered"
    client.stop()
    wait_until(lambda: not alive(next(iter(bench.pids))), "the runner ends")
    bench.pids.add(client.ping()["pid"])
    assert client.start(early) == "ended"
    record = client.wait(early.id)
    assert (record["status"], record["started_at"]) == ("cancelled", None)
    assert record["error"]["message"] == "changed my mind"
    assert not (tmp_path / "ran").exists()
    assert bench.run(client, other)["status"] == "succeeded"
    assert client.cancel(other.id) == "ended"
    assert client.wait(other.id)["status"] == "succeeded"


def test_a_second_cancel_changes_nothing(bench: Bench) -> None:
    client = bench.client()
    job = bench.job("trap 'sleep 0.3; exit 0' TERM; echo begun; while :; do sleep 0.05; done")
    client.start(job)
    bench.until_running(client, job)
    assert [client.cancel(job.id, reason) for reason in ("first", "second")] == ["ending", "ending"]
    assert client.wait(job.id)["error"]["message"] == "first"


def test_twenty_starts_at_once_run_it_once(bench: Bench, tmp_path: Path) -> None:
    client, another = bench.client(), bench.client()
    job = bench.job(f"echo ran >> {tmp_path}/effects; sleep 0.1")
    states: list[str] = []
    gate = threading.Barrier(20)

    def start(number: int) -> None:
        gate.wait()
        states.append((client if number % 2 else another).start(job))

    threads = [threading.Thread(target=start, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.wait(job.id)["status"] == another.wait(job.id)["status"] == "succeeded"
    assert sorted(states) == ["running"] * 19 + ["started"]
    assert client.start(job) == "ended"
    assert (tmp_path / "effects").read_text() == "ran\n"


def test_a_known_id_with_another_content_is_refused(bench: Bench, tmp_path: Path) -> None:
    client = bench.client()
    job = bench.job("echo begun; sleep 0.5")
    other = bench.job(f"touch {tmp_path}/ran", id=job.id)
    client.start(job)
    for _ in range(2):
        with pytest.raises(Conflict, match="another content"):
            client.start(other)
        assert client.wait(job.id)["status"] == "succeeded"
    assert not (tmp_path / "ran").exists()


def test_a_full_disk_is_refused_before_anything_runs(bench: Bench, tmp_path: Path) -> None:
    root = Path(jobdir.__file__).parents[2]
    command = [sys.executable, "-m", "app.node.runner", "--dir", bench.root, "--reserve", str(1 << 60)]
    runner = subprocess.Popen(command, cwd=root)
    try:
        wait_until(lambda: (Path(bench.root) / "runner.json").exists(), "the runner listens")
        client = bench.client()
        record = bench.run(client, bench.job(f"touch {tmp_path}/ran"))
        assert (record["status"], record["error"]["type"]) == ("failed", "no_space")
        assert record["exit_code"] is None
        assert not (tmp_path / "ran").exists()
        client.stop()
        assert runner.wait(PATIENCE) == 0
    finally:
        runner.kill()
        runner.wait()


def test_five_hundred_jobs_leave_no_descriptor_and_no_zombie(bench: Bench) -> None:
    client = bench.client()
    runner = next(iter(bench.pids))
    bench.run(client, bench.job("true"))
    before = len(os.listdir(f"/proc/{runner}/fd"))
    jobs = [bench.job(argv=("true",)) for _ in range(500)]
    spent: list[float] = []
    for job in jobs[:200]:
        began = time.perf_counter()
        assert bench.run(client, job)["status"] == "succeeded"
        spent.append(time.perf_counter() - began)
    for job in jobs[200:]:
        client.start(job)
    assert {client.wait(job.id)["status"] for job in jobs} == {"succeeded"}
    assert client.list() == []
    children = Path(f"/proc/{runner}/task/{runner}/children").read_text().split()
    assert children == []
    wait_until(lambda: len(os.listdir(f"/proc/{runner}/fd")) <= before, "all of its descriptors are closed")
    memory = bench.memory(runner)
    spent.sort()
    print(f"\n`true`: median {spent[100] * 1e3:.2f} ms, best {spent[0] * 1e3:.2f} ms, {memory['VmRSS']} kB")
    assert memory["VmRSS"] < 20_000
    assert spent[0] < 0.05


def test_a_script_cannot_say_itself_how_it_ended(bench: Bench, tmp_path: Path) -> None:
    """It is asked for while the script runs, and has written an end into the record that is the runner's."""
    client = bench.client()
    go = tmp_path / "go"
    forged = '{"job": "x", "status": "succeeded"}'
    job = bench.job(
        f"""echo '{forged}' >> "$(dirname "$MUSTER_INPUT")/record"; echo written
        while [ ! -e {go} ]; do sleep 0.05; done; exit 3"""
    )
    client.start(job)
    bench.until_running(client, job)
    found: list[dict[str, object]] = []
    waiter = threading.Thread(target=lambda: found.append(client.wait(job.id)))
    waiter.start()
    waiter.join(0.3)
    assert waiter.is_alive()
    go.touch()
    waiter.join(PATIENCE)
    assert (found[0]["status"], found[0]["exit_code"]) == ("failed", 3)
