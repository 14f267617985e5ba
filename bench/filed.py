"""A task with a workspace: 1,000 files to a node, every one changed by its script, and all of them back.

The files are new in every run, and of random bytes: nothing is there already, and nothing can be compressed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from app.cli import transfer
from app.cli.client import api
from app.files.limits import Limits
from app.files.names import Globs
from app.files.tree import scan
from bench.far import Gateway
from bench.processes import BIN, Broken, Processes
from bench.raw_far import Masters
from bench.served import ANSWER_WITHIN, timed
from tests.sshd import Sshd

FILES, BYTES = 1000, 20_000_000
DIRECTORIES = 50
WORKER = "node-1"

CHANGE = (
    "import pathlib\n"
    "for path in pathlib.Path('.').rglob('*'):\n"
    "    if path.is_file():\n"
    "        path.write_bytes(path.read_bytes()[::-1])\n"
)
"""Turns every file round: not a byte of it is where it was."""
_CHANGE = [sys.executable, "-IS", "-c", CHANGE]

_EVERY = Globs()


class Trip(NamedTuple):
    """Seconds from the request to the end with the files back, and those of them in which the script ran."""

    whole: float
    script: float


class Filed:
    """A node with a worker, and one over SSH; `sync` and `unchanged` are executions of one task each."""

    def __init__(self, processes: Processes, socket_path: str, sshd: Sshd) -> None:
        gateway = Gateway(processes, socket_path, workers=1)
        gateway.bring_in(sshd)
        self.fleet, self._client = gateway.fleet, gateway.client
        self._directory = processes.directory / "filed"
        self._left = dict.fromkeys(self.fleet.nodes, "")
        for node in self.fleet.nodes:
            self.sync(node)

    def sync(self, node: str) -> Trip:
        """One task over files that nobody has seen yet; control has them, as after `muster run --workspace`."""
        given = self._upload()
        trip, left = self._run(_CHANGE, node, given)
        if left != _turned(self._directory):
            raise Broken("what came back is not what the script made of the files")
        self._left[node] = left
        return trip

    def unchanged(self, node: str) -> Trip:
        """A task that finds what the last `sync` left, and leaves it alone."""
        trip, left = self._run(["true"], node, self._left[node])
        if left != self._left[node]:
            raise Broken("a script that does nothing has changed files")
        return trip

    def command(self) -> dict[str, float]:
        """Milliseconds of `muster run FILE --workspace DIR --bring-back`, its start to its exit: up to control, to
        the node, back to control and back here."""
        make_tree(self._directory)
        file = self._directory.with_suffix(".yaml")
        file.write_text(_definition(_CHANGE, WORKER))
        given = {"MUSTER_URL": self._client.url, "MUSTER_TOKEN": self._client.token}
        words = ["run", str(file), "--workspace", str(self._directory), "--bring-back"]
        return {"from_cli_ms": round(timed([str(BIN / "muster"), *words], given)[0] * 1e3, 1)}

    def _upload(self) -> str:
        make_tree(self._directory)
        return transfer.upload(self._client, str(self._directory), _EVERY)[0].digest

    def _run(self, command: list[str], node: str, snapshot: str) -> tuple[Trip, str]:
        """The task's trip, and the digest of the files that it left."""
        began = time.perf_counter()
        asked = {"definition": _definition(command, node), "workspace": snapshot}
        execution = self._client.post(api("workflow-executions"), asked, wait=ANSWER_WITHIN)["id"]
        whole = time.perf_counter() - began
        self.fleet.check(execution, 1)
        query = "SELECT (julianday(ended_at) - julianday(started_at)) * 86400 FROM jobs WHERE execution = ?"
        script = float(self.fleet.row(query, execution)[0])
        left = self._client.get(api("workflow-executions", execution, "workspace"))["snapshot"]
        return Trip(whole, script), str(left)


class RawFiled:
    """rsync there, the script by ssh, rsync back: all over one connection that is open."""

    def __init__(self, ours: Filed, directory: Path, sshd: Sshd) -> None:
        self._ours = ours
        self._directory = directory / "raw"
        self._directory.mkdir(mode=0o700)
        self._masters = Masters(self._directory / "masters", sshd)
        self._address = sshd.address
        self._ran = 0
        _done(["ssh", *self._masters.options, self._address, "true"])

    def sync(self, node: str) -> Trip:
        """The same files to the machine that is a node over SSH, changed, and back, whatever `node` ours go to."""
        del node
        here, there = self._directory / "here", self._directory / "there"
        make_tree(here)
        turned = self._directory / "turned"
        shutil.rmtree(turned, ignore_errors=True)
        shutil.copytree(here, turned)
        expected = _turned(turned)
        rsync = ["rsync", "-a", "-e", " ".join(["ssh", *self._masters.options])]
        place = f"{self._address}:{there}/"
        change = f'cd {there} && {sys.executable} -IS -c "{CHANGE}"'
        began = time.perf_counter()
        _done([*rsync, f"{here}/", place])
        went = time.perf_counter()
        _done(["ssh", *self._masters.options, self._address, change])
        changed = time.perf_counter()
        _done([*rsync, place, f"{here}/"])
        whole = time.perf_counter() - began
        if _digest(here) != expected:
            raise Broken("what rsync brought back is not what the script made of the files")
        shutil.rmtree(there)
        self._ran += 1
        return Trip(whole, changed - went)

    def first(self, node: str) -> Trip:
        """Our own task with new files: what one with files that the node has had is compared with."""
        return self._ours.sync(node)

    def ran(self) -> int:
        """How many scripts have ended since this was asked before."""
        ran, self._ran = self._ran, 0
        return ran

    def close(self) -> None:
        self._masters.close()


def make_tree(directory: Path) -> None:
    """FILES files of BYTES random bytes together, in place of whatever was there.

    They are an hour old: rsync would not notice what changes within the second in which a file was made.
    """
    shutil.rmtree(directory, ignore_errors=True)
    size, made = BYTES // FILES, time.time() - 3600
    for number in range(FILES):
        path = directory / f"part-{number % DIRECTORIES:02d}" / f"file-{number:04d}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(size))
        os.utime(path, (made, made))


def _definition(command: list[str], node: str) -> str:
    task = f"{{name: change, action: core.shell, input: {{command: {json.dumps(command)}}}}}"
    return f"delegate_to: {node}\nworkspace: sync\ntasks:\n  - {task}\n"


def _turned(directory: Path) -> str:
    """Runs the script here; the digest of what it leaves."""
    subprocess.run(_CHANGE, cwd=directory, check=True, timeout=ANSWER_WITHIN)
    return _digest(directory)


def _digest(directory: Path) -> str:
    return scan(directory, _EVERY, Limits()).digest


def _done(command: list[str]) -> None:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=ANSWER_WITHIN
    )
    if done.returncode:
        raise Broken(f"{command[0]} ended with {done.returncode}: {done.stderr[-500:]}")
