"""The one process that starts many jobs on a machine: what it is told and says, and what becomes of jobs without it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from far_bench import FarBench, Running, engage, target_of
from sshd import Sshd
from test_contract import alive, first_line
from waiting import wait_until

from app.node.runner_client import Interrupted
from app.ssh import dialogue, far_side
from app.ssh.desk import Desk
from app.ssh.facts import Details
from app.ssh.link import Listener, Session

PLACE = 32_768
"""Bytes of output that are told with a job's end."""


@pytest.fixture(scope="module")
def bench(sshd_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FarBench]:
    directory = tmp_path_factory.mktemp("desk")
    with Sshd(directory) as sshd:
        made = FarBench(directory, target_of(sshd), agent=True)
        yield made
        made.close()


def test_short_jobs_go_by_it_alone(bench: FarBench, monkeypatch: pytest.MonkeyPatch) -> None:
    # Where the machine is busy they take longer, and would be followed.
    monkeypatch.setattr(dialogue, "LIVE_AFTER", 60.0)
    runner = bench.runner()
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
        bench.job("printf 'a\\000b\\n\\377'"),
        bench.job(f"head -c {PLACE} /dev/zero"),
        bench.job("cat; wc -c", stdin=""),
        bench.job("wc -c", stdin="é" * 100_000),
        bench.job("true"),
        bench.job(argv=["no-such-program"]),
    ]
    records = [runner.run(job) for job in jobs]
    assert runner.reach.open_desk is not None
    assert [record["exit_code"] for record in records] == [0, 0, 3, *[0] * 7, 127]
    assert [bench.text(job) for job in jobs[:10]] == [
        b"out\n",
        b"no end",
        " it's  é \n\n".encode(),
        b"",
        b"one\n\ntwo",
        b"a\0b\n\xff",
        bytes(PLACE),
        b"0\n",
        b"200000\n",
        b"",
    ]
    assert [bench.text(job, "stderr") for job in jobs[:2]] == [b"err\n", b"none\n\n either"]
    assert records[3]["output"] == {"a": [1, "b c"]}
    assert [data for data in opened if jobs[0].id.rpartition(".")[0].encode() in data] == []


def test_what_is_long_is_asked_for(bench: FarBench) -> None:
    runner = bench.runner()
    jobs = [
        bench.job(f"head -c {PLACE + 1} /dev/zero"),
        bench.job("seq 1 5000; seq 1 5000 >&2"),
        bench.job('printf "{\\"a\\": \\"%050000d\\"}" 7 >"$MUSTER_OUTPUT"'),
        bench.job("echo up" + " " * far_side.AGENT_LONGEST),
    ]
    records = [one.record() for one in [Running(runner, job) for job in jobs]]
    assert [record["status"] for record in records] == ["succeeded"] * 4
    numbers = b"".join(b"%d\n" % number for number in range(1, 5001))
    assert [bench.text(job) for job in jobs] == [bytes(PLACE + 1), numbers, b"", b"up\n"]
    assert bench.text(jobs[1], "stderr") == numbers
    assert records[2]["output"] == {"a": f"{7:050000}"}


def test_many_at_once_are_told_apart(bench: FarBench) -> None:
    runner = bench.runner()
    jobs = [bench.job(f"for i in 1 2 3 4 5 6 7 8; do echo {number} $i; done") for number in range(40)]
    records = [one.record() for one in [Running(runner, job) for job in jobs]]
    assert {record["status"] for record in records} == {"succeeded"}
    assert [bench.text(job) for job in jobs] == [
        b"".join(b"%d %d\n" % (number, line) for line in range(1, 9)) for number in range(40)
    ]


def test_what_is_over_is_removed_with_all_that_is_in_it(bench: FarBench) -> None:
    runner = bench.runner()
    scripts = ("true", "mkdir -p a/b; touch a/b/c; cd ..; mkdir other; ln -s / work/root; chmod 500 work/a/b")
    jobs = [bench.job(script) for script in scripts]
    for job in jobs:
        assert runner.run(job)["status"] == "succeeded"
    places = [Path(runner.base, "jobs", job.id) for job in jobs]
    wait_until(lambda: not any(place.exists() for place in places), "it is removed")
    assert Path("/etc").is_dir()


def test_its_connection_is_not_its_end(bench: FarBench, tmp_path: Path) -> None:
    runner = bench.runner()
    job = bench.job(
        f'echo up; until [ -e "{tmp_path}/go" ]; do sleep 0.05; done; echo x >>"{tmp_path}/effect"'
    )
    running = Running(runner, job)
    first_line(bench, job.id)
    first = runner.reach.open_desk
    assert first is not None
    agent = owner(bench, runner.base, job.id)
    runner.reach.link().close()
    wait_until(lambda: first.is_over, "it ends")
    assert alive(agent)
    (tmp_path / "go").touch()
    assert running.record()["status"] == "succeeded"
    assert (tmp_path / "effect").read_text() == "x\n"
    wait_until(lambda: not alive(agent), "it goes when its last job is over")
    assert engage(runner) is not first
    assert runner.run(bench.job("echo again"))["status"] == "succeeded"


def owner(bench: FarBench, base: str, job_id: str) -> int:
    """The pid of who answers for the job."""
    return int(Path(base, "jobs", job_id, "_owner").read_text().split()[0])


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_what_may_hang_has_a_session(bench: FarBench) -> None:
    def has(**fields: Any) -> bool:
        job = {"argv": None, "script": "true", "stdin": None, "cwd": None, "output_limit": 1, **fields}
        return far_side.may_share(job)

    assert has()
    assert has(argv=["true"], script=None)
    assert has(argv=["/usr/bin/env"], script=None)
    assert has(workdir="/var/lib/files")
    assert not has(argv=["/mnt/x"], script=None)
    assert not has(argv=["./x"], script=None)
    assert not has(cwd="/mnt")
    assert not has(output_limit=far_side.AGENT_OUTPUT + 1)
    runner = bench.runner()
    jobs = [
        bench.job("pwd", cwd="/"),
        bench.job(argv=["./true"], cwd="/usr/bin"),
        bench.job("true", cwd="/no/such"),
    ]
    assert [runner.run(job)["exit_code"] for job in jobs] == [0, 0, None]
    assert bench.text(jobs[0]) == b"/\n"


@pytest.mark.parametrize("is_guarded", [True, False])
def test_it_is_killed(bench: FarBench, is_guarded: bool) -> None:
    runner = bench.runner()
    job = bench.job("trap '' TERM; setsid sleep 60 & echo $$ $!; wait; sleep 60")
    running = Running(runner, job)
    first_line(bench, job.id)
    pids = [int(word) for word in bench.text(job).split()]
    agent = owner(bench, runner.base, job.id)
    guard = next(one for one in children(agent) if one not in pids)
    if not is_guarded:
        os.kill(guard, signal.SIGKILL)
    os.kill(agent, signal.SIGKILL)
    record = running.record()
    assert (record["status"], record["error"]["type"]) == ("unknown", "interrupted")
    assert not any(map(alive, pids))
    assert not alive(guard)


def test_it_is_killed_while_nobody_is_there(bench: FarBench) -> None:
    runner = bench.runner()
    job = bench.job("echo $$; sleep 60")
    running = Running(runner, job)
    script = int(first_line(bench, job.id))
    agent = owner(bench, runner.base, job.id)
    runner.close()
    with pytest.raises(Interrupted):
        running.record()
    assert alive(script)
    os.kill(agent, signal.SIGKILL)
    wait_until(lambda: not alive(script), "the guard ends it")
    record = bench.runner().run(job)
    assert (record["status"], record["error"]["type"]) == ("unknown", "interrupted")


def test_it_is_killed_where_a_job_has_removed_its_directory(bench: FarBench, tmp_path: Path) -> None:
    runner = bench.runner()
    pids = tmp_path / "pids"
    script = (
        'dir=${MUSTER_INPUT%/*}; read -r agent rest <"$dir/_owner"; rm -rf "$dir"'
        f'; echo $$ $agent >"{pids}"; sleep 60'
    )
    running = Running(runner, bench.job(script))
    script_pid, agent = map(int, wait_until(lambda: pids.exists() and pids.read_text().split(), "it runs"))
    os.kill(agent, signal.SIGKILL)
    wait_until(lambda: not alive(script_pid), "the guard ends it")
    record = running.record()
    assert (record["status"], record["error"]["type"]) == ("unknown", "absent")


def test_a_job_without_a_directory_has_its_bounds(bench: FarBench, tmp_path: Path) -> None:
    runner = bench.runner()
    pid = tmp_path / "pid"
    script = f'rm -rf "${{MUSTER_INPUT%/*}}"; echo $$ >"{pid}"; while :; do sleep 0.1; done'
    running = Running(runner, bench.job(script, timeout=1.0))
    wait_until(lambda: pid.exists() and pid.read_text(), "it has removed what is known of it")
    wait_until(lambda: not alive(int(pid.read_text())), "it is ended")
    assert running.record()["status"] == "timed_out"


@pytest.mark.parametrize(
    ("told", "version"), [("", ()), ("3.11.2", (3, 11)), ("3.7.3", (3, 7)), ("nonsense", ()), ("3", (3,))]
)
def test_a_machine_says_which_python_it_has(told: str, version: tuple[int, ...]) -> None:
    assert Details("Linux x86_64", 1, told).version == version


def test_a_machine_without_it(sshd_program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(far_side, "AGENT_SINCE", (4, 0))
    with Sshd(tmp_path) as server:
        from_far = FarBench(tmp_path, target_of(server))
        runner = from_far.runner()
        runner.probe()
        runner.reach.engage()
        assert runner.reach.open_desk is None
        assert runner.run(from_far.job("echo one"))["status"] == "succeeded"
        from_far.close()


def test_one_that_does_not_start(sshd_program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(far_side, "AGENT", "echo no >&2; exit 1")
    with Sshd(tmp_path) as server:
        from_far = FarBench(tmp_path, target_of(server))
        runner = from_far.runner()
        runner.probe()
        runner.reach.engage()
        first = runner.reach._desk
        assert first is not None
        wait_until(lambda: first.is_over, "it ends")
        runner.reach.engage()
        assert runner.reach._desk is first
        assert runner.run(from_far.job("echo one"))["status"] == "succeeded"
        from_far.close()


class Silent:
    """A machine that says what it is told to, once it was asked for something."""

    is_open = True

    def __init__(self) -> None:
        self.said: list[bytes] = []
        self.is_closed = False
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
        self.is_closed = True


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
    machine.hear("out", said)
    assert machine.is_closed
    assert desk._rest == b""


def test_one_session_is_enough(sshd_program: str, tmp_path: Path) -> None:
    with Sshd(tmp_path, sessions=1) as server:
        from_far = FarBench(tmp_path, target_of(server), agent=True)
        runner = from_far.runner()
        jobs = [from_far.job("echo short"), from_far.job("seq 1 30000")]
        records = [runner.run(job) for job in jobs]
        from_far.close()
    assert [record["status"] for record in records] == ["succeeded"] * 2
    assert from_far.text(jobs[1]).count(b"\n") == 30000
