"""What was done to a tree, as a value: found between two manifests, and put into a third that has moved on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from app.files import documents
from app.files.documents import Entry
from app.files.limits import DEFAULT, Limits
from app.files.manifest import Manifest, collisions, directories_of
from app.files.names import BadTree, check_path

_KEYS = frozenset({"put", "gone", "made", "unmade"})


@dataclass(frozen=True)
class Changes:
    """`put`: files that are new or other than before; `gone`: files that are no more.

    `made` and `unmade` are of directories that hold nothing: those that have come to be so, and those that were and
    are filled or removed now. All sorted.
    """

    put: Mapping[str, Entry]
    gone: tuple[str, ...] = ()
    made: tuple[str, ...] = ()
    unmade: tuple[str, ...] = ()

    @classmethod
    def read(cls, data: bytes, limits: Limits = DEFAULT) -> Changes:
        """From the bytes of `to_bytes`. Raises BadTree for any others."""
        value = documents.parsed(data, "document of changes", _KEYS, limits)
        put = documents.read_entries(value["put"], "put", limits)
        gone, made, unmade = (
            documents.read_paths(value[name], name, limits) for name in ("gone", "made", "unmade")
        )
        found = cls(put, gone, made, unmade)
        documents.check_form(data, found.to_bytes(), "document of changes")
        found.check(limits)
        return found

    def check(self, limits: Limits = DEFAULT) -> None:
        """Raises BadTree where there is too much, or where it contradicts itself."""
        Manifest(self.put, self.made).check(limits)
        if twice := self.put.keys() & set(self.gone) or set(self.made) & set(self.unmade):
            raise BadTree(f"{min(twice)} cannot both come and go", path=min(twice))

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        return self._measured[0]

    @property
    def digest(self) -> str:
        """sha256 of `to_bytes` in hexadecimal."""
        return self._measured[1]

    @property
    def is_empty(self) -> bool:
        return not (self.put or self.gone or self.made or self.unmade)

    @cached_property
    def _measured(self) -> tuple[bytes, str]:
        said = {
            "put": self.put,
            "gone": self.gone,
            "made": self.made,
            "unmade": self.unmade,
            "version": 1,
        }
        data = documents.canonical(said)
        return data, documents.digest_of(data)


NOTHING = Changes({})
"""Nothing was done."""


def difference(old: Manifest, new: Manifest) -> Changes:
    """What makes `new` of `old`."""
    put = {path: entry for path, entry in new.files.items() if old.files.get(path) != entry}
    before, after = set(old.directories), set(new.directories)
    return Changes(
        put,
        gone=tuple(sorted(old.files.keys() - new.files.keys())),
        made=tuple(sorted(after - before)),
        unmade=tuple(sorted(before - after)),
    )


def merge(
    base: Manifest, current: Manifest, changes: Changes, limits: Limits = DEFAULT
) -> tuple[Manifest, tuple[str, ...]]:
    """The tree `current` with what was done to `base`, and the paths that both have changed, each differently.

    Where there are such paths the manifest is not to be used. Where there are none, the order in which several
    changes to one base are merged does not matter. Raises BadTree where the result is beyond the limits.
    """
    files, conflicts = dict(current.files), set()
    wanted: dict[str, Entry | None] = {**dict.fromkeys(changes.gone), **changes.put}
    for path, entry in wanted.items():
        here = files.get(path)
        if here not in (base.files.get(path), entry):
            conflicts.add(path)
        elif entry is None:
            files.pop(path, None)
        else:
            files[path] = entry
    empty = {*current.directories, *changes.made}.difference(changes.unmade)
    for one, other in collisions(files, empty):
        conflicts.update((one, other))
    merged = Manifest(files, tuple(sorted(empty - directories_of((*files, *empty)))))
    if not conflicts:
        documents.check_count(len(merged.files) + len(merged.directories), limits)
        documents.check_bytes(merged.files, limits)
    return merged, tuple(sorted(conflicts))


def under(changes: Changes, prefix: str) -> Changes:
    """Only the files that were put, under the directory `prefix`. Raises BadTree where a path becomes too long."""
    return Changes({check_path(f"{prefix}/{path}"): entry for path, entry in changes.put.items()})
