"""Processes of a test's fleet: started, watched, killed by their id, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import redis
from waiting import PATIENCE, wait_until

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
T = TypeVar("T")


def after(seconds: float) -> Callable[[], bool]:
    """A condition that holds from so many seconds on: for what has to last a while."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


class Part:
    """One process: started again by the `Keeper` whenever it ends, unless it was taken down."""

    def __init__(self, name: str, command: list[str], environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.command = command
        self.environment = dict(environment)
        self.log = log
        self.wanted = False
        self.starts = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._from = 0

    def start(self) -> None:
        self._from = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                self.command, env=self.environment, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT
            )
        self.wanted = True
        self.starts += 1

    @property
    def pid(self) -> int:
        assert self.process is not None, f"{self.name} was never started"
        return self.process.pid

    @property
    def lives(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def said(self, text: str) -> bool:
        """Whether this life of the process wrote it to its log."""
        with self.log.open("rb") as file:
            file.seek(self._from)
            return text.encode() in file.read()


class Keeper:
    """Starts processes, starts again what exits by itself (workers do when Redis goes away), ends them all."""

    def __init__(self) -> None:
        self.parts: dict[str, Part] = {}
        self.restarts: dict[str, int] = {}
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="keeper", daemon=True)

    def add(self, part: Part) -> Part:
        with self._lock:
            self.parts[part.name] = part
            part.start()
            if self._thread.ident is None:
                self._thread.start()
        return part

    def _watch(self) -> None:
        while not self._closing.wait(0.1):
            with self._lock:
                for part in self.parts.values():
                    if part.wanted and not part.lives:
                        self.restarts[part.name] = self.restarts.get(part.name, 0) + 1
                        part.start()

    def send(self, name: str, number: int) -> int:
        """Signals one process; a killed one comes back. Returns its pid."""
        with self._lock:
            part = self.parts[name]
            if part.lives:
                os.kill(part.pid, number)
                if number == signal.SIGKILL and part.process is not None:
                    part.process.wait()
            return part.pid

    def take_down(self, name: str, number: int = signal.SIGKILL) -> None:
        """Ends one process, which stays down until `bring_up`."""
        with self._lock:
            self.parts[name].wanted = False
            process = self.parts[name].process
            if process is not None and process.poll() is None:
                os.kill(process.pid, number)
        if process is not None:
            wait_until(lambda: process.poll() is not None, f"the end of {name}")

    def bring_up(self, name: str) -> Part:
        with self._lock:
            if not self.parts[name].lives:
                self.parts[name].start()
            return self.parts[name]

    def close(self, *last: str) -> None:
        """Ends everything, the parts named `last` after the others."""
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join(PATIENCE)
        first = [part for name, part in self.parts.items() if name not in last]
        for group in (first, [self.parts[name] for name in last if name in self.parts]):
            for part in group:
                part.wanted = False
                if part.lives:
                    os.kill(part.pid, signal.SIGCONT)
                    os.kill(part.pid, signal.SIGTERM)
            for part in group:
                if part.process is not None:
                    try:
                        part.process.wait(8)
                    except subprocess.TimeoutExpired:
                        part.process.kill()
                        part.process.wait()


class Broker:
    """A redis-server with AOF on a unix socket, and on a port of this machine if one is given."""

    def __init__(self, directory: Path, port: int = 0) -> None:
        self.socket = directory / "r.sock"
        program = BIN / "redis-server"
        command = [str(program) if program.exists() else "redis-server", "--port", str(port), "--save", ""]
        command += ["--bind", "127.0.0.1", "--unixsocket", str(self.socket), "--unixsocketperm", "600"]
        command += ["--appendonly", "yes", "--dir", str(directory), "--maxmemory-policy", "noeviction"]
        self.part = Part("redis", command, {"PATH": os.environ["PATH"]}, directory / "redis.log")
        self.client: Any = redis.Redis(unix_socket_path=str(self.socket), socket_timeout=None)

    def answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False

    def close(self) -> None:
        self.client.close()


def processes_with(text: str) -> Iterator[int]:
    """Pids of processes that hold the text in their environment or command line."""
    wanted = text.encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):
                if wanted in (entry / "cmdline").read_bytes() or wanted in (entry / "environ").read_bytes():
                    yield int(entry.name)


def kill_all_with(text: str) -> list[int]:
    """Kills, by pid, every process that holds a directory of ours in its environment or command line."""
    found = list(processes_with(text))
    for pid in found:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return found
