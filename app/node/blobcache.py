"""The blobs that a node keeps: what it has once had of a workspace need not travel again.

`DIRECTORY/ab/abcd…` is a blob; its time of change is when it was used last. `DIRECTORY/new` is where one is written
before it has its name. Nothing is synced to the disk, and scripts of the same user could reach it: so who builds a
tree of these checks every digest (`app.files.tree`), and says `forget` of one that is wrong.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import threading
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from app.errors import NotFound
from app.files.documents import is_digest
from app.files.names import BadTree

_CHUNK: Final = 1 << 20


class Source(Protocol):
    """Where the bytes of a blob come from; `read` gives nothing at the end only."""

    def read(self, size: int, /) -> bytes: ...


class BlobCache:
    """At most `most` bytes of blobs, those that are held excepted. Methods may be called from any thread.

    One process uses the directory at a time.
    """

    def __init__(self, directory: Path, most: int) -> None:
        self._directory = directory
        self._root = os.fspath(directory)
        self._most = most
        self._lock = threading.Lock()
        self._held: Counter[str] = Counter()
        self._numbers = itertools.count()
        self._new = directory / "new"
        self._new.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in self._new.iterdir():
            left.unlink()
        self._sizes = self._found()
        self._bytes = sum(self._sizes.values())

    def _found(self) -> OrderedDict[str, int]:
        """The sizes of what is there, the longest unused first."""
        found = []
        for path in self._directory.glob("??/*"):
            if is_digest(path.name):
                about = path.stat(follow_symlinks=False)
                found.append((about.st_mtime, path.name, about.st_size))
        return OrderedDict((digest, size) for _, digest, size in sorted(found))

    @contextmanager
    def holding(self, digests: Collection[str]) -> Iterator[None]:
        """Meanwhile none of these goes, however much there is."""
        with self._lock:
            self._held.update(digests)
        try:
            yield
        finally:
            with self._lock:
                self._held.subtract(digests)
                self._held += Counter()
                self._make_room()

    def missing(self, digests: Collection[str]) -> set[str]:
        """Those that are not here."""
        with self._lock:
            return {digest for digest in digests if digest not in self._sizes}

    def open(self, digest: str) -> BinaryIO:
        """The bytes of a blob; whoever asks closes it. Raises NotFound."""
        path = self._path(digest)
        try:
            file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb", buffering=0)
        except OSError:
            self.forget(digest)
            raise NotFound(f"this node does not have the blob {digest}", code="unknown-blob") from None
        with self._lock:
            if digest in self._sizes:
                self._sizes.move_to_end(digest)
        with suppress(OSError):
            os.utime(file.fileno())
        return file

    def add(self, digest: str, size: int, source: Source) -> None:
        """Takes the blob from `source`. Raises BadTree where it is not what its digest says, OSError of the disk."""
        path = self._new / str(next(self._numbers))
        try:
            with open(path, "xb", buffering=0) as file:
                self._copy(source, file, digest, size)
            self.adopt(digest, size, path)
        finally:
            path.unlink(missing_ok=True)

    def add_open(self, digest: str, size: int, descriptor: int) -> None:
        """Takes an open file that was found to have this digest: by another name for it, where the disk can do that.

        Nothing is copied then and nothing hashed, so whoever still writes into the file changes the blob as well: no
        more than a script could do to this cache anyway. Raises as `add`.
        """
        path = self._new / str(next(self._numbers))
        try:
            try:
                # By the descriptor: its name may be another file's by now. Only with a directory, though this path
                # needs none, does Python ask for the file behind the link.
                os.link(f"/proc/self/fd/{descriptor}", path, src_dir_fd=descriptor, follow_symlinks=True)
            except OSError:
                with os.fdopen(os.dup(descriptor), "rb", buffering=0) as file:
                    self.add(digest, size, file)
                return
            with suppress(OSError):
                os.utime(path)
            self.adopt(digest, size, path)
        finally:
            # A second name for what has that name already is not moved there.
            path.unlink(missing_ok=True)

    @staticmethod
    def _copy(source: Source, file: BinaryIO, digest: str, size: int) -> None:
        found, left = hashlib.sha256(), size
        while left >= 0 and (data := source.read(min(left + 1, _CHUNK))):
            found.update(data)
            left -= len(data)
            view = memoryview(data)
            while len(view):
                view = view[file.write(view) :]
        if left or found.hexdigest() != digest:
            raise BadTree(f"the blob {digest} is not what its name says", digest=digest)

    def adopt(self, digest: str, size: int, path: Path) -> None:
        """Takes over a file whose digest was checked, on the same file system."""
        target = self._path(digest)
        with suppress(FileExistsError):
            os.mkdir(os.path.dirname(target), 0o700)
        os.rename(path, target)
        with self._lock:
            self._bytes += size - self._sizes.pop(digest, 0)
            self._sizes[digest] = size
            self._make_room()

    def forget(self, digest: str) -> None:
        """Removes a blob, where it is there."""
        with self._lock:
            self._drop(digest)

    def _make_room(self) -> None:
        if self._bytes <= self._most:
            return
        for digest in [one for one in self._sizes if one not in self._held]:
            self._drop(digest)
            if self._bytes <= self._most:
                return

    def _drop(self, digest: str) -> None:
        self._bytes -= self._sizes.pop(digest, 0)
        with suppress(OSError):
            os.unlink(self._path(digest))

    def _path(self, digest: str) -> str:
        if not is_digest(digest):
            raise ValueError(f"{digest!r} is not a digest")
        # As text: a thousand paths are made at once.
        return f"{self._root}/{digest[:2]}/{digest}"
