"""The directories in which jobs with a workspace run on a machine that is reached over SSH.

Blobs are kept here, as a node keeps them (`app.node.workplace`); the trees are on the machine. What its last ones have
of the next does not travel again, by its hashes.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from app.errors import MusterError
from app.files.limits import Limits
from app.files.manifest import EMPTY, Entry, Manifest
from app.files.names import BadTree, Globs
from app.files.tree import OpenBlob
from app.node.blobcache import BlobCache
from app.node.filing import Filing
from app.node.trees import Left, named
from app.node.workplace import WORKSPACES, limits_of, make_workplace
from app.settings import Settings
from app.ssh.filing import PatientFiling
from app.ssh.reach import Reach
from app.ssh.trees import FarTrees
from app.transport.messages import Job

log = logging.getLogger(__name__)


class Abroad:
    """In the way of `app.node.trees.Trees`. `reach` gives the way to the machine, `aside` has a directory for
    every job that is at work with its files."""

    def __init__(self, aside: Path, limits: Limits, reach: Callable[[], Reach]) -> None:
        self._aside = aside
        self._limits = limits
        self._reach = reach
        self._lock = threading.Lock()
        self._executions: dict[str, str] = {}
        # Jobs that are over and whose directories are still to be removed.
        self._owed: dict[str, str] = {}
        self._known: set[str] | None = None

    def ready(self, job: Job) -> str:
        """Nothing: `build` finds out, for it has to ask the machine anyway."""
        return ""

    def build(self, job: Job, manifest: Manifest, open_blob: OpenBlob) -> str:
        trees = self._trees()
        self._note(job)
        self._pay()
        self._sweep_once(trees)
        try:
            there = trees.begin(job.id, job.execution)
        except BadTree as wrong:
            # A script has left there what cannot be taken over.
            log.info("the last tree of execution %s is not used again: %s", job.execution, wrong.message)
            trees.renew(job.id)
            there = EMPTY, set()
        if there is not None:
            trees.change(job.id, there, manifest, open_blob)
        return trees.place(job.id)

    def left(self, job: Job) -> Left:
        self._note(job)
        trees = self._trees()
        place = trees.place(job.id)
        found, _ = trees.listed(place)
        return _Found(trees, place, found, self._aside / named(job.id) / "fetched")

    def discard(self, job_id: str) -> None:
        """Its tree stays on the machine for those that come after it."""
        with self._lock:
            execution = self._executions.pop(job_id, None)
            if execution is None:
                return
            self._owed[job_id] = execution
        # Once more where the connection has just dropped; after that with the next job.
        if not self._pay():
            self._pay()

    def _pay(self) -> bool:
        """Removes what is to be removed. False where the machine could not be told."""
        with self._lock:
            owed = dict(self._owed)
        try:
            for job_id, execution in owed.items():
                self._trees().finish(job_id, execution)
                with self._lock:
                    self._owed.pop(job_id, None)
        except MusterError as error:
            log.warning("the files of %d jobs stay on the machine for now: %s", len(owed), error.message)
            return False
        return True

    def sweep(self, known: Collection[str]) -> None:
        """With the first job that the machine is connected for."""
        with self._lock:
            self._known = set(known)

    def _sweep_once(self, trees: FarTrees) -> None:
        with self._lock:
            known, self._known = self._known, None
            if known is not None:
                known |= self._executions.keys()
        if known is not None:
            trees.sweep(known)

    def _note(self, job: Job) -> None:
        with self._lock:
            self._executions[job.id] = job.execution

    def _trees(self) -> FarTrees:
        reach = self._reach()
        link = reach.link()
        return FarTrees(link, reach.ground, self._limits)


class _Found:
    """What a machine has of a job. A large file is put together in `aside`."""

    def __init__(self, trees: FarTrees, place: str, found: Manifest, aside: Path) -> None:
        self._trees = trees
        self._place = place
        self._found = found
        self._aside = aside

    def scan(self, globs: Globs) -> Manifest:
        return self._found.only(globs)

    def keep(self, files: Mapping[str, Entry], cache: BlobCache) -> None:
        try:
            self._trees.fetch(self._place, files, cache.add, self._aside)
        finally:
            self._aside.unlink(missing_ok=True)


def make_far_workplace(directory: Path, settings: Settings, reach: Callable[[], Reach]) -> Filing:
    """The workplace of a node over SSH whose directory here this is."""
    os.makedirs(directory, 0o700, exist_ok=True)
    abroad = Abroad(directory / WORKSPACES, limits_of(settings), reach)
    return PatientFiling(make_workplace(directory, settings, abroad), reach, settings.ssh_patience)
