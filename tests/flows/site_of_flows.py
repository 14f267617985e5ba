"""Hosts for flows: a real sshd on loopback addresses, a tool that does as it is told, and connections through a door
that a test may shut.

    site.flow(0, sleep=60)      # a flow whose tool sleeps; `exit`, `write`, `say`, `as` and `ignore` are understood too
    site.run("asyncssh", flows) # asyncssh, openssh or parallel
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sshd import Sshd

from app.flows.breakers import Breakers
from app.flows.model import Flow, Result, Terms, Watch
from app.flows.remote import RemoteExecutor, connect_by

WAYS = ("asyncssh", "openssh", "parallel")
WORKFLOW = "# a comment that goes along: ümlaut\ntasks: [{name: a, action: core.noop}]\n"

TOOL = """
import json, os, signal, sys, time
words = sys.argv[1:]
named = dict(zip(words[2::2], words[3::2]))
with open(named["--input"]) as file:
    state = json.load(file)
told = state["parameters"]
told |= told.get("only", {}).get(named["--entry-point"], {})
with open(told["pids"], "a") as file:
    file.write(f"{os.getpid()}\\n")
if "ignore" in told:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(told.get("say", ""), file=sys.stderr)
time.sleep(told.get("sleep", 0))
if "exit" in told:
    sys.exit(told["exit"])
seen = {
    "words": words,
    "cwd": os.getcwd(),
    "mode": oct(os.stat(".").st_mode & 0o777),
    "workflow": open(words[1]).read(),
    "address": os.environ.get("SSH_CONNECTION", "").split()[2:3],
    "given": json.loads(json.dumps(state)),
}
ended = {"status": "succeeded", "result": seen, "error": None}
state["task"][named["--entry-point"]] = told.get("as", ended)
state |= {"status": "completed", "error": None}
with open(named["--output"], "w") as file:
    file.write(told.get("write") or json.dumps(state))
"""


class Site:
    """`hosts` are two names of one machine, as workflows write them."""

    def __init__(self, directory: Path, sshd: Sshd) -> None:
        self.directory = directory
        self.sshd = sshd
        self.hosts = tuple(f"{sshd.user}@{address}:{sshd.port}" for address in sshd.addresses)
        self.workdir = directory / "jobs"
        self.config = directory / "ssh_config"
        self.configure(sshd.known_hosts())
        self.tools = directory / "tools"
        self.tools.mkdir()
        (self.tools / "tool.pyz").write_text(TOOL)
        self.pids = directory / "pids"
        self.breakers = Breakers()

    def configure(self, known_hosts: Path, key: Path | None = None) -> Path:
        """What `ssh -F` and asyncssh read."""
        self.config.write_text(
            f"UserKnownHostsFile {known_hosts}\nIdentityFile {key or self.sshd.key_file}\nIdentitiesOnly yes\n"
            f"IdentityAgent none\n"
        )
        return self.config

    def flow(self, number: int = 0, host: str = "", **told: Any) -> Flow:
        """A flow whose tool is told something."""
        state = {"parameters": {"pids": str(self.pids), **told}, "vars": {"n": number}, "task": {}}
        name = f"01EXEC-t{number}-1"
        return Flow(number, name, f"t{number}", "after", host or self.hosts[number % len(self.hosts)], state)

    def terms(self, **more: Any) -> Terms:
        """What all flows share."""
        basefile = self.tools / more.pop("basefile", "tool.pyz")
        return Terms(WORKFLOW, basefile, **{"workdir": str(self.workdir), "grace": 1, **more})

    def executor(self, way: str, most: int = 1_000_000) -> RemoteExecutor:
        """One of `WAYS`, or `auto`."""
        method, backend = (way, "") if way in ("parallel", "auto") else ("ssh", way)
        config = str(self.config)
        return RemoteExecutor(method, connect_by(backend, config), self.breakers, most, config)

    def run(self, way: str, flows: Sequence[Flow], watch: Watch | None = None, **terms: Any) -> list[Result]:
        return self.executor(way).execute(flows, self.terms(**terms), watch or Watch())

    def left(self) -> list[str]:
        """What is in the directory for flows, by relative path."""
        return sorted(str(path.relative_to(self.workdir)) for path in self.workdir.rglob("*"))

    def started(self) -> list[int]:
        """The pids of the tools that were started."""
        return [int(line) for line in self.pids.read_text().split()] if self.pids.exists() else []

    def running(self) -> list[int]:
        """Those of them that live."""
        return [pid for pid in self.started() if _lives(pid)]


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


class Door:
    """A port that leads to another one. It shuts out the first `shut` connections; with `mute` it takes every one and
    says nothing. `came` counts."""

    def __init__(self, to: tuple[str, int], *, shut: int = 0, mute: bool = False) -> None:
        self.to, self.shut, self.mute, self.came = to, shut, mute, 0
        self._open: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def __enter__(self) -> Door:
        return self

    def __exit__(self, *_: object) -> None:
        for one in (self._listening, *self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                one, _ = self._listening.accept()
                self.came += 1
                if self.came <= self.shut:
                    one.close()
                    continue
                self._open.append(one)
                if not self.mute:
                    other = socket.create_connection(self.to)
                    self._open.append(other)
                    for source, target in ((one, other), (other, one)):
                        threading.Thread(target=_pass, args=(source, target), daemon=True).start()


def _pass(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def programs(directory: Path, **scripts: str) -> str:
    """A PATH on which these programs come first."""
    directory.mkdir()
    for name, text in scripts.items():
        (directory / name).write_text(f"#!/bin/sh\n{text}\n")
        (directory / name).chmod(0o755)
    return f"{directory}{os.pathsep}{os.environ['PATH']}"
