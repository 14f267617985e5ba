"""The directories in which jobs with a workspace run, and what travels between them and control.

    DIRECTORY/workspaces/<job id>/files      what the job's script runs in: there once it is complete
    DIRECTORY/workspaces/<job id>/parts      large files on their way in
    DIRECTORY/blobs                          what this node had before: `app.node.blobcache`

`files` is elsewhere where the script is (`app.node.trees`). Whoever is killed in the middle leaves it whole or not at
all, and the next one goes on with what has come.
"""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from app.errors import NotFound, Unavailable
from app.files import places
from app.files.changes import difference
from app.files.limits import Limits
from app.files.manifest import EMPTY, Entry, Manifest
from app.files.names import BadTree, Globs
from app.node import blobs
from app.node.asking import Refused, Stopped
from app.node.blobcache import BlobCache
from app.node.blobs import BlobClient
from app.node.filing import Filed
from app.node.runner_client import Interrupted
from app.node.trees import Left, NearTrees, Trees, named
from app.settings import Settings
from app.transport.messages import Job
from app.transport.workspace import Workspace

log = logging.getLogger(__name__)

Connect = Callable[[Mapping[str, str], Path], BlobClient]
"""The client of a job: by `Order.files`, and a directory of its own for unfinished files."""

WORKSPACES: Final = "workspaces"
_COMES: Final = ("push", "sync")


class Workplace:
    """Prepares the directories of jobs and takes back what has changed in them: `app.node.filing.Filing`.

    `directory` is the node's own; the directories in which scripts run are those of `trees`.
    """

    def __init__(
        self, directory: Path, connect: Connect, cache: BlobCache, limits: Limits, trees: Trees
    ) -> None:
        self._directory = directory / WORKSPACES
        self._connect = connect
        self._cache = cache
        self._limits = limits
        self._trees = trees
        self._lock = threading.Lock()
        self._clients: dict[str, BlobClient] = {}
        self._stopped: set[str] = set()
        self._released = False

    def prepare(self, job: Job, files: Mapping[str, str]) -> str:
        """The directory of the job, private, with what its workspace sends there: see `Filing`."""
        with _plainly():
            place = self._trees.ready(job)
            if not place:
                with self._client(job, files) as client:
                    place = self._build(job, client, _asked(job))
            return place

    def _build(self, job: Job, client: BlobClient, asked: Workspace) -> str:
        manifest = self._base(client, asked)
        sizes = {entry.sha256: entry.size for entry in manifest.files.values()}
        with self._cache.holding(sizes):
            client.fetch(sizes)
            try:
                return self._trees.build(job, manifest, self._cache.open)
            except (BadTree, NotFound) as wrong:
                # A script of the same user may have reached the cache, or the disk has lost a part of it.
                log.warning("the cache of blobs was wrong, and is not believed: %s", wrong.message)
                for digest in sizes:
                    self._cache.forget(digest)
                client.fetch(sizes)
                return self._trees.build(job, manifest, self._cache.open)

    def collect(self, job: Job, files: Mapping[str, str], succeeded: bool) -> Filed:
        """What the job has changed, as far as it is to come back or its script has failed; and its artifacts."""
        asked = _asked(job)
        with _plainly():
            left = self._trees.left(job)
            with self._client(job, files) as client:
                changes = artifacts = ""
                if asked.comes_back or not (succeeded or asked.mode == "none"):
                    globs = Globs(asked.include, asked.exclude)
                    changed = difference(self._base(client, asked), left.scan(globs))
                    if not changed.is_empty:
                        changes = self._put(left, client, changed.put, changed.to_bytes(), changed.digest)
                if asked.artifacts:
                    kept = left.scan(Globs(asked.artifacts))
                    if kept.files:
                        kept = Manifest(kept.files)
                        artifacts = self._put(left, client, kept.files, kept.to_bytes(), kept.digest)
                return Filed(changes, artifacts)

    def _base(self, client: BlobClient, asked: Workspace) -> Manifest:
        """What the job found in its directory."""
        if asked.mode not in _COMES or not asked.snapshot:
            return EMPTY
        return client.manifest(asked.snapshot).only(Globs(asked.include, asked.exclude))

    def _put(
        self, left: Left, client: BlobClient, files: Mapping[str, Entry], document: bytes, digest: str
    ) -> str:
        """Gives control these files and the document about them; its digest."""
        sizes = {entry.sha256: entry.size for entry in files.values()} | {digest: len(document)}
        with self._cache.holding(sizes):
            self._keep(left, files, document, digest)
            try:
                client.put(sizes)
            except (BadTree, Refused) as wrong:
                if wrong.code != BadTree.code:
                    raise
                # The cache may hold something else under one of the names: once more, from the files themselves.
                for one in sizes:
                    self._cache.forget(one)
                self._keep(left, files, document, digest)
                client.put(sizes)
        return digest

    def _keep(self, left: Left, files: Mapping[str, Entry], document: bytes, digest: str) -> None:
        """Makes sure that the cache has the document and the files that it is about."""
        by_digest = {entry.sha256: path for path, entry in files.items()}
        missing = self._cache.missing({digest, *by_digest})
        if digest in missing:
            self._cache.add(digest, len(document), io.BytesIO(document))
        left.keep({by_digest[one]: files[by_digest[one]] for one in missing - {digest}}, self._cache)

    def discard(self, job_id: str) -> None:
        self._trees.discard(job_id)
        self._remove(self._directory / named(job_id))
        with self._lock:
            self._stopped.discard(job_id)

    def stop(self, job_id: str) -> None:
        with self._lock:
            self._stopped.add(job_id)
            client = self._clients.get(job_id)
        if client is not None:
            client.stop()

    def release(self) -> None:
        with self._lock:
            self._released = True
            clients = list(self._clients.values())
        for client in clients:
            client.stop()

    def sweep(self, known: Collection[str]) -> None:
        self._trees.sweep(known)
        if not self._directory.is_dir():
            return
        for path in self._directory.iterdir():
            if path.name not in known:
                log.info("removing what is left of job %s", path.name)
                self._remove(path)

    @staticmethod
    def _remove(path: Path) -> None:
        try:
            places.remove(path)
        except OSError as error:
            log.warning("what is left of job %s stays until the next start: %s", path.name, error)

    @contextmanager
    def _client(self, job: Job, files: Mapping[str, str]) -> Iterator[BlobClient]:
        """A client that `stop` and `release` reach. Raises Interrupted in place of Stopped once this worker leaves."""
        parts = self._directory / named(job.id) / "parts"
        parts.mkdir(mode=0o700, parents=True, exist_ok=True)
        client = self._connect(files, parts)
        with self._lock:
            self._clients[job.id] = client
            stopped = self._released or job.id in self._stopped
        if stopped:
            client.stop()
        try:
            yield client
        except Stopped:
            if self._released:
                raise Interrupted(f"the files of job {job.id} are left to the next worker") from None
            raise
        finally:
            client.close()
            with self._lock:
                del self._clients[job.id]


def limits_of(settings: Settings) -> Limits:
    """What a tree may have on a node with these settings."""
    return Limits(files=settings.workspace_files, bytes=settings.workspace_bytes)


def make_workplace(directory: Path, settings: Settings, trees: Trees | None = None) -> Workplace:
    """The workplace of a node whose directory this is; scripts run here, where no other `trees` are given."""
    limits = limits_of(settings)
    cache = BlobCache(directory / "blobs", settings.blob_cache)
    connect = blobs.connector(cache, settings.url, settings.transfer_patience, limits)
    return Workplace(directory, connect, cache, limits, trees or NearTrees(directory / WORKSPACES, limits))


def _asked(job: Job) -> Workspace:
    return job.workspace or Workspace()


@contextmanager
def _plainly() -> Iterator[None]:
    """What the disk refuses, in words."""
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if isinstance(error.filename, str) else ""
        raise Unavailable(f"the disk of this node: {error.strerror}{where}", code="workspace-disk") from None
