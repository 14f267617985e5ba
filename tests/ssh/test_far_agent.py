"""The program that starts many jobs on a machine, by itself: what it is told by its input and says on its output."""

from __future__ import annotations

import ast
import json
import os
import re
import resource
import signal
import subprocess
import time
import uuid
from pathlib import Path
from typing import Any

from test_desk import PLACE, children
from waiting import PATIENCE, wait_until

from app.ssh import far_side


class Alone:
    """The program without a connection: what it is told and says, by its three streams."""

    def __init__(self, directory: Path, files: int = 1024) -> None:
        self.base = directory / "base"
        # A job's processes are found by its id, on the whole machine: other tests may be at work beside this.
        self.prefix = f"{uuid.uuid4().hex}.build.0"
        self.ground = far_side.Ground("INST", "web-1", 60.0, str(self.base), ("PATH", "HOME"))
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", far_side.AGENT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files)),
        )
        self.write(far_side.agent(self.ground))

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def clock(self) -> float:
        """The time there, which is the second thing that it says."""
        assert self.process.stdout is not None
        while not (line := self.process.stdout.readline()).startswith(b"0="):
            assert line
        return float(line[2:])

    def start(self, number: int, script: str, until: float = 1e12, **fields: Any) -> Path:
        """Starts a job; its directory."""
        given = {"id": f"{self.prefix}.{number}", "argv": ["/bin/sh", "-c", script], "env": {}, "grace": 0.3}
        job = {**given, "output_limit": 1 << 20, "timeout": None, "stdin": None, "input": None, **fields}
        told = far_side.told(self.ground, job, "d", fields.get("secrets", ()), 0)
        self.write(json.dumps([number, "start", told, until]).encode() + b"\n")
        return self.base / "jobs" / given["id"]

    def end(self, answers: int) -> bytes:
        """What it says until so many answers are whole; then it is let go."""
        assert self.process.stdout is not None
        said = b""
        while answers:
            line = self.process.stdout.readline()
            assert line, said[-500:]
            answers -= bool(re.fullmatch(rb"[1-9]\d*=\d\n", line))
            said += line
        rest, _ = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0
        return said + rest


def has_ended(job: Path) -> bool:
    return (job / "_exit").exists() and (job / "_exit").read_text().endswith(" ok\n")


def test_who_does_not_listen_holds_up_nothing(tmp_path: Path) -> None:
    alone = Alone(tmp_path)
    jobs = [alone.start(number, "head -c 30000 /dev/zero") for number in range(1, 300)]
    late = alone.start(300, "sleep 60", timeout=0.5)
    for job in [*jobs, late]:
        wait_until(lambda: has_ended(job), "it is over")  # noqa: B023
    assert (late / "_exit").read_text().startswith("ended timed_out 143 ")
    said = alone.end(300)
    # Of what did not fit it is said that it can be asked for: each has an end, and none is told in part.
    assert len(said) < 5 << 20
    ends = [line for line in said.split(b"\n") if line.endswith((b"=0", b"=3"))]
    assert len({line.partition(b"=")[0] for line in ends}) == len(ends) == 300
    assert any(line.endswith(b"=3") for line in ends)
    assert said.count(b"=0\n") == said.count(b"+ended ")


def test_lines_without_number(tmp_path: Path) -> None:
    # As many as fit, and of nothing but line ends.
    alone = Alone(tmp_path)
    script = f"head -c {PLACE} /dev/zero | tr '\\0' '\\n'"
    jobs = [alone.start(number, script) for number in range(1, 9)]
    for job in jobs:
        wait_until(lambda: has_ended(job), "it is over")  # noqa: B023
    said = alone.end(8)
    assert [said.count(b"\n%d+" % number) for number in range(1, 9)] == [PLACE + 4] * 8


def test_an_order_that_is_too_late_starts_nothing(tmp_path: Path) -> None:
    alone = Alone(tmp_path)
    now = alone.clock()
    late = alone.start(1, f"touch {tmp_path}/late", until=now - 0.001)
    good = alone.start(2, f"touch {tmp_path}/good", until=now + PATIENCE)
    wait_until(lambda: has_ended(good), "it is over")
    assert b"1=3\n" in alone.end(2)
    assert not late.exists()
    assert not (tmp_path / "late").exists()
    assert (tmp_path / "good").exists()


def test_where_it_has_no_files_to_spare_others_start_the_job(tmp_path: Path) -> None:
    alone = Alone(tmp_path, files=40)
    go = tmp_path / "go"
    jobs = [alone.start(number, f"until [ -e {go} ]; do sleep 0.05; done") for number in range(1, 31)]
    others = 0
    assert alone.process.stdout is not None
    for _ in jobs:
        while not (line := alone.process.stdout.readline()).endswith(b"=3\n") and b"+started " not in line:
            assert line
        others += line.endswith(b"=3\n")
    begun = {job for job in jobs if job.exists()}
    go.touch()
    said = alone.end(len(begun))
    assert 0 < others < 30
    assert len(begun) == 30 - others
    assert said.count(b"+ended exit 0 ") == len(begun), said
    assert all(has_ended(job) for job in begun)


def test_an_end_that_is_seen_too_late_is_none_in_time(tmp_path: Path) -> None:
    alone = Alone(tmp_path)
    go = tmp_path / "go"
    job = alone.start(1, f"until [ -e {go} ]; do sleep 0.02; done", timeout=0.5)
    wait_until((job / "_main").exists, "it runs")
    began = time.monotonic()
    alone.process.send_signal(signal.SIGSTOP)
    go.touch()
    over = began + 0.5 + 2 * alone.ground.tick + 0.2
    wait_until(lambda: time.monotonic() > over, "the timeout is over")
    alone.process.send_signal(signal.SIGCONT)
    assert b"1+ended timed_out " in alone.end(1)


def test_where_the_end_cannot_be_written_nobody_is_sent_to_look_for_it(tmp_path: Path) -> None:
    alone = Alone(tmp_path)
    big = f"head -c {PLACE + 1} /dev/zero >$MUSTER_OUTPUT"
    forged = alone.start(1, 'echo "ended exit 7 0 - - - - ok" >"${MUSTER_INPUT%/*}/_exit"; exit 3')
    barred = alone.start(2, f'mkdir "${{MUSTER_INPUT%/*}}/_exit"; {big}')
    good = alone.start(3, big)
    said = alone.end(3)
    assert (forged / "_exit").read_text().startswith("ended exit 3 ")
    assert b"2+output bad copy\n" in said
    assert (barred / "_owner").read_text() == ""
    assert b"3=3\n" in said
    assert has_ended(good)


def test_its_guard_is_killed_and_it_ends_well(tmp_path: Path) -> None:
    alone = Alone(tmp_path)
    alone.clock()
    for guard in children(alone.process.pid):
        os.kill(guard, signal.SIGKILL)
    job = alone.start(1, "echo one")
    wait_until(lambda: has_ended(job), "it is over")
    assert b"1+one\n" in alone.end(1)


def test_the_guard_leaves_no_secret(tmp_path: Path) -> None:
    alone = Alone(tmp_path)
    job = alone.start(1, "sleep 60", input={"key": "s3cret"}, secrets=("s3cret",))
    wait_until((job / "_main").exists, "it runs")
    assert "s3cret" in (job / "input.json").read_text()
    alone.process.kill()
    wait_until(lambda: has_ended(job), "the guard has ended it")
    wait_until(lambda: not (job / "input.json").exists(), "it is removed")
    alone.process.communicate(timeout=PATIENCE)


def test_it_works_with_the_oldest_python_that_it_is_tried_with() -> None:
    ast.parse(ast.literal_eval(far_side.agent_text()), feature_version=far_side.AGENT_SINCE)
