"""A machine that is reached over SSH, and the runner for it, for the tests."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from planned_jobs import planned
from sshd import Sshd
from waiting import wait_until

from app.node import jobdir, spool
from app.node.scripts import Events
from app.ssh.desk import Desk
from app.ssh.failures import Refused, Unreachable
from app.ssh.remote_runner import RemoteRunner
from app.ssh.target import Backend, Target
from app.transport.messages import Job


class Heard:
    """What a runner told its station."""

    def __init__(self) -> None:
        self.started: list[tuple[str, int]] = []
        self.output: list[str] = []
        self.exited: list[str] = []

    def events(self) -> Events:
        return Events(
            lambda job, pid, at: self.started.append((job, pid)), self.output.append, self.exited.append
        )


class FarBench:
    """The node's directory here, the runners of it, and jobs to be run. With `agent` the process for many jobs is there
    before the first job, else each of the first jobs has a session."""

    def __init__(self, directory: Path, target: Target, node: str = "web-1", *, agent: bool = False) -> None:
        self.agent = agent
        self.root = str(directory / "node")
        self.target = target
        self.node = node
        self.heard = Heard()
        self._runners: list[RemoteRunner] = []
        self._numbers = 0
        # A job's processes are found by its id, on the whole machine: other tests may be at work beside this.
        self._prefix = f"{uuid.uuid4().hex}.build.0"

    def runner(self, **options: Any) -> RemoteRunner:
        given = {"installation": "INST", "target": self.target, **options}
        made = RemoteRunner(self.root, self.node, given.pop("target"), self.heard.events(), **given)
        made.ensure()
        self._runners.append(made)
        if self.agent:
            engage(made)
        return made

    def job(self, script: str | None = None, **fields: Any) -> Job:
        self._numbers += 1
        names = {"execution": "01EXEC", "task": "build", "unit": 0, "attempt": 1, "action": "core.shell"}
        job_id = fields.pop("id", f"{self._prefix}.{self._numbers}")
        return planned(**{**names, "id": job_id, "script": script, "grace": 5.0, **fields})

    def text(self, job: Job, stream: str = "stdout") -> bytes:
        return spool.text(jobdir.path(self.root, job.id), stream)

    def close(self) -> None:
        for runner in self._runners:
            runner.close()


def engage(runner: RemoteRunner) -> Desk | None:
    """The process for many jobs, which has answered; None where the machine lets nobody in."""
    with suppress(Refused, Unreachable):
        runner.probe()

        def is_there() -> Desk | None:
            runner.reach.engage()
            return runner.reach.open_desk

        # A machine that opens one session at a time may not have closed the last one yet.
        desk = wait_until(is_there, "it is there")
        wait_until(lambda: desk.has_answered, "it answers")
        return desk
    return None


class Running(threading.Thread):
    """A job that is waited for beside the test."""

    def __init__(self, runner: RemoteRunner, job: Job, secrets: Mapping[str, str] | None = None) -> None:
        super().__init__(daemon=True)
        self._runner, self._job, self._secrets = runner, job, secrets
        self._record: dict[str, Any] | None = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._record = self._runner.run(self._job, self._secrets)
        except BaseException as error:
            self._error = error

    def record(self, seconds: float = 30.0) -> dict[str, Any]:
        self.join(seconds)
        assert not self.is_alive(), f"{self._job.id} is not over within {seconds} s"
        if self._error is not None:
            raise self._error
        assert self._record is not None
        return self._record


def target_of(server: Sshd, address: str = "", backend: Backend = "asyncssh") -> Target:
    return Target(
        server.user,
        address or server.address,
        server.port,
        server.private_key,
        server.host_key,
        backend=backend,
    )
