"""Directories and manifests: what is there is told, and what is told is made.

All by descriptors of directories (`app.files.places`): nothing here follows a link, so that nothing outside of the
tree is read or written, whoever swaps what under it meanwhile.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from app.files.documents import Entry
from app.files.limits import DEFAULT, FEWER_BYTES, FEWER_FILES, Limits
from app.files.manifest import Manifest
from app.files.names import BadTree, Globs, check_name
from app.files.places import Walk, create_file, open_directory, open_file, remove

OpenBlob = Callable[[str], BinaryIO]
"""The bytes of a file by their sha256 in hexadecimal. What it gives is closed by who asked."""

Seen = Mapping[str, "Sight"]
"""Files by their paths as `build` has left them."""


class Sight(NamedTuple):
    """What tells that a file is still the one it was: whoever writes to it, or puts another in its place, changes one
    of these. `changed` is `ctime` in nanoseconds: the kernel's own, which nobody else can set."""

    inode: int
    size: int
    changed: int
    entry: Entry


_CHUNK: Final = 1 << 20
_COARSE: Final = 20_000_000
"""Nanoseconds in which two changes of a file may have the same time: twice the longest tick of a kernel's clock."""
_EVERYTHING = Globs()


def scan(
    directory: str | os.PathLike[str],
    globs: Globs | None = None,
    limits: Limits = DEFAULT,
    *,
    strict: bool = False,
    left_out: list[str] | None = None,
    seen: Seen | None = None,
) -> Manifest:
    """What is in the directory, as far as the patterns take it. A file that is as it was `seen` is not read.

    Links, devices, pipes and sockets have no place in a manifest: their paths are added to `left_out`, and with
    `strict` they are an error. Of the modes the nine permission bits are told. Raises BadTree for a name that cannot
    travel and where there is more than the limits allow (as soon as that shows), OSError for what cannot be read.
    """
    found = _Scan(globs or _EVERYTHING, limits, strict, seen or {})
    top = open_directory(directory)
    try:
        found.directory(top, "", 1)
    finally:
        os.close(top)
    if left_out is not None:
        left_out += found.left_out
    return Manifest.of(found.files, found.directories, limits)


class _Scan:
    def __init__(self, globs: Globs, limits: Limits, strict: bool, seen: Seen) -> None:
        self.files: dict[str, Entry] = {}
        self.directories: list[str] = []
        self.left_out: list[str] = []
        self._globs = globs
        self._limits = limits
        self._strict = strict
        self._seen = seen
        self._bytes = 0
        self._buffer = memoryview(bytearray(_CHUNK))

    def directory(self, here: int, prefix: str, depth: int) -> bool:
        """All that is in the open directory `here`, whose path and a `/` is `prefix`; whether anything was taken."""
        took = False
        # Not as a list: somebody may have put a million files here, of which the limit stops at the first thousands.
        with os.scandir(here) as entries:
            for entry in entries:
                path = prefix + entry.name
                if entry.is_dir(follow_symlinks=False):
                    if self._globs.may_enter(path):
                        took |= self._inner(entry.name, here, path, depth)
                elif self._globs.takes(path):
                    if entry.is_file(follow_symlinks=False):
                        took = True
                        self._check(entry.name, path, depth)
                        self.files[path] = self._file(entry.name, here, path)
                    else:
                        self._leave_out(path)
                if len(self.files) + len(self.directories) + len(self.left_out) > self._limits.files:
                    message = f"there are more than {self._limits.files} files and empty directories"
                    raise BadTree(message, hint=FEWER_FILES)
        return took

    def _inner(self, name: str, here: int, path: str, depth: int) -> bool:
        """A directory in the directory `here`; whether it or anything in it was taken."""
        self._check(name, path, depth)
        descriptor = open_directory(name, here, shown=path)
        try:
            if self.directory(descriptor, path + "/", depth + 1):
                return True
        finally:
            os.close(descriptor)
        if took := self._globs.takes(path):
            self.directories.append(path)
        return took

    def _check(self, name: str, path: str, depth: int) -> None:
        limits = self._limits
        check_name(name, limits)
        if depth > limits.depth:
            raise BadTree(f"{path[:100]}… is more than {limits.depth} names deep")
        if len(path.encode()) > limits.path_bytes:
            raise BadTree(f"{path[:100]}… has more than {limits.path_bytes} bytes")

    def _leave_out(self, path: str) -> None:
        shown = os.fsencode(path).decode(errors="backslashreplace")
        if self._strict:
            raise BadTree(
                f"{shown!a} is a link, a device, a pipe or a socket: only files and directories travel"
            )
        self.left_out.append(shown)

    def _file(self, name: str, here: int, path: str) -> Entry:
        known = self._seen.get(path)
        if known is not None:
            told = os.stat(name, dir_fd=here, follow_symlinks=False)
            if _sight(told, known.entry) == known and stat.S_ISREG(told.st_mode):
                self._need_room(told.st_size)
                self._bytes += told.st_size
                return known.entry._replace(mode=told.st_mode & 0o777)
        descriptor = open_file(name, here, shown=path)
        try:
            told = os.fstat(descriptor)
            self._need_room(told.st_size)
            digest, size = hashlib.sha256(), 0
            while count := os.readv(descriptor, [self._buffer]):
                digest.update(self._buffer[:count])
                size += count
                # It may grow as fast as it is read.
                self._need_room(size)
        finally:
            os.close(descriptor)
        self._bytes += size
        return Entry(told.st_mode & 0o777, size, digest.hexdigest())

    def _need_room(self, size: int) -> None:
        if self._bytes + size > self._limits.bytes:
            message = f"the files have more than {self._limits.bytes} bytes together"
            raise BadTree(message, hint=FEWER_BYTES)


def build(
    directory: str | os.PathLike[str], manifest: Manifest, open_blob: OpenBlob, *, among_others: bool = False
) -> Seen:
    """Makes the directory with all that the manifest names, whole or not at all. Gives what `scan` need not read again.

    It is written aside, as `<directory>.part`, where nothing else may be put meanwhile, and takes its name when it
    is complete. What is left of an earlier attempt is removed. With `among_others`, where that name may be somebody's,
    it is one that nobody has. Raises BadTree where a blob holds something else than its name says
    (`detail["digest"]`), OSError where the disk refuses or the directory is there and not empty.
    """
    target = Path(directory)
    if among_others:
        aside = target.with_name(f".muster-{secrets.token_hex(8)}.part")
    else:
        aside = target.with_name(target.name + ".part")
        remove(aside)
    aside.mkdir(mode=0o700)
    seen = {}
    try:
        with Walk(aside) as walk:
            for path in sorted(manifest.files):
                parent, _, name = path.rpartition("/")
                entry = manifest.files[path]
                seen[path] = write_file(name, walk.to(parent, make=True), path, entry, open_blob)
            for path in manifest.directories:
                walk.to(path, make=True)
        aside.rename(target)
    except BaseException:
        with suppress(OSError):
            remove(aside)
        raise
    # Of what was written last a change at once would not show.
    before = time.time_ns() - _COARSE
    return {path: sight for path, sight in seen.items() if sight.changed < before}


def write_file(name: str, here: int, path: str, entry: Entry, open_blob: OpenBlob) -> Sight:
    """Writes the file of a path, which is not there yet, into the open directory `here`. Raises as `build` does."""
    with open_blob(entry.sha256) as blob, open(create_file(name, here), "wb", buffering=0) as file:
        digest, left = hashlib.sha256(), entry.size
        # One byte more than there should be, so that a blob that is too long is seen.
        while left >= 0 and (data := blob.read(min(left + 1, _CHUNK))):
            left -= len(data)
            digest.update(data)
            view = memoryview(data)
            while len(view):
                view = view[file.write(view) :]
        if left or digest.hexdigest() != entry.sha256:
            raise wrong_blob(path, entry)
        os.fchmod(file.fileno(), entry.mode)
        return _sight(os.fstat(file.fileno()), entry)


def wrong_blob(path: str, entry: Entry) -> BadTree:
    """What is raised where the blob for a file holds something else than its name says."""
    return BadTree(f"the blob for {path} is not what its name says", path=path, digest=entry.sha256)


def _sight(told: os.stat_result, entry: Entry) -> Sight:
    return Sight(told.st_ino, told.st_size, told.st_ctime_ns, entry)
