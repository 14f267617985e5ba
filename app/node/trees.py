"""The trees of files that jobs run in: what `app.node.workplace` asks of them, and those on this machine."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Protocol

from app.errors import NotFound
from app.files import places, tree
from app.files.limits import Limits
from app.files.manifest import Entry, Manifest
from app.files.names import Globs
from app.files.tree import OpenBlob, Seen
from app.node.blobcache import BlobCache
from app.node.jobdir import is_id
from app.transport.messages import Job


class Left(Protocol):
    """The tree of a job as its script left it."""

    def scan(self, globs: Globs) -> Manifest:
        """What the patterns take of it. Raises BadTree."""

    def keep(self, files: Mapping[str, Entry], cache: BlobCache) -> None:
        """Has the cache take these. Raises BadTree where one is no longer what `scan` has said."""


class Trees(Protocol):
    """Every method may be called from any thread, and raises a MusterError or OSError that says why not."""

    def ready(self, job: Job) -> str:
        """The job's directory where it is known to be complete, else ""."""

    def build(self, job: Job, manifest: Manifest, open_blob: OpenBlob) -> str:
        """Makes the job's directory, whole or not at all; one that is complete is not touched.

        Raises BadTree (`detail["digest"]`) for a wrong blob.
        """

    def left(self, job: Job) -> Left:
        """Raises NotFound where the directory is gone."""

    def discard(self, job_id: str) -> None:
        """Removes the job's tree. Where there is none, nothing happens."""

    def sweep(self, known: Collection[str]) -> None:
        """Removes the trees of all other jobs than these."""


class NearTrees:
    """`DIRECTORY/<job id>/files` on this machine; who owns DIRECTORY removes what is in it."""

    def __init__(self, directory: Path, limits: Limits) -> None:
        self._directory = directory
        self._limits = limits
        self._lock = threading.Lock()
        self._seen: dict[str, Seen] = {}

    def ready(self, job: Job) -> str:
        place = self._place(job.id)
        return str(place) if place.is_dir() else ""

    def build(self, job: Job, manifest: Manifest, open_blob: OpenBlob) -> str:
        if found := self.ready(job):
            return found
        place = self._place(job.id)
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        seen = tree.build(place, manifest, open_blob)
        with self._lock:
            self._seen[job.id] = seen
        return str(place)

    def left(self, job: Job) -> Left:
        place = self._place(job.id)
        if not place.is_dir():
            raise NotFound(f"the directory of job {job.id} is gone", code="workspace-gone")
        return _NearLeft(place, self._limits, self._seen.get(job.id))

    def discard(self, job_id: str) -> None:
        with self._lock:
            self._seen.pop(job_id, None)

    def sweep(self, known: Collection[str]) -> None:
        """Nothing of a job is here but what is in its directory."""

    def _place(self, job_id: str) -> Path:
        return self._directory / named(job_id) / "files"


class _NearLeft:
    def __init__(self, place: Path, limits: Limits, seen: Seen | None) -> None:
        self._place = place
        self._limits = limits
        self._seen = seen

    def scan(self, globs: Globs) -> Manifest:
        return tree.scan(self._place, globs, self._limits, seen=self._seen)

    def keep(self, files: Mapping[str, Entry], cache: BlobCache) -> None:
        with places.reading(self._place) as opened:
            for path, entry in sorted(files.items()):
                descriptor = opened(path)
                try:
                    cache.add_open(entry.sha256, entry.size, descriptor)
                finally:
                    os.close(descriptor)


def named(job_id: str) -> str:
    """The job's id as the name of a directory. Raises ValueError for what cannot be one."""
    if not is_id(job_id):
        raise ValueError(f"{job_id!r} is not a job's id")
    return job_id
