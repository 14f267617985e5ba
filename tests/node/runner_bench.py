"""A real runner in a directory of its own, with clients on demand, for the tests of the node."""

from __future__ import annotations

import base64
import os
import signal
import uuid
from pathlib import Path
from typing import Any

from planned_jobs import planned
from waiting import wait_until

from app.node import endpoint, jobdir, spool
from app.node.runner_client import RunnerClient
from app.transport.messages import Job


def alive(pid: int) -> bool:
    """Is the process there, and not a zombie?"""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] != b"Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Bench:
    """The runner's directory, and what the tests do with it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.root = str(directory / "runner")
        self._clients: list[RunnerClient] = []
        self._numbers = 0
        # The runner finds a job's processes by its id, on the whole machine: other benches may be at work beside this.
        self._prefix = f"{uuid.uuid4().hex}.build.0"
        self.pids: set[int] = set()

    def client(self, **callbacks: Any) -> RunnerClient:
        client = RunnerClient(self.root, "web-1", **callbacks)
        self._clients.append(client)
        self.pids.add(client.ensure()["pid"])
        return client

    def job(self, script: str | None = None, **fields: Any) -> Job:
        self._numbers += 1
        names = {"execution": "01EXEC", "task": "build", "unit": 0, "attempt": 1, "action": "core.shell"}
        job_id = fields.pop("id", f"{self._prefix}.{self._numbers}")
        return planned(**{**names, "id": job_id, "script": script, "grace": 5.0, **fields})

    def run(self, client: RunnerClient, job: Job) -> dict[str, Any]:
        client.start(job)
        return client.wait(job.id)

    def text(self, job: Job, stream: str = "stdout") -> bytes:
        return spool.text(jobdir.path(self.root, job.id), stream)

    def until_running(self, client: RunnerClient, job: Job) -> int:
        """Waits until the job's script has written something; its pid."""
        file = Path(jobdir.path(self.root, job.id)) / "stdout"
        wait_until(lambda: file.exists() and file.stat().st_size, f"{job.id} says something")
        return int(next(entry["pid"] for entry in client.list() if entry["job"] == job.id))

    def memory(self, pid: int) -> dict[str, int]:
        """kB by the names of /proc/PID/status: VmRSS, VmHWM …"""
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return {line.split(":")[0]: int(line.split()[1]) for line in lines if line.endswith(" kB")}

    def close(self) -> None:
        """Ends the runner and its jobs: the second TERM cancels them."""
        for client in self._clients:
            client.close()
        if os.path.exists(self.root):
            wait_until(self._is_free, "the runner ends")

    def _is_free(self) -> bool:
        pid = int(endpoint.read(self.root).get("pid", 0))
        if pid and self.root.encode() in Path(f"/proc/{pid}/cmdline").read_bytes() if alive(pid) else False:
            os.kill(pid, signal.SIGTERM)
        try:
            os.close(endpoint.take(self.root))
        except endpoint.AlreadyRunning:
            return False
        return True


def decoded(stream: dict[str, Any]) -> bytes:
    """The excerpt that an exit record carries of a stream."""
    return base64.b64decode(stream["head"]) + base64.b64decode(stream["tail"])
