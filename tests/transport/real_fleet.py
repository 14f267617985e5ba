"""A Redis of the test's own, and workers as processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import redis
from waiting import wait_until

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


class Broker:
    """A redis-server on a unix socket in a short directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = directory / "r.sock"
        self.url = f"redis+socket://{self.socket}"
        program = Path(sys.executable).with_name("redis-server")
        command = [str(program) if program.exists() else "redis-server", "--port", "0", "--save", ""]
        command += ["--unixsocket", str(self.socket), "--dir", str(directory)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self.client: Any = redis.Redis(unix_socket_path=str(self.socket), socket_timeout=None)
        wait_until(self._answers, "redis-server")

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.ConnectionError:
            return False

    def stop(self) -> None:
        self.client.close()
        self.process.kill()
        self.process.wait()

    def contents(self) -> dict[bytes, int]:
        """Every list with its length."""
        keys = [key for key in self.client.scan_iter() if self.client.type(key) == b"list"]
        return {key: self.client.llen(key) for key in keys}


class Workers:
    """`celery -A fleet_app worker`, as typed, once for every start."""

    def __init__(self, broker: Broker, directory: Path) -> None:
        self.broker = broker
        self.directory = directory
        self.started: list[subprocess.Popen[bytes]] = []

    def start(
        self, role: str, name: str, queues: str, **environment: str
    ) -> tuple[subprocess.Popen[bytes], Path]:
        log = self.directory / f"{name}-{len(self.started)}.log"
        known = {
            **os.environ,
            "FLEET_BROKER": self.broker.url,
            "FLEET_ROLE": role,
            "FLEET_NAME": name,
            "FLEET_QUEUES": queues,
            "FLEET_DIRECTORY": str(self.directory),
            "PYTHONPATH": f"{HERE}{os.pathsep}{ROOT}",
            **environment,
        }
        command = [sys.executable, "-m", "celery", "-A", "fleet_app", "worker", "-l", "INFO"]
        with log.open("wb") as out:
            process = subprocess.Popen(command, env=known, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT)
        self.started.append(process)
        return process, log

    def ready(
        self, role: str, name: str, queues: str, **environment: str
    ) -> tuple[subprocess.Popen[bytes], Path]:
        process, log = self.start(role, name, queues, **environment)
        wait_until(lambda: " ready." in log.read_text() or process.poll() is not None, f"{name} ready")
        assert process.poll() is None, log.read_text()
        return process, log

    def stop(self) -> None:
        for process in self.started:
            process.kill()
            process.wait()
