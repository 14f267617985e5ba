"""The gateway's own disk, files and processes, where they run out: no job is lost to that, and none is left waiting."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from far_bench import FarBench, Running
from waiting import wait_until

from app.errors import Unavailable
from app.node import jobdir
from app.ssh import openssh
from app.ssh.failures import Unreachable


class Full:
    """Refuses lines of records that have one of these words, so often for each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **words: int) -> None:
        self.left = words
        self._note = jobdir.note
        monkeypatch.setattr(jobdir, "note", self.note)

    def note(self, record: int, line: str) -> None:
        for word in json.loads(line).keys() & self.left.keys():
            if self.left[word]:
                self.left[word] -= 1
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._note(record, line)


def test_what_cannot_be_noted_is_tried_again(
    near: FarBench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    full = Full(monkeypatch, sent=2, answered=2)
    record = near.runner().run(near.job(f"echo x >>{tmp_path}/effect"))
    assert (record["status"], record["error"]) == ("succeeded", None)
    assert full.left == {"sent": 0, "answered": 0}
    assert (tmp_path / "effect").read_text() == "x\n"


def test_a_job_that_cannot_be_noted_can_be_cancelled(near: FarBench, monkeypatch: pytest.MonkeyPatch) -> None:
    full = Full(monkeypatch, sent=1_000_000)
    runner, job = near.runner(), near.job("true")
    running = Running(runner, job)
    wait_until(lambda: full.left["sent"] < 1_000_000, "it is tried")
    assert runner.cancel(job.id, "enough") == "ending"
    assert running.record()["status"] == "cancelled"


def test_what_the_machine_keeps_stays_where_the_end_cannot_be_written(
    near: FarBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    Full(monkeypatch, ended_at=1)
    runner, job, other = near.runner(), near.job("exit 3"), near.job("true")
    assert runner.run(job)["exit_code"] == 3
    assert runner.run(other)["exit_code"] == 0
    place = Path(runner.base) / "jobs"
    wait_until(lambda: not (place / other.id).exists(), "what is over is removed")
    assert (place / job.id).exists()
    # So it is known when somebody asks again.
    assert runner.run(job)["exit_code"] == 3
    wait_until(lambda: not (place / job.id).exists(), "what is over is removed")


def test_a_job_that_cannot_be_begun_here_says_so(near: FarBench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    runner, job = near.runner(), near.job("true")
    with monkeypatch.context() as patched:
        patched.setattr("app.ssh.remote_runner.RemoteJob", refuse)
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(Unavailable, match="Too many open files"):
            runner.run(job)
        assert len(os.listdir("/proc/self/fd")) == before
    assert runner.run(job)["status"] == "succeeded"


@pytest.mark.parametrize("what", [(tempfile, "mkdtemp"), (subprocess, "Popen")])
def test_a_program_that_cannot_be_started_is_a_machine_that_cannot_be_reached(
    near: FarBench, monkeypatch: pytest.MonkeyPatch, what: tuple[Any, str]
) -> None:
    module, name = what
    real, tries = getattr(module, name), []

    def refuse(*given: Any, **named: Any) -> Any:
        tries.append(1)
        if len(tries) < 3:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(*given, **named)

    target = replace(near.target, backend="openssh")
    monkeypatch.setattr(module, name, refuse)
    with pytest.raises(Unreachable, match="Too many open files"):
        openssh.connect(target)
    assert near.runner(target=target).run(near.job("true"))["status"] == "succeeded"
