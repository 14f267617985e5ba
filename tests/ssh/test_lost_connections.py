"""Connections that break and machines that are away: one job is one process, no orphan, and an honest end."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from far_bench import FarBench, Running, target_of
from sshd import Sshd, make_key
from test_contract import alive, first_line
from waiting import PATIENCE, wait_until

from app.node.jobdir import claim_of, path
from app.ssh.breaker import Breaker

COUNT = 'i=0; while [ $i -lt %d ]; do echo $i; i=$((i+1)); sleep 0.02; done; echo x >>"%s"'
UNTIL = 'i=0; until [ -e "%s" ]; do echo $i; i=$((i+1)); sleep 0.02; done; echo x >>"%s"; echo $i'


def test_a_connection_that_breaks_in_mid_script(sshd: Sshd, near: FarBench, tmp_path: Path) -> None:
    runner = near.runner()
    job = near.job(UNTIL % (tmp_path / "enough", tmp_path / "effect"))
    running = Running(runner, job)
    first_line(near, job.id)
    for _ in range(3):
        sshd.drop_sessions()
        written = len(near.text(job))
        wait_until(lambda: len(near.text(job)) > written + 20, "output goes on")  # noqa: B023
    (tmp_path / "enough").touch()
    record = running.record()
    assert record["status"] == "succeeded"
    lines = near.text(job).split()
    assert [int(line) for line in lines] == list(range(len(lines)))
    assert len(lines) > 20
    assert (tmp_path / "effect").read_text() == "x\n"


def test_a_machine_that_is_away_for_less_than_the_leash(sshd: Sshd, near: FarBench, tmp_path: Path) -> None:
    runner = near.runner(leash=20.0, breaker=Breaker(threshold=100))
    job = near.job(COUNT % (50, tmp_path / "effect"))
    running = Running(runner, job)
    first_line(near, job.id)
    sshd.stop()
    wait_until((tmp_path / "effect").exists, "the script goes on alone")
    sshd.start()
    assert running.record()["status"] == "succeeded"
    assert near.text(job) == b"".join(b"%d\n" % number for number in range(50))
    assert (tmp_path / "effect").read_text() == "x\n"


def test_a_machine_that_is_away_for_longer_than_the_leash(sshd: Sshd, near: FarBench) -> None:
    runner = near.runner(leash=1.0, breaker=Breaker(threshold=100))
    job = near.job("echo $$; setsid sleep 60 & echo $!; wait", grace=0.5)
    running = Running(runner, job)
    first_line(near, job.id)
    pids = [
        int(word)
        for word in wait_until(lambda: near.text(job).split()[1:] and near.text(job).split(), "both")
    ]
    sshd.stop()
    wait_until(lambda: not any(map(alive, pids)), "the machine ends it by itself")
    sshd.start()
    record = running.record()
    assert (record["status"], record["error"]["type"]) == ("failed", "lost")
    assert record["exit_code"] == 143


def test_the_leash_is_not_felt_while_there_is_a_connection(near: FarBench) -> None:
    record = near.runner(leash=1.0).run(near.job("sleep 3; echo done"))
    assert (record["status"], near.text(near.job(id=record["job"], script="x"))) == ("succeeded", b"done\n")


def test_what_watches_over_the_script_is_killed(near: FarBench) -> None:
    runner = near.runner()
    job = near.job("echo $$; sleep 60", grace=0.5)
    running = Running(runner, job)
    script = int(first_line(near, job.id))
    base = Path(runner.base)
    owner = int((base / "jobs" / job.id / "_owner").read_text().split()[0])
    os.kill(owner, signal.SIGKILL)
    record = running.record()
    assert (record["status"], record["error"]["type"]) == ("unknown", "interrupted")
    wait_until(lambda: not alive(script), "the script is ended")


def test_a_job_that_the_machine_has_forgotten_is_not_started_again(near: FarBench, tmp_path: Path) -> None:
    first = near.runner()
    job = near.job(f"echo up; echo x >>{tmp_path}/effect; sleep 60")
    running = Running(first, job)
    first_line(near, job.id)
    first.close()
    with pytest.raises(Exception, match="given up"):
        running.record()
    base = Path(first.base)
    pid = int((base / "jobs" / job.id / "_main").read_text())
    (base / "jobs" / job.id).rename(tmp_path / "away")
    try:
        record = near.runner().run(job)
    finally:
        os.killpg(pid, signal.SIGKILL)
    assert (record["status"], record["error"]["type"]) == ("unknown", "absent")
    assert (tmp_path / "effect").read_text() == "x\n"


def test_a_cancel_while_the_machine_is_away(sshd: Sshd, near: FarBench) -> None:
    runner = near.runner(breaker=Breaker(threshold=100))
    job = near.job("echo $$; sleep 60", grace=0.5)
    running = Running(runner, job)
    pid = int(first_line(near, job.id))
    sshd.stop()
    assert runner.cancel(job.id, "enough") == "ending"
    assert alive(pid)
    sshd.start()
    record = running.record()
    assert (record["status"], record["error"]["message"]) == ("cancelled", "enough")
    assert not alive(pid)


@pytest.mark.parametrize("backend", ["asyncssh", "openssh"])
def test_a_wrong_key_fails_at_once(sshd: Sshd, near: FarBench, tmp_path: Path, backend: str) -> None:
    make_key(tmp_path / "other")
    target = replace(near.target, private_key=(tmp_path / "other").read_text(), backend=backend)
    record = near.runner(target=target, patience=60.0).run(near.job("true"))
    assert (record["status"], record["error"]["type"], record["started_at"]) == ("failed", "ssh_auth", None)
    assert f"ssh-copy-id -i KEY.pub -p {sshd.port} {sshd.user}@127.0.0.1" in record["error"]["message"]


@pytest.mark.parametrize("backend", ["asyncssh", "openssh"])
def test_another_host_key_fails_at_once(near: FarBench, tmp_path: Path, backend: str) -> None:
    make_key(tmp_path / "other")
    key = " ".join((tmp_path / "other.pub").read_text().split()[:2])
    target = replace(near.target, host_key=key, backend=backend)
    record = near.runner(target=target, patience=60.0).run(near.job("true"))
    assert (record["status"], record["error"]["type"]) == ("failed", "ssh_host_key")
    assert "muster node trust" in record["error"]["message"]


def test_a_key_that_is_none(near: FarBench) -> None:
    record = near.runner(target=replace(near.target, private_key="nonsense")).run(near.job("true"))
    assert (record["status"], record["error"]["type"]) == ("failed", "ssh_key")
    assert "nonsense" not in record["error"]["message"]


def test_a_machine_that_is_away_is_tried_again(sshd: Sshd, near: FarBench) -> None:
    sshd.stop()
    job = near.job("echo here")
    running = Running(near.runner(breaker=Breaker(threshold=100)), job)
    wait_until(lambda: claim_of(path(near.root, job.id)), "it is tried")
    sshd.start()
    assert running.record()["status"] == "succeeded"


def test_a_machine_that_stays_away(sshd: Sshd, near: FarBench, tmp_path: Path) -> None:
    sshd.stop()
    states: list[Breaker] = []
    runner = near.runner(patience=300.0, breaker=Breaker(threshold=3, cooldown=3.0), changed=states.append)
    job = near.job(f"echo x >>{tmp_path}/effect")
    begun = time.monotonic()
    record = runner.run(job)
    assert (record["status"], record["error"]["type"]) == ("failed", "unreachable")
    assert time.monotonic() - begun < 60
    assert runner.breaker.state(time.monotonic()) == "open"
    record = runner.run(near.job("true"))
    assert "nothing is tried" in record["error"]["message"]
    assert states[-1] == runner.breaker
    sshd.start()
    wait_until(lambda: runner.breaker.state(time.monotonic()) == "half-open", "the cool-down is over")
    assert runner.run(near.job("true"))["status"] == "succeeded"
    assert states[-1].state(time.monotonic()) == "closed"
    # What failed has failed for good.
    assert runner.run(job)["error"]["type"] == "unreachable"
    assert not (tmp_path / "effect").exists()


@pytest.fixture
def silent() -> Iterator[int]:
    """A port where somebody takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def take() -> None:
            while True:
                try:
                    held.append(server.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(PATIENCE)
        for one in held:
            one.close()


@pytest.mark.parametrize("backend", ["asyncssh", "openssh"])
def test_a_machine_that_hangs_after_connect(
    silent: int, near: FarBench, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    monkeypatch.setattr("app.ssh.connection.CONNECT_WITHIN", 1.0)
    monkeypatch.setattr("app.ssh.openssh.CONNECT_WITHIN", 1.0)
    target = replace(near.target, port=silent, backend=backend)
    runner = near.runner(target=target, breaker=Breaker(threshold=1))
    record = runner.run(near.job("true"))
    assert (record["status"], record["error"]["type"]) == ("failed", "unreachable")
    said = record["error"]["message"]
    assert "did not answer within 1 s" in said or "timed out" in said
    assert runner.breaker.state(time.monotonic()) == "open"


def test_a_user_who_may_not_run_commands(sshd_program: str, tmp_path: Path) -> None:
    with Sshd(tmp_path, environment={"X": "1"}) as server:
        keys = server.directory / "authorized_keys"
        keys.write_text(f'command="echo not here" {keys.read_text()}')
        bench = FarBench(tmp_path, target_of(server))
        record = bench.runner().run(bench.job("true"))
        bench.close()
    assert (record["status"], record["error"]["type"]) == ("failed", "far_side")
    assert "not here" in record["error"]["message"]


def test_a_profile_that_talks(sshd_program: str, tmp_path: Path) -> None:
    with Sshd(tmp_path) as server:
        keys = server.directory / "authorized_keys"
        command = "echo welcome; echo started 1; echo careful >&2; eval $SSH_ORIGINAL_COMMAND"
        keys.write_text(f'command="{command}" {keys.read_text()}')
        bench = FarBench(tmp_path, target_of(server))
        runner = bench.runner()
        jobs = [
            bench.job("echo out; echo err >&2"),
            bench.job("echo out; echo err >&2; sleep 0.5; echo more"),
        ]
        records = [runner.run(job) for job in jobs]
        bench.close()
    assert [record["status"] for record in records] == ["succeeded", "succeeded"]
    assert [bench.text(job) for job in jobs] == [b"out\n", b"out\nmore\n"]
    assert [bench.text(job, "stderr") for job in jobs] == [b"err\n", b"err\n"]


def test_a_machine_with_few_sessions(sshd_program: str, tmp_path: Path) -> None:
    with Sshd(tmp_path, sessions=3) as server:
        bench = FarBench(tmp_path, target_of(server))
        runner = bench.runner()
        jobs = [bench.job(f"echo {number}; sleep 0.6; echo x >>{tmp_path}/effects") for number in range(6)]
        running = [Running(runner, job) for job in jobs]
        records = [one.record() for one in running]
        bench.close()
    assert [record["status"] for record in records] == ["succeeded"] * 6
    assert [bench.text(job) for job in jobs] == [b"%d\n" % number for number in range(6)]
    assert (tmp_path / "effects").read_text() == "x\n" * 6
