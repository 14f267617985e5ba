"""Nodes as a person runs them: `muster node start` in a terminal of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from running import MUSTER, Running
from waiting import PATIENCE


class ByHand:
    """A `muster node start` beside the fleet of `muster up`, where it finds the broker by itself."""

    def __init__(self, running: Running, name: str, *words: str) -> None:
        self.running = running
        self.name = name
        self._errors = (running.directory / f"{name}.by-hand").open("w+")
        self.process = subprocess.Popen(
            [*MUSTER, "node", "start", "--name", name, *words],
            cwd=running.directory,
            env=environment(running),
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def ready(self) -> dict[str, str]:
        """What it says once it is at work."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("ready "), self.said()
        return dict(word.split("=", 1) for word in line.split()[1:])

    def said(self) -> str:
        self._errors.seek(0)
        return self._errors.read()

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def end(self) -> int:
        """Waits for its end, or makes it; its exit code."""
        try:
            return self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
            self._errors.close()


def environment(running: Running) -> dict[str, str]:
    """A shell in which nothing of the broker is set, in the directory of the fleet."""
    given = running.environment(MUSTER_DATA_DIR=str(running.data))
    for name in ("REDIS_URL", "CELERY_BROKER_URL", "DATABASE_URL"):
        given.pop(name, None)
    return given


def token(running: Running, name: str, *labels: str) -> Path:
    """A file with a node's one-time token."""
    words = [word for label in labels for word in ("--label", label)]
    made = running.muster("node", "token", name, *words, "--json", role="admin")
    assert made.returncode == 0, made.stderr
    file = running.directory / f"{name}.token"
    file.write_text(made.stdout)
    return file


def typed(running: Running, *words: str) -> subprocess.CompletedProcess[str]:
    """`muster node start` to its end, for one that is to be refused."""
    return subprocess.run(
        [*MUSTER, "node", "start", *words],
        cwd=running.directory,
        env=environment(running),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def health(url: str) -> tuple[int, dict[str, Any]]:
    """Status and answer of a /healthz."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
