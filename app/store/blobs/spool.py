"""Bytes on their way in: written aside, counted and hashed, and only then handed on under their name.

An upload that broke off stays as `parts/OWNER.DIGEST`, one for each owner, until it goes on or is forgotten.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import os
import re
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from app.errors import Conflict, Unavailable
from app.files.bundles import Source
from app.files.names import BadTree

CHUNK = 1 << 18
_PART = re.compile(r"[0-9a-f]{16}\.[0-9a-f]{64}")
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_FULL = (errno.ENOSPC, errno.EDQUOT)


def other_content(digest: str) -> BadTree:
    """That some bytes are not those that their name says."""
    return BadTree(
        f"the bytes are not those of sha256:{digest}",
        hint="the file changed while it was read: send it again",
    )


def wrong_offset(offset: int) -> Conflict:
    """That an upload goes on at another place than it was said to."""
    return Conflict(
        f"the upload stands at byte {offset}",
        hint="go on from there: Upload-Offset tells it",
        code="wrong-offset",
        offset=offset,
    )


@contextmanager
def readable() -> Iterator[None]:
    """What the disk refuses is Unavailable; its own words are for the log."""
    try:
        yield
    except OSError as error:
        reason = "it is full" if error.errno in _FULL else (error.strerror or type(error).__name__)
        raise Unavailable(
            f"the blob store does not work: {reason}", hint="see the log of the API", code="blob-store"
        ) from error


class Spool:
    """A private directory for what comes in, made when it is first used.

    Whoever is handed a file moves it away; with `stays` it is only read, and goes at the end.
    """

    def __init__(self, directory: Path, *, stays: bool = False) -> None:
        self._directory = directory
        self._stays = stays
        self._is_made = False

    @contextmanager
    def whole(self, digest: str, size: int, stream: Source) -> Iterator[str]:
        """The path of a file with `size` bytes of `stream`, gone at the end unless it was moved. Raises BadTree."""
        path = f"{self._made()}/new.{secrets.token_hex(16)}"
        taken = False
        try:
            with io.FileIO(os.open(path, _NEW, 0o600), "w") as file:
                found = _copied(stream, file, size, hashlib.sha256())
            if found != digest:
                raise other_content(digest)
            yield path
            taken = True
        finally:
            if not taken or self._stays:
                with suppress(FileNotFoundError):
                    os.unlink(path)

    def offset(self, digest: str, owner: str) -> int:
        """How many bytes of an upload are here."""
        try:
            return self._part(digest, owner).stat().st_size
        except FileNotFoundError:
            return 0

    @contextmanager
    def appended(
        self, digest: str, offset: int | None, total: int, stream: Source, owner: str
    ) -> Iterator[str | None]:
        """The upload's file if it is whole now, else None. Raises Conflict and BadTree, as `Blobs.append`."""
        self._made()
        path = self._part(digest, owner)
        with self._alone(path) as file:
            if offset is None:
                file.truncate(0)
            there = file.seek(0, os.SEEK_END)
            if offset not in (None, there):
                raise wrong_offset(there)
            if _grown(stream, file, total - there) < total - there:
                yield None
                return
            try:
                if stream.read(1) or _digest(file) != digest:
                    raise other_content(digest)
                yield str(path)
            finally:
                # Once it was moved away the next upload may be here already.
                if _is_at(file, path):
                    path.unlink()

    @contextmanager
    def _alone(self, path: Path) -> Iterator[io.FileIO]:
        """The file at the path, which nobody else writes to meanwhile. Raises Conflict where somebody does.

        Whoever had it before may have made a blob of it, or removed it, between our opening and our locking.
        """
        while True:
            with io.FileIO(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+") as file:
                _lock(file)
                if _is_at(file, path):
                    yield file
                    return

    def forget(self, before: float) -> int:
        """Remove uploads, and what a process left that was killed, that are older than `before` (Unix seconds)."""
        gone = 0
        for path in self._directory.glob("*.*"):
            with suppress(FileNotFoundError, Conflict), io.FileIO(path, "r+") as file:
                _lock(file)
                if _is_at(file, path) and path.stat().st_mtime < before:
                    path.unlink()
                    gone += bool(_PART.fullmatch(path.name))
        return gone

    def _made(self) -> Path:
        if not self._is_made:
            # `parents` would make those above with the mode that the umask leaves.
            self._directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._directory.mkdir(mode=0o700, exist_ok=True)
            self._is_made = True
        return self._directory

    def _part(self, digest: str, owner: str) -> Path:
        return self._directory / f"{hashlib.sha256(owner.encode()).hexdigest()[:16]}.{digest}"


def _is_at(file: io.FileIO, path: Path) -> bool:
    """Whether the open file is still the one at the path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _lock(file: io.FileIO) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Conflict(
            "another request adds to this upload",
            hint="wait for it, then ask how far it is",
            code="upload-busy",
        ) from None


def _grown(stream: Source, file: io.FileIO, most: int) -> int:
    """Adds up to `most` bytes of the stream; how many there were."""
    left = most
    while left > 0 and (chunk := stream.read(min(left, CHUNK))):
        file.write(chunk)
        left -= len(chunk)
    return most - left


def _copied(stream: Source, file: io.FileIO, size: int, digest: hashlib._Hash) -> str:
    """Writes `size` bytes; the sha256 of them, or of none where there were fewer."""
    left = size
    while left > 0:
        chunk = stream.read(min(left, CHUNK))
        if not chunk:
            return ""
        digest.update(chunk)
        file.write(chunk)
        left -= len(chunk)
    return digest.hexdigest()


def _digest(file: io.FileIO) -> str:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()


class Incoming(ABC):
    """The half of a store that takes blobs in, by way of the spool; where they go when they are whole is the store's
    own business. Its methods are those of `Blobs`."""

    _spool: Spool

    def put(self, digest: str, size: int, stream: Source) -> None:
        with readable(), self._spool.whole(digest, size, stream) as path:
            self._take(path, digest)

    def partial(self, digest: str, owner: str) -> int:
        with readable():
            return self._spool.offset(digest, owner)

    def append(self, digest: str, offset: int | None, total: int, stream: Source, owner: str) -> bool:
        with readable(), self._spool.appended(digest, offset, total, stream, owner) as path:
            if path is not None:
                self._take(path, digest)
            return path is not None

    def drop_partials(self, before: float) -> int:
        with readable():
            return self._spool.forget(before)

    @abstractmethod
    def _take(self, path: str, digest: str) -> None:
        """Give the whole and checked file at `path` its place."""
