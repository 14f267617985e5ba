"""Blobs as files of a directory: `ab/abcdef…`, readable by the control side's user alone."""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from app.errors import NotFound
from app.files.bundles import Source
from app.store.blobs.spool import Incoming, Spool, readable

_NAME = re.compile(r"[0-9a-f]{64}")
_LIBC = ctypes.CDLL(None, use_errno=True)
"""For `syncfs`, which the standard library does not have."""


def unknown(digest: str) -> NotFound:
    """That there is no such blob."""
    return NotFound(f"there is no blob sha256:{digest}", hint="it may have been pruned", code="unknown-blob")


class LocalBlobs(Incoming):
    """The store in a directory of this machine, made when something is put. Safe for many processes at once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._root = str(directory)
        self._spool = Spool(directory / "parts")
        self._made: set[str] = set()

    @property
    def place(self) -> str:
        return str(self._directory.absolute())

    def has(self, digests: Collection[str]) -> set[str]:
        with readable():
            return {digest for digest in digests if self.size(digest) is not None}

    def open(self, digest: str, start: int = 0) -> BinaryIO:
        with readable():
            try:
                file = self._path(digest).open("rb")
            except FileNotFoundError:
                raise unknown(digest) from None
            file.seek(start)
            return file

    def size(self, digest: str) -> int | None:
        try:
            return os.stat(f"{self._root}/{digest[:2]}/{digest}").st_size
        except FileNotFoundError:
            return None

    def put_many(self, blobs: Iterator[tuple[str, int, Source]]) -> Iterator[str]:
        for digest, size, stream in blobs:
            self.put(digest, size, stream)
            yield digest

    def sync(self) -> None:
        """The whole file system at once: a wait for each of a thousand small files is many times that."""
        with readable():
            handle = os.open(self._root, os.O_RDONLY)
            try:
                if _LIBC.syncfs(handle) != 0:
                    raise OSError(ctypes.get_errno(), "syncfs failed")
            finally:
                os.close(handle)

    def open_many(self, digests: Iterable[str]) -> Iterator[tuple[str, BinaryIO]]:
        return ((digest, self.open(digest)) for digest in digests)

    def delete(self, digest: str, before: float) -> None:
        path = self._path(digest)
        with readable(), suppress(FileNotFoundError), self._held(fcntl.LOCK_EX):
            if path.stat().st_mtime < before:
                path.unlink()

    def every(self) -> Iterator[str]:
        with readable():
            for directory in sorted(self._directory.glob("[0-9a-f][0-9a-f]")):
                names = [entry.name for entry in os.scandir(directory)]
                yield from sorted(name for name in names if _NAME.fullmatch(name))

    def _path(self, digest: str) -> Path:
        return self._directory / digest[:2] / digest

    def _take(self, path: str, digest: str) -> None:
        directory = f"{self._root}/{digest[:2]}"
        if digest[:2] not in self._made:
            with suppress(FileExistsError):
                os.mkdir(directory, 0o700)
            self._made.add(digest[:2])
        with self._held(fcntl.LOCK_SH):
            os.replace(path, f"{directory}/{digest}")

    @contextmanager
    def _held(self, how: int) -> Iterator[None]:
        """Between the look at how old a file is and its removal nobody puts it anew. Opened each time: of threads with
        one descriptor each would have what another one holds."""
        lock = os.open(f"{self._root}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, how)
            yield
        finally:
            os.close(lock)
