"""A station whose jobs have files: what they find, what they leave, and a small server of blobs beside it."""

from __future__ import annotations

import itertools
import shutil
import threading
from pathlib import Path
from typing import Any

from blob_server import BlobServer
from station_place import Place

from app.files.changes import Changes
from app.files.manifest import Entry, Manifest
from app.node.blobs import LARGE
from app.node.workplace import make_workplace
from app.settings import Settings
from app.transport.gate import Canvas
from app.transport.messages import Job, Outcome
from app.transport.workspace import Workspace

SOURCE = {
    "main.c": b"int main;\n",
    "lib/a.h": b"a",
    "lib/b.h": b"b",
    "run.sh": b"#!/bin/sh\necho ran in $PWD\n",
}
NUMBERS = itertools.count()
LARGE_FILE = bytes(range(256)) * ((LARGE >> 8) + 8000)


class Site(Place):
    """A place whose jobs have files. Its runner is one for all tests; what is kept is each test's own."""

    server: BlobServer
    settings: dict[str, Any]

    def begin(self, server: BlobServer, **settings: Any) -> Site:
        self.server = server
        self.settings = {"transfer_patience": 5.0, **settings}
        self.effects.unlink(missing_ok=True)
        shutil.rmtree(self.directory / "blobs", ignore_errors=True)
        self.station.filing = make_workplace(self.directory, Settings(**self.settings))
        return self

    def take_over(self) -> None:
        """A new worker in the place of the one that left."""
        self.station = self.new_station(**self.settings)
        held = self.station.journal.held()
        self.station.filing.sweep({entry.job for entry in held})
        for entry in held:
            self.station._take_up(entry)

    def snapshot(self, files: dict[str, bytes], empty: tuple[str, ...] = ()) -> str:
        digests = self.server.add(*files.values())
        entries = {
            path: Entry(0o755 if path.endswith(".sh") else 0o644, len(content), digest)
            for (path, content), digest in zip(files.items(), digests, strict=True)
        }
        return self.server.snapshot(Manifest.of(entries, empty))

    def with_files(
        self, script: str, name: str = "a", job: dict[str, Any] | None = None, **asked: Any
    ) -> Job:
        asked = {"snapshot": self.snapshot(SOURCE), "mode": "sync", **asked}
        return self.job(f"{name}{next(NUMBERS)}", script, workspace=Workspace(**asked), **(job or {}))

    def run(self, job: Job) -> Outcome:
        self.station.run(self.order(job, files=self.server.files), Canvas())
        return self.outcome(job)

    def run_aside(self, job: Job) -> threading.Thread:
        order = self.order(job, files=self.server.files)
        made = threading.Thread(target=self.station.run, args=(order, Canvas()))
        made.start()
        return made

    def changes(self, outcome: Outcome) -> Changes:
        assert outcome.files is not None
        return Changes.read(self.server.blobs[outcome.files["changes"]])

    def artifacts(self, outcome: Outcome) -> dict[str, bytes]:
        assert outcome.files is not None
        found = Manifest.read(self.server.blobs[outcome.files["artifacts"]])
        return {path: self.server.blobs[entry.sha256] for path, entry in found.files.items()}

    def put(self, outcome: Outcome) -> dict[str, bytes]:
        return {path: self.server.blobs[entry.sha256] for path, entry in self.changes(outcome).put.items()}

    def says(self, job: Job) -> list[str]:
        text = (Path(self.station.runner.spool(job.id)) / "stdout").read_text()
        return text.split("\n")[:-1]

    def left(self) -> list[str]:
        return sorted(path.name for path in (self.directory / "workspaces").glob("*"))
