"""Directories by their descriptors: what is opened once cannot be swapped for something else under a path.

No name is ever followed through a symbolic link, and no path is opened as a whole: each name is opened in the
directory that it was found in. Functions raise BadTree for what is no directory or regular file, OSError for the rest.
"""

from __future__ import annotations

import errno
import itertools
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from app.files.names import BadTree

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A pipe in the place of a file would keep who opens it waiting for ever.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_REMOVED_WITHIN: Final = 120.0
_NOT_THIS = (errno.ELOOP, errno.ENOTDIR, errno.EMLINK)


def open_directory(name: str | os.PathLike[str], within: int | None = None, *, shown: str = "") -> int:
    """The descriptor of a directory in the directory `within`."""
    try:
        return os.open(name, _DIRECTORY, dir_fd=within)
    except OSError as error:
        if error.errno in _NOT_THIS:
            raise BadTree(f"{shown or name} is not a directory, or is a link", path=shown) from None
        raise


def open_file(name: str, within: int, *, shown: str = "") -> int:
    """The descriptor of a regular file in the directory `within`, to read."""
    try:
        found = os.open(name, _FILE, dir_fd=within)
    except OSError as error:
        if error.errno in (*_NOT_THIS, errno.ENXIO):
            raise BadTree(f"{shown or name} is no longer a regular file", path=shown) from None
        raise
    if not stat.S_ISREG(os.fstat(found).st_mode):
        os.close(found)
        raise BadTree(f"{shown or name} is no longer a regular file", path=shown)
    return found


def create_file(name: str, within: int) -> int:
    """The descriptor of a new private file in the directory `within`, to write. OSError where the name is taken."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(name, flags, 0o600, dir_fd=within)


class Walk:
    """Stands in one directory under a root at a time, and goes from it to another by as few steps as it can.

    Enter it with `with`: the descriptors that it holds, one for each name of where it stands, are closed at the end.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self._root = open_directory(root)
        self._names: list[str] = []
        self._open: list[int] = [self._root]

    def __enter__(self) -> Walk:
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            os.close(self._open.pop())

    @property
    def root(self) -> int:
        return self._root

    def to(self, directory: str, *, make: bool = False) -> int:
        """The descriptor of the directory, a path under the root; what is missing is made on request.

        It is good until the next step. FileNotFoundError where there is none.
        """
        names = directory.split("/") if directory else []
        shared = 0
        while shared < min(len(names), len(self._names)) and names[shared] == self._names[shared]:
            shared += 1
        while len(self._names) > shared:
            self._names.pop()
            os.close(self._open.pop())
        for name in names[shared:]:
            here = self._open[-1]
            if make:
                try:
                    os.mkdir(name, dir_fd=here)
                except FileExistsError:
                    # Fine where it is a directory, and told by opening it where it is not.
                    pass
            self._open.append(open_directory(name, here, shown=directory))
            self._names.append(name)
        return self._open[-1]


@contextmanager
def reading(root: str | os.PathLike[str]) -> Iterator[Callable[[str], int]]:
    """A function that opens a file under the root by its path, to read: a descriptor."""
    with Walk(root) as walk:

        def opened(path: str) -> int:
            parent, _, name = path.rpartition("/")
            return open_file(name, walk.to(parent), shown=path)

        yield opened


def remove(path: Path) -> None:
    """Removes a directory and all that is in it: however deep it is, and though its owner shut parts of it.

    Where there is none, nothing happens. Raises OSError, also where somebody fills it faster than it is emptied.
    """
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    until = time.monotonic() + _REMOVED_WITHIN
    moved = (f".{secrets.token_hex(8)}.{number}" for number in itertools.count())
    top = _let_in(os.fspath(path), None)
    try:
        while inner := _emptied(top):
            for name in inner:
                if time.monotonic() > until:
                    raise OSError(errno.ENOTEMPTY, "it fills faster than it is emptied", os.fspath(path))
                _flatten(name, top, moved)
    finally:
        os.close(top)
    path.rmdir()


def _flatten(name: str, top: int, names: Iterator[str]) -> None:
    """Removes a directory in `top`, and moves those that are in it up there: no depth is too much so."""
    here = _let_in(name, top)
    try:
        for inner in _emptied(here):
            os.close(_let_in(inner, here))
            os.rename(inner, next(names), src_dir_fd=here, dst_dir_fd=top)
    finally:
        os.close(here)
    with suppress(OSError):
        # Filled meanwhile: the next round sees it again.
        os.rmdir(name, dir_fd=top)


def _emptied(directory: int) -> list[str]:
    """Removes everything but directories from an open directory; the names of those."""
    found = []
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                found.append(entry.name)
            else:
                with suppress(FileNotFoundError):
                    os.unlink(entry.name, dir_fd=directory)
    return found


def _let_in(name: str, within: int | None) -> int:
    """Opens a directory after its owner was given leave to read and change it."""
    held = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=within)
    try:
        # By its descriptor: a link that takes its place meanwhile is not what is changed.
        os.chmod(f"/proc/self/fd/{held}", 0o700)
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=held)
    finally:
        os.close(held)
