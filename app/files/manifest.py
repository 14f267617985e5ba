"""A manifest: which files a tree has, so that its digest names the whole state of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from app.files import documents
from app.files.documents import Entry
from app.files.limits import DEFAULT, Limits
from app.files.names import BadTree, Globs, folded

__all__ = ["EMPTY", "Entry", "Manifest", "collisions", "directories_of"]

_KEYS = frozenset({"files", "directories"})
_Bytes = bytes
"""The type, where the property of that name is in the way."""


@dataclass(frozen=True)
class Manifest:
    """The files of a tree by their paths, and those of its directories that hold nothing, sorted.

    `of` and `read` check what they are given; the constructor itself does not.
    """

    files: Mapping[str, Entry]
    directories: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, files: Mapping[str, Entry], directories: Iterable[str] = (), limits: Limits = DEFAULT
    ) -> Manifest:
        """The manifest of these. Raises BadTree for more than the limits allow, and for names that collide."""
        made = cls(files, tuple(sorted(directories)))
        made.check(limits)
        return made

    @classmethod
    def read(cls, data: _Bytes, limits: Limits = DEFAULT) -> Manifest:
        """From the bytes of `to_bytes`. Raises BadTree for any others."""
        value = documents.parsed(data, "manifest", _KEYS, limits)
        files = documents.read_entries(value["files"], "files", limits)
        found = cls(files, documents.read_paths(value["directories"], "directories", limits))
        documents.check_form(data, found.to_bytes(), "manifest")
        found.check(limits)
        return found

    def check(self, limits: Limits = DEFAULT) -> None:
        """Raises BadTree where there is too much, or where two paths cannot both be."""
        documents.check_count(len(self.files) + len(self.directories), limits)
        documents.check_bytes(self.files, limits)
        if filled := directories_of((*self.files, *self.directories)).intersection(self.directories):
            path = min(filled)
            raise BadTree(f"{path} is told to be empty, and is not", path=path)
        for one, other in collisions(self.files, self.directories):
            hint = "names must differ in more than case, and a file cannot be a directory too"
            raise BadTree(f"{one} and {other} cannot both be", hint=hint, path=other)

    def to_bytes(self) -> _Bytes:
        """Canonical JSON."""
        return self._measured[0]

    @property
    def digest(self) -> str:
        """sha256 of `to_bytes` in hexadecimal: the name of the snapshot."""
        return self._measured[1]

    @property
    def bytes(self) -> int:
        """The sum of the sizes of all files."""
        return sum(entry.size for entry in self.files.values())

    def only(self, globs: Globs) -> Manifest:
        """What the patterns take of it."""
        files = {path: entry for path, entry in self.files.items() if globs.takes(path)}
        return Manifest(files, tuple(path for path in self.directories if globs.takes(path)))

    @cached_property
    def _measured(self) -> tuple[_Bytes, str]:
        data = documents.canonical({"files": self.files, "directories": self.directories, "version": 1})
        return data, documents.digest_of(data)


EMPTY = Manifest({})


def directories_of(paths: Iterable[str]) -> set[str]:
    """Every directory that one of the paths is in."""
    found: set[str] = set()
    for path in paths:
        parent = path.rpartition("/")[0]
        while parent and parent not in found:
            found.add(parent)
            parent = parent.rpartition("/")[0]
    return found


def collisions(files: Collection[str], directories: Collection[str]) -> Iterator[tuple[str, str]]:
    """Pairs of paths that cannot both be: a file that is a directory too, or names that differ in case only."""
    inner = directories_of((*files, *directories))
    seen: dict[str, str] = {}
    for path in sorted(inner.union(directories)):
        if seen.setdefault(folded(path), path) != path:
            yield seen[folded(path)], path
    for path in sorted(files):
        if folded(path) in seen:
            yield seen[folded(path)], path
        seen[folded(path)] = path
