"""Trees of files on a machine, told by the programs that are there: those of this system, and busybox alone."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import threading
from pathlib import Path
from typing import BinaryIO

import pytest

from app.files.limits import DEFAULT
from app.files.manifest import EMPTY, Entry, Manifest
from app.ssh.far_side import Ground
from app.ssh.link import Listener
from app.ssh.trees import FarTrees

NAMES = (
    "plain",
    "with space",
    "sums",
    "md5sums",
    "my directories",
    "end",
    "ü.txt",
    "straße/日本/файл",
    "straße/é",
    "😀",
    "q?",
)
"""Some are words by which a listing is taken apart."""


class Session:
    def taken(self, count: int) -> None:
        """Nobody waits."""

    def write(self, data: bytes) -> None:
        """Nothing more is sent."""

    def end_input(self) -> None:
        """It has ended."""

    def close(self) -> None:
        """It ends by itself."""


class Link:
    """Commands on this machine, with the programs of a directory."""

    is_open = True

    def __init__(self, programs: str) -> None:
        self._programs = programs

    def open(self, command: str, data: bytes, listener: Listener, *, keep: bool = False) -> Session:
        threading.Thread(target=self._run, args=(command, data, listener), daemon=True).start()
        return Session()

    def close(self) -> None:
        """There is nothing to end."""

    def _run(self, command: str, data: bytes, listener: Listener) -> None:
        shell = ["sh", "-c", command]
        environment = {"PATH": self._programs}
        done = subprocess.run(
            shell, executable=f"{self._programs}/sh", input=data, capture_output=True, env=environment
        )
        listener("out", done.stdout)
        listener("err", done.stderr)
        listener("closed", str(done.returncode).encode())


@pytest.fixture(params=["system", "busybox"])
def trees(request: pytest.FixtureRequest, tmp_path: Path) -> FarTrees:
    programs = "/usr/bin"
    if request.param == "busybox":
        found = shutil.which("busybox")
        if found is None:
            assert not os.environ.get("CI"), "busybox must be there in CI"
            pytest.skip("busybox is not installed")
        programs = str(tmp_path / "bin")
        os.mkdir(programs)
        for name in subprocess.run(
            [found, "--list"], capture_output=True, text=True, check=True
        ).stdout.split():
            os.symlink(found, f"{programs}/{name}")
    (tmp_path / "base").mkdir()
    return FarTrees(Link(programs), Ground("INST", "web-1", 60.0, str(tmp_path / "base")), DEFAULT)


def test_files_of_any_name_go_there_and_come_back(trees: FarTrees, tmp_path: Path) -> None:
    contents = {name: f"in {name}\n".encode() for name in NAMES}
    by_digest = {hashlib.sha256(data).hexdigest(): data for data in contents.values()}
    modes = (0o644, 0o755, 0o600)
    wanted = Manifest.of(
        {
            name: Entry(modes[number % 3], len(data), hashlib.sha256(data).hexdigest())
            for number, (name, data) in enumerate(contents.items())
        },
        ("leer/größe",),
    )
    assert trees.begin("J.a.0.1", "E") == (EMPTY, set())
    trees.change("J.a.0.1", (EMPTY, set()), wanted, lambda digest: io.BytesIO(by_digest[digest]))
    assert trees.begin("J.a.0.1", "E") is None
    place = trees.place("J.a.0.1")
    assert {str(one.relative_to(place)) for one in Path(place).rglob("*") if one.is_file()} == set(NAMES)
    found, directories = trees.listed(place)
    assert found == wanted
    assert directories == {"straße", "straße/日本", "leer", "leer/größe"}
    got: dict[str, bytes] = {}

    def take(digest: str, size: int, stream: BinaryIO) -> None:
        got[digest] = stream.read()

    trees.fetch(place, found.files, take, tmp_path / "aside")
    assert got == by_digest
