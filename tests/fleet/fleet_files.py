"""A fleet whose jobs have files, and the wire between its nodes and the API: watched, held up, cut."""

from __future__ import annotations

import os
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fleet import Fleet
from fleet_api import Api
from waiting import PATIENCE, wait_until

from app.cli import bring_back, transfer
from app.cli.client import Client
from app.files.manifest import Manifest
from app.files.names import Globs

_REQUEST = re.compile(rb"(GET|HEAD|POST|PUT) (/api/v1/\S+) HTTP/1\.1\r\n")
_LONGEST_LINE = 300


class Hold:
    """One way of the wire ends after so many bytes, until it is let go: `met` says that this is so."""

    def __init__(self, way: str, after: int) -> None:
        self.way = way
        self.met = threading.Event()
        self.free = threading.Event()
        self._left = after

    def pass_on(self, way: str, size: int) -> int:
        """How many of so many bytes may go on now; waits where none may."""
        if way != self.way or self.free.is_set():
            return size
        if self._left <= 0:
            self.met.set()
            self.free.wait(PATIENCE)
            return size
        self._left -= (now := min(size, self._left))
        return now


class Wire:
    """A TCP proxy that nodes are told is the API. `up` and `down` count bytes, `asked` are the requests."""

    def __init__(self) -> None:
        self.target = ("", 0)
        self.up = self.down = self.refused = 0
        self.asked: list[str] = []
        self._hold: Hold | None = None
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    @contextmanager
    def held(self, way: str, after: int) -> Iterator[Hold]:
        self._hold = Hold(way, after)
        try:
            yield self._hold
        finally:
            self._hold.free.set()
            self._hold = None

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self.target, timeout=10)
                far.settimeout(None)
            except OSError:
                self.refused += 1
                near.close()
                continue
            for way, source, target in (("up", near, far), ("down", far, near)):
                threading.Thread(target=self._carry, args=(way, source, target), daemon=True).start()

    def _carry(self, way: str, source: socket.socket, target: socket.socket) -> None:
        seen = b""
        with suppress(OSError):
            while data := source.recv(1 << 16):
                while data:
                    size = self._hold.pass_on(way, len(data)) if self._hold else len(data)
                    target.sendall(data[:size])
                    seen = self._note(way, seen, data[:size])
                    data = data[size:]
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        source.close()

    def _note(self, way: str, seen: bytes, data: bytes) -> bytes:
        if way == "down":
            self.down += len(data)
            return b""
        self.up += len(data)
        seen += data
        end = 0
        for found in _REQUEST.finditer(seen):
            self.asked.append(f"{found[1].decode()} {found[2].decode()}")
            end = found.end()
        return seen[max(end, len(seen) - _LONGEST_LINE) :]


class Files:
    """`with Files() as files`: a fleet, its API, and people who bring directories."""

    def __init__(self, *names: str, **environment: str) -> None:
        self.wire = Wire()
        given = {"MUSTER_API_URL": self.wire.url, "MUSTER_TRANSFER_PATIENCE": "30", **environment}
        self.fleet = Fleet(names or ("local", "web-1", "web-2"), **given)

    def __enter__(self) -> Files:
        self.fleet.__enter__()
        self.api = Api(self.fleet)
        parts = urlsplit(self.api.url)
        self.wire.target = (str(parts.hostname), int(parts.port or 0))
        self.client = Client(self.api.url, self.api.tokens["author"])
        return self

    def __exit__(self, *problem: Any) -> None:
        try:
            self.fleet.__exit__(*problem)
        finally:
            self.wire.close()

    def upload(self, directory: Path) -> str:
        """The directory's files as a snapshot."""
        return transfer.upload(self.client, str(directory), Globs())[0].digest

    def begin(self, text: str, workspace: str = "", **parameters: Any) -> str:
        """A workflow begins with these files; the execution."""
        if "effects:" in text:
            parameters.setdefault("effects", str(self.fleet.effects))
        body = {"definition": text, "parameters": parameters, "workspace": workspace}
        asked = self.api.post("/workflow-executions", body, "author")
        assert asked.status == 201, asked.data
        return str(asked.data["id"])

    def now(self, execution: str) -> Manifest:
        """The files of an execution as they are."""
        return bring_back.now_of(self.client, execution)[1]

    def texts(self, execution: str, directory: Path) -> dict[str, str]:
        """What the files hold as they are now, brought into a directory that is not there yet."""
        bring_back.take_out(self.client, execution, str(directory))
        return texts_in(directory)

    def artifacts(self, execution: str, kind: str) -> dict[tuple[str, str], str]:
        """The texts of what is kept, by node and path, downloaded one by one."""
        where = f"/workflow-executions/{execution}/artifacts"
        return {
            (one["node"], one["path"]): self.bytes_of(f"{where}/{one['id']}").decode()
            for one in self.api.get(f"{where}?limit=200&kind={kind}").data["items"]
        }

    def bytes_of(self, path: str) -> bytes:
        return self.client.call("GET", f"/api/v1{path}", headers={"Accept": "*/*"}).body

    def errors(self, execution: str) -> dict[str, Mapping[str, Any]]:
        """Errors of jobs by task and node."""
        return {f"{job.task} on {job.node}": job.error for job in self.fleet.jobs(execution) if job.error}

    def left(self) -> list[str]:
        """Directories of jobs that are still on nodes."""
        return [
            path.name
            for name in self.fleet.names
            for path in (self.fleet.directory / "nodes" / name / "workspaces").glob("*")
        ]

    def wait_nothing_left(self) -> None:
        """A node removes a job's directory behind its outcome."""
        wait_until(lambda: not self.left(), self.left)


def write_tree(directory: Path, files: Mapping[str, Any], empty: Any = ()) -> Path:
    """Makes a directory: texts by path, or {text, mode}, the mode as `chmod` takes it."""
    directory.mkdir(exist_ok=True)
    for path, said in files.items():
        file = directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        whole = said if isinstance(said, dict) else {"text": said}
        file.write_text(whole["text"])
        file.chmod(int(whole.get("mode", "644"), 8))
    for path in empty:
        (directory / path).mkdir(parents=True)
    return directory


def texts_in(directory: Path) -> dict[str, str]:
    """The texts of all files in a directory by their paths."""
    return {
        os.fspath(path.relative_to(directory)): path.read_text()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }
