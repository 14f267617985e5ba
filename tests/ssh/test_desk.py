"""The one shell that starts many jobs on a machine: what it is told and says, and what becomes of jobs without it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from far_bench import FarBench, Running, target_of
from sshd import Sshd
from test_contract import alive, first_line
from test_far_shells import bench
from waiting import wait_until

from app.node.runner_client import Interrupted
from app.ssh import desk as desks
from app.ssh import dialogue, far_side
from app.ssh.desk import LONGEST, Desk
from app.ssh.link import Listener, Session
from app.ssh.remote_runner import RemoteRunner

__all__ = ["bench"]


def desk_of(runner: RemoteRunner) -> Desk:
    found = runner.reach.open_desk
    assert found is not None
    assert found.has_answered
    return found


def test_short_jobs_go_by_it_alone(bench: FarBench, monkeypatch: pytest.MonkeyPatch) -> None:
    # Where the machine is busy they take longer, and would be followed.
    monkeypatch.setattr(dialogue, "LIVE_AFTER", 60.0)
    runner = bench.runner()
    first = bench.job("echo first")
    assert runner.run(first)["status"] == "succeeded"
    opened: list[bytes] = []
    link = runner.reach.link()
    inner = link.open

    def open_session(command: str, data: bytes, listener: Listener, *, keep: bool = False) -> Session:
        opened.append(data)
        return inner(command, data, listener, keep=keep)

    monkeypatch.setattr(link, "open", open_session)
    jobs = [
        bench.job("echo out; echo err >&2"),
        bench.job("printf 'no end'; printf 'none\\n\\n either' >&2"),
        bench.job("echo ' it'\\''s  é '; echo; exit 3"),
        bench.job('echo "{\\"a\\": [1, \\"b c\\"]}" >"$MUSTER_OUTPUT"'),
        bench.job("cat", stdin="one\n\ntwo"),
        bench.job("true"),
    ]
    records = [runner.run(job) for job in jobs]
    desk_of(runner)
    assert [record["exit_code"] for record in records] == [0, 0, 3, 0, 0, 0]
    assert [bench.text(job) for job in jobs] == [
        b"out\n",
        b"no end",
        " it's  é \n\n".encode(),
        b"",
        b"one\n\ntwo",
        b"",
    ]
    assert [bench.text(job, "stderr") for job in jobs[:2]] == [b"err\n", b"none\n\n either"]
    assert records[3]["output"] == {"a": [1, "b c"]}
    assert [data for data in opened if jobs[0].id.rpartition(".")[0].encode() in data] == []


def test_what_is_no_short_text_is_asked_for(bench: FarBench) -> None:
    runner = bench.runner()
    jobs = [
        bench.job("printf 'a\\000b\\n'"),
        bench.job("seq 1 5000"),
        bench.job("seq 1 400; seq 1 400 >&2"),
        bench.job("printf 'x%.0s' $(seq 1 5000)", shell="bash"),
        bench.job('printf "{\\"a\\": \\"%05000d\\"}" 7 >"$MUSTER_OUTPUT"'),
        bench.job("echo up" + " " * LONGEST),
    ]
    records = [one.record() for one in [Running(runner, job) for job in jobs]]
    assert [record["status"] for record in records] == ["succeeded"] * 6
    assert [bench.text(job) for job in jobs] == [
        b"a\0b\n",
        b"".join(b"%d\n" % number for number in range(1, 5001)),
        b"".join(b"%d\n" % number for number in range(1, 401)),
        b"x" * 5000,
        b"",
        b"up\n",
    ]
    assert bench.text(jobs[2], "stderr") == bench.text(jobs[2])
    assert records[4]["output"] == {"a": f"{7:05000}"}


def test_many_at_once_are_told_apart(bench: FarBench) -> None:
    runner = bench.runner()
    jobs = [bench.job(f"for i in 1 2 3 4 5 6 7 8; do echo {number} $i; done") for number in range(12)]
    records = [one.record() for one in [Running(runner, job) for job in jobs]]
    assert {record["status"] for record in records} == {"succeeded"}
    assert [bench.text(job) for job in jobs] == [
        b"".join(b"%d %d\n" % (number, line) for line in range(1, 9)) for number in range(12)
    ]


def test_its_end_is_no_end_of_a_job(near: FarBench, tmp_path: Path) -> None:
    runner = near.runner()
    job = near.job(
        f'echo up; until [ -e "{tmp_path}/go" ]; do sleep 0.05; done; echo x >>"{tmp_path}/effect"'
    )
    running = Running(runner, job)
    first_line(near, job.id)
    first = desk_of(runner)
    first.write(b"exit 0")
    first._session.close()
    wait_until(lambda: first.is_over, "it ends")
    (tmp_path / "go").touch()
    assert running.record()["status"] == "succeeded"
    assert (tmp_path / "effect").read_text() == "x\n"
    assert runner.run(near.job("echo again"))["status"] == "succeeded"
    assert desk_of(runner) is not first


def test_what_takes_long_is_watched_over_without_being_told_to(
    bench: FarBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(far_side, "patrol", lambda leash: 0.2)
    monkeypatch.setattr(desks.Errand, "stay", lambda *_: None)
    # In a place of its own, for it looks after whatever it finds there.
    runner = bench.runner(installation="PATROL")
    job = bench.job("echo $$; sleep 60", timeout=1.5, grace=0.3)
    running = Running(runner, job)
    script = int(first_line(bench, job.id))
    record = running.record()
    assert record["status"] == "timed_out"
    assert record["duration"] > 1.4
    assert not alive(script)


def test_a_job_without_a_directory_has_its_bounds(
    bench: FarBench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(far_side, "_may_wait", lambda *_: True)
    runner = bench.runner()
    pid = tmp_path / "pid"
    script = f'rm -rf "${{MUSTER_INPUT%/*}}"; echo $$ >"{pid}"; while :; do sleep 0.1; done'
    running = Running(runner, bench.job(script, timeout=1.0))
    wait_until(lambda: pid.exists() and pid.read_text(), "it has removed what is known of it")
    wait_until(lambda: not alive(int(pid.read_text())), "it is ended")
    runner.release()
    with pytest.raises(Interrupted):
        running.record()


def test_a_job_is_watched_over_once(bench: FarBench) -> None:
    runner = bench.runner()
    job = bench.job("echo $$; sleep 60", grace=0.3)
    running = Running(runner, job)
    first_line(bench, job.id)
    directory = Path(runner.base, "jobs", job.id)
    wait_until((directory / "_guard").exists, "somebody watches over it")
    owner = int((directory / "_owner").read_text().split()[0])
    os.kill(owner, signal.SIGKILL)
    assert running.record()["status"] == "unknown"


class Silent:
    """A machine that says what it is told to, once it was asked for something."""

    is_open = True

    def __init__(self) -> None:
        self.said: list[bytes] = []
        self.hear: Listener = lambda *_: None

    def open(self, command: str, data: bytes, listener: Listener, *, keep: bool = False) -> Silent:
        self.hear = listener
        return self

    def write(self, data: bytes) -> None:
        self.said.append(data)

    def end_input(self) -> None:
        """It has no end."""

    def taken(self, count: int) -> None:
        """It does not wait."""

    def close(self) -> None:
        """Nobody minds."""


def test_what_it_says_in_pieces_and_of_nobody() -> None:
    machine = Silent()
    desk = Desk(machine, far_side.Ground("INST", "web-1", 60.0, "/base"))
    told: list[tuple[str, bytes]] = []
    errand = desk.begin(lambda kind, data: told.append((kind, data)))
    for said in (
        b"welcome\nmuster far",
        b" side\n9+x\nnonsense\n",
        b"1+started 7\n1+a",
        b"b\n1/c\n1=0\n1+late\n",
    ):
        machine.hear("out", said)
    errand.close()
    opening = far_side.OPENING
    assert told == [
        ("out", opening + b"started 7\n"),
        ("out", b"ab\n"),
        ("err", far_side.MARK + b"c"),
        ("closed", b"0"),
    ]


@pytest.mark.parametrize("said", [b"x" * 70_000, b"\n".join([b"1" * 500_000] * 3)])
def test_a_machine_that_never_ends_a_line(said: bytes) -> None:
    machine = Silent()
    desk = Desk(machine, far_side.Ground("INST", "web-1", 60.0, "/base"))
    told: list[tuple[str, bytes]] = []
    desk.begin(lambda kind, data: told.append((kind, data)))
    machine.hear("out", far_side.OPENING + said)
    assert told == [("closed", b"")]
    assert desk.is_over


def test_one_session_is_enough(sshd_program: str, tmp_path: Path) -> None:
    with Sshd(tmp_path, sessions=1) as server:
        from_far = FarBench(tmp_path, target_of(server))
        runner = from_far.runner()
        jobs = [from_far.job("echo short"), from_far.job("seq 1 3000")]
        records = [runner.run(job) for job in jobs]
        from_far.close()
    assert [record["status"] for record in records] == ["succeeded"] * 2
    assert from_far.text(jobs[1]).count(b"\n") == 3000
