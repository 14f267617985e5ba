"""The programs of the far side by themselves, by each `sh`, with their connection cut and without room on the disk."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_contract import alive
from test_far_shells import MORE_SHELLS, SHELLS
from waiting import PATIENCE, wait_until

from app.ssh import far_side
from app.ssh.far_side import Ground
from app.ssh.transcript import Transcript

SECRET = ("s3cret",)


class Machine:
    """A directory, and the shell that evaluates programs there."""

    def __init__(self, directory: Path, shell: str) -> None:
        (directory / "bin").mkdir()
        (directory / "bin" / "sh").symlink_to(shell)
        self.directory = directory
        self.shell = str(directory / "bin" / "sh")
        self.ground = Ground("INST", "web-1", 60.0, str(directory / "base"))
        self.go = directory / "go"
        # A job's processes are found by its id, on the whole machine: other tests may be at work beside this.
        self.id = f"{uuid.uuid4().hex}.build.0.1"
        self.job = directory / "base" / "jobs" / self.id
        self.begun: list[Started] = []

    def start(
        self, script: str, secrets: tuple[str, ...] = (), leash: float = 60.0, **fields: Any
    ) -> Started:
        """A job that runs `script`, once it has said that it did."""
        ground = Ground("INST", "web-1", leash, self.ground.base)
        given = {"id": self.id, "argv": ["/bin/sh", "-c", script], "env": {}, "grace": 0.3}
        job = {**given, "output_limit": 1 << 20, "timeout": None, "stdin": None, "input": None, **fields}
        longest = max(map(len, secrets), default=0)
        described = far_side.described(ground, job, secrets, longest)
        self.begun.append(Started(self, far_side.start(ground, self.id, "d", described)))
        return self.begun[-1]

    def says(self, program: bytes) -> bytes:
        """What a program answers."""
        done = subprocess.run(
            [self.shell, "-c", 'eval "$(cat)"'],
            input=program,
            capture_output=True,
            timeout=PATIENCE,
            check=True,
        )
        return done.stdout.partition(far_side.OPENING)[2]

    def attached(self, has_secrets: bool = False) -> Transcript:
        """What somebody hears who asks for the job again."""
        return heard(far_side.OPENING + self.says(far_side.attach(self.ground, self.id, "d", has_secrets)))


class Started:
    """The process that answers for a job."""

    def __init__(self, machine: Machine, program: bytes) -> None:
        pipe = subprocess.PIPE
        # With SIGXFSZ ignored, as it is here, a limit on files is what a full disk is.
        self._process = subprocess.Popen(
            [machine.shell, "-c", 'eval "$(cat)"'],
            stdin=pipe,
            stdout=pipe,
            stderr=subprocess.DEVNULL,
            restore_signals=False,
        )
        self.pid = self._process.pid
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(program)
        self._process.stdin.close()
        self.said = b""
        while b"started" not in self.said:
            line = self._process.stdout.readline()
            assert line, self.said
            self.said += line
        self.script = int(self.said.split()[-1])

    def cut(self) -> None:
        """The connection drops."""
        assert self._process.stdout is not None
        self._process.stdout.close()

    def fill_up(self) -> None:
        """From now on there is no room for a byte, for whoever looks after the script."""
        for pid in [self.pid, *children(self.pid)]:
            if pid != self.script:
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, 0))

    def transcript(self) -> Transcript:
        """All that it said, once it is over."""
        assert self._process.stdout is not None
        wait_until(lambda: self._process.poll() is not None, "it ends")
        self.said += self._process.stdout.read()
        return heard(self.said)

    def wait(self) -> None:
        self._process.wait(PATIENCE)

    def end(self) -> None:
        if self._process.poll() is None:
            for pid in [*children(self.pid), self.pid]:
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


def heard(said: bytes) -> Transcript:
    made = Transcript()
    made.feed("out", said)
    return made


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.fixture(params=[*SHELLS, *(pytest.param(shell, marks=pytest.mark.long) for shell in MORE_SHELLS)])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Machine]:
    found = shutil.which(request.param)
    if found is None:
        assert not os.environ.get("CI"), f"{request.param} must be there in CI"
        pytest.skip(f"{request.param} is not installed")
    made = Machine(tmp_path, found)
    yield made
    for one in made.begun:
        one.end()


def test_an_output_is_told_again_whoever_did_not_hear_it(machine: Machine) -> None:
    script = f'until [ -e {machine.go} ]; do sleep 0.05; done; echo "{{}}" >"$MUSTER_OUTPUT"'
    started = machine.start(script, SECRET, env={"TOKEN": SECRET[0]})
    started.cut()
    machine.go.touch()
    started.wait()
    for _ in range(2):
        found = machine.attached(has_secrets=True)
        assert found.ended is not None
        assert (found.ended.verdict, found.output) == ("exit", b"{}\n")
    assert not (machine.job / "input.json").exists()


@pytest.mark.parametrize("stdin", ["-x\0y", "-\0", "--\0-", "%s\\\0\n"])
def test_a_nul_and_what_looks_like_an_option_go_in(machine: Machine, stdin: str) -> None:
    assert machine.start(f"cat >{machine.go}", stdin=stdin).transcript().is_whole
    assert machine.go.read_bytes() == stdin.encode()


# Without room on the disk

FULL = (": >_verdict", "until rm -r ../$MUSTER_JOB; do :; done")
"""What a script does to its directory so that nothing can be written there: no room for a byte, or for a file."""


def test_a_good_end_is_told_without_room(machine: Machine) -> None:
    started = machine.start(f"until [ -e {machine.go} ]; do sleep 0.05; done")
    started.fill_up()
    machine.go.touch()
    end = started.transcript().ended
    assert end is not None
    assert (end.verdict, end.code) == ("exit", 0)


@pytest.mark.parametrize("full", FULL)
@pytest.mark.parametrize("bound", [{"timeout": 2.5}, {"leash": 2.5}])
def test_a_script_has_its_bounds_without_room(machine: Machine, full: str, bound: dict[str, float]) -> None:
    started = machine.start(
        f"cd {machine.job}; {full}; setsid sleep 600 & echo $! >{machine.go}; wait", **bound
    )
    end = started.transcript().ended
    assert end is not None
    assert (end.verdict, (end.code or 0) % 128) == ("exit", signal.SIGKILL)
    assert not alive(int(machine.go.read_text()))


def test_a_script_is_cancelled_without_room(machine: Machine) -> None:
    started = machine.start(
        f"{FULL[0]}; setsid sleep 600 & echo $! >{machine.go}; wait", cwd=str(machine.job)
    )
    child = int(wait_until(lambda: machine.go.exists() and machine.go.read_text().strip(), "it runs"))
    assert machine.says(far_side.cancel(machine.ground, machine.id)) == b"ending\n"
    end = started.transcript().ended
    assert end is not None
    assert (end.verdict, (end.code or 0) % 128) == ("exit", signal.SIGKILL)
    assert not alive(child)


def test_nothing_is_left_without_room_where_nobody_answers_for_it(machine: Machine) -> None:
    started = machine.start(f"{FULL[0]}; sleep 600", cwd=str(machine.job))
    wait_until((machine.job / "_verdict").exists, "it runs")
    os.kill(started.pid, signal.SIGKILL)
    started.wait()
    wait_until(lambda: not alive(started.script), "the script is ended")


def test_an_output_that_there_is_no_room_for_is_no_output(machine: Machine) -> None:
    started = machine.start(f'echo "{{}}" >"$MUSTER_OUTPUT"; until [ -e {machine.go} ]; do sleep 0.05; done')
    wait_until((machine.job / "output.json").exists, "it is written")
    started.fill_up()
    machine.go.touch()
    found = started.transcript()
    assert found.is_whole
    assert (found.output, found.complaint) == (b"", "copy")
