"""Changes, done to a directory that is a person's own, in which somebody may be at work.

Only what the changes name is touched, and of that only what is still as it was before them: the rest is a conflict,
and stays. Each file is compared right before it is removed or replaced, as what went before may have taken long.

By descriptors of directories (`app.files.places`), as in `app.files.tree`: no link is followed.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from app.files.changes import Changes
from app.files.documents import Entry
from app.files.manifest import Manifest, directories_of
from app.files.names import BadTree
from app.files.places import Walk, open_file
from app.files.tree import OpenBlob, write_file

Directory = str | os.PathLike[str]
Move = Callable[[str, str, int], None]
"""Puts the new file of a path into an open directory, under a name."""

_SOMETHING: Final = Entry(-1, -1, "")
"""What is no file, or is behind a link or a file: no entry is equal to it."""


@dataclass(frozen=True, slots=True)
class Applied:
    """How many files were put and removed, and the paths that were left alone, sorted.

    `conflicts` were changed here meanwhile. `held` were not: they would have gone for a file that is a conflict.
    """

    put: int = 0
    gone: int = 0
    conflicts: tuple[str, ...] = ()
    held: tuple[str, ...] = ()


def free(directory: Directory, before: Manifest, changes: Changes) -> dict[str, Entry]:
    """The new files that are not here yet and may be put, as it looks now: `apply` asks again. OSError as there."""
    with Walk(directory) as walk:
        place = _Place(walk, before, changes)
        found = {}
        for path, entry in changes.put.items():
            here = place.here(path)
            if here != entry and place.is_free(path, here):
                found[path] = entry
        return found


def apply(
    directory: Directory,
    before: Manifest,
    changes: Changes,
    wanted: Mapping[str, Entry],
    open_blob: OpenBlob,
) -> Applied:
    """Does what was done to `before` to a directory that may hold more. Of the new files it puts those `wanted`
    (`free`); another that is not here as it should be is a conflict.

    Every new file is first written aside, in a private directory beside the others, and then renamed to its place: a
    blob that is missing or wrong leaves all as it was. Raises BadTree for such a blob (`detail["digest"]`) and where
    the directory is none, OSError where the disk refuses, which may leave changes half done, and no single file.
    """
    with Walk(directory) as walk, _written(directory, wanted, open_blob) as move:
        work = _Work(walk, before, changes)
        for path, entry in changes.put.items():
            work.put(path, entry, move if path in wanted else None)
        for path in changes.gone:
            work.remove(path)
        for path in changes.made:
            work.make(path)
        work.tidy()
    return work.applied


@contextmanager
def _written(directory: Directory, files: Mapping[str, Entry], open_blob: OpenBlob) -> Iterator[Move]:
    """Writes the files into a private directory in the other, which is gone in the end; gives what moves them."""
    aside = f".muster-{secrets.token_hex(8)}.part"
    numbers = {path: str(number) for number, path in enumerate(files)}
    with Walk(directory) as parts:
        if files:
            os.mkdir(aside, 0o700, dir_fd=parts.root)
        try:
            here = parts.to(aside if files else "")
            for path, entry in files.items():
                write_file(numbers[path], here, path, entry, open_blob)
            yield lambda path, name, to: os.rename(numbers[path], name, src_dir_fd=here, dst_dir_fd=to)
        finally:
            with suppress(OSError):
                shutil.rmtree(aside, dir_fd=parts.root)


class _Place:
    """What is in a directory now, beside what was there before the changes."""

    def __init__(self, walk: Walk, before: Manifest, changes: Changes) -> None:
        self._walk = walk
        self._before = before.files
        self._directories = directories_of((*before.files, *before.directories)).union(before.directories)
        self._going = frozenset(changes.gone)

    def here(self, path: str) -> Entry | None:
        """The file as it is now; None where there is nothing."""
        parent, _, name = path.rpartition("/")
        try:
            descriptor = open_file(name, self._walk.to(parent), shown=path)
        except FileNotFoundError:
            return None
        except BadTree:
            return _SOMETHING
        with os.fdopen(descriptor, "rb") as file:
            told = os.fstat(descriptor)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return Entry(told.st_mode & 0o777, told.st_size, digest)

    def is_free(self, path: str, here: Entry | None) -> bool:
        """Whether a new file may be put where `here` is: that is as it was, or all that is in the way goes."""
        if here is not _SOMETHING:
            return here == self._before.get(path)
        return any(self._goes(above) for above in directories_of([path])) or self._is_emptied(path)

    def _goes(self, path: str) -> bool:
        return path in self._going and self.here(path) == self._before.get(path)

    def _is_emptied(self, path: str) -> bool:
        """Whether a directory was there before and holds only such, and files that go. One that somebody has made
        since is theirs, though it is empty."""
        if path not in self._directories:
            return False
        try:
            inside = self._inside(path)
        except (BadTree, FileNotFoundError):
            return False
        return all(
            self._is_emptied(inner) if is_directory else self._goes(inner) for inner, is_directory in inside
        )

    def _inside(self, path: str) -> list[tuple[str, bool]]:
        """The paths in a directory, and which of them are directories."""
        with os.scandir(self._walk.to(path)) as entries:
            return [(f"{path}/{entry.name}", entry.is_dir(follow_symlinks=False)) for entry in entries]


class _Work(_Place):
    """The changes as they are done, and what became of them."""

    def __init__(self, walk: Walk, before: Manifest, changes: Changes) -> None:
        super().__init__(walk, before, changes)
        self._changes = changes
        self._filled = directories_of((*changes.put, *changes.made)).union(changes.made)
        self._in_the_way = _in_the_way(changes)
        self._put = 0
        self._removed: set[str] = set()
        self._conflicts: set[str] = set()
        self._held: set[str] = set()
        # Of what goes: in the way of a file that could not be put, and of one that is there now.
        self._kept: set[str] = set()
        self._settled: set[str] = set()

    @property
    def applied(self) -> Applied:
        return Applied(
            self._put, len(self._removed), tuple(sorted(self._conflicts)), tuple(sorted(self._held))
        )

    def put(self, path: str, entry: Entry, move: Move | None) -> None:
        """Puts a new file by `move`, after what goes for it. Without one it should be there already."""
        here = self.here(path)
        if move and here is _SOMETHING and self.is_free(path, here):
            self._clear(path)
            here = self.here(path)
        if here != entry:
            if not move or here != self._before.get(path):
                self._conflicts.add(path)
                self._kept.update(self._in_the_way[path])
                return
            parent, _, name = path.rpartition("/")
            move(path, name, self._walk.to(parent, make=True))
            self._put += 1
        self._settled.update(self._in_the_way[path])

    def remove(self, path: str) -> None:
        """Removes a file that goes, unless it stays for the sake of one that could not be put."""
        here = None if path in self._settled else self.here(path)
        if here is None or (path in self._filled and self._is_directory(path)):
            return
        if here != self._before.get(path):
            self._conflicts.add(path)
        elif path in self._kept:
            self._held.add(path)
        else:
            parent, _, name = path.rpartition("/")
            os.unlink(name, dir_fd=self._walk.to(parent))
            self._removed.add(path)

    def make(self, path: str) -> None:
        """Makes a directory that holds nothing."""
        try:
            self._walk.to(path, make=True)
        except BadTree:
            self._conflicts.add(path)

    def tidy(self) -> None:
        """Removes the directories that the changes empty, but for those that stay or are filled again."""
        changes = self._changes
        emptied = {*directories_of((*self._removed, *changes.unmade)), *changes.unmade}
        # The inner ones first.
        for path in sorted(emptied - self._filled, key=lambda path: path.count("/"), reverse=True):
            self._remove_directory(path)

    def _is_directory(self, path: str) -> bool:
        with suppress(BadTree, FileNotFoundError):
            self._walk.to(path)
            return True
        return False

    def _clear(self, path: str) -> None:
        """Removes what goes for a new file: the one above it, or the directory in its place."""
        for above in directories_of([path]) & self._going:
            self.remove(above)
        with suppress(BadTree, FileNotFoundError):
            self._empty(path)

    def _empty(self, path: str) -> None:
        for inner, is_directory in self._inside(path):
            if is_directory:
                self._empty(inner)
            else:
                self.remove(inner)
        self._remove_directory(path)

    def _remove_directory(self, path: str) -> None:
        parent, _, name = path.rpartition("/")
        with suppress(OSError, BadTree):
            # It holds something else, or is gone: fine.
            os.rmdir(name, dir_fd=self._walk.to(parent))


def _in_the_way(changes: Changes) -> dict[str, set[str]]:
    """Of each new file those that go for it: a file in the place of a directory of it, those in a directory in its."""
    going = frozenset(changes.gone)
    found = {path: directories_of([path]) & going for path in changes.put}
    for path in changes.gone:
        for above in directories_of([path]) & found.keys():
            found[above].add(path)
    return found
