"""The processes of a bench: started in sessions of their own, stopped by their pids, last one first."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from app.cli import redis_server

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
STOP_WITHIN = 15.0
"""Seconds that a process has between TERM and KILL."""

_OURS = ("MUSTER_", "REDIS_", "DATABASE_", "CELERY_", "RAW_", "BENCH_")


class Broken(Exception):
    """The bench cannot go on, or what it measured is not what was asked for."""


class Skipped(Exception):
    """What a case needs is not on this machine."""


class Processes:
    """What this bench started. Logs go to `directory`/NAME.log. A context manager: leaving it stops everything."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._started: list[tuple[str, subprocess.Popen[bytes]]] = []

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
        """Starts `command` with the caller's environment less every setting of ours; its pid."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(_OURS)}
        with open(self.log(name), "wb") as log:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**inherited, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._started.append((name, process))
        return process.pid

    def worker(self, name: str, module: str, environment: Mapping[str, str]) -> int:
        """Starts `celery -A MODULE worker`."""
        return self.start(name, [str(BIN / "celery"), "-A", module, "worker"], environment)

    def pids(self) -> dict[str, int]:
        return {name: process.pid for name, process in self._started}

    def log(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    def check(self) -> None:
        """Raises Broken where a process has ended by itself, with the end of its log."""
        for name, process in self._started:
            if process.poll() is not None:
                end = self.log(name).read_text("utf-8", "replace")[-2000:]
                raise Broken(f"{name} ended with {process.returncode}:\n{end}")

    def stop(self) -> None:
        for _, process in reversed(self._started[1:]):
            process.terminate()
        for _, process in reversed(self._started):
            _end(process)
        self._started.clear()

    def end(self, name: str) -> None:
        """Stops one of them."""
        for one in [one for one in self._started if one[0] == name]:
            _end(one[1])
            self._started.remove(one)

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_for(what: str, is_so: Callable[[], object], processes: Processes, within: float = 60.0) -> None:
    """Waits until `is_so`. Raises Broken after `within` seconds, or when a process has ended."""
    until = time.monotonic() + within
    while not is_so():
        processes.check()
        if time.monotonic() > until:
            raise Broken(f"{what}: not so within {within:.0f} s; see the logs in {processes.directory}")
        time.sleep(0.02)


def wait_until_gone(pid: int) -> None:
    """Waits for a process that is not our child, then kills it."""
    until = time.monotonic() + STOP_WITHIN
    while Path(f"/proc/{pid}").exists():
        if time.monotonic() > until:
            os.kill(pid, signal.SIGKILL)
            return
        time.sleep(0.02)


def stand_still(pid: int) -> None:
    """Stops a process until it gets a SIGCONT. Its threads go on for a moment until one of them has taken the signal:
    this waits for that, so that none gets hold of what the caller lets go of next. Raises Broken."""
    os.kill(pid, signal.SIGSTOP)
    until = time.monotonic() + STOP_WITHIN
    while not all(_is_stopped(thread) for thread in Path(f"/proc/{pid}/task").iterdir()):
        if time.monotonic() > until:
            raise Broken(f"process {pid} does not stand still")
        time.sleep(0.001)


def _is_stopped(thread: Path) -> bool:
    state = (thread / "stat").read_text("ascii", "replace").rpartition(")")[2].split()[0]
    return state in ("T", "t")


def start_redis(processes: Processes) -> str:
    """A Redis as `muster up` configures it, on a unix socket; the socket's path."""
    directory = processes.directory
    socket_path = str(directory / "redis.sock")
    configuration = directory / "redis.conf"
    redis_server.write_configuration(configuration, socket_path, directory / "redis")
    processes.start("redis", [redis_server.find().path, str(configuration)])
    wait_for("Redis answers", lambda: redis_server.answers(socket_path), processes)
    return socket_path
