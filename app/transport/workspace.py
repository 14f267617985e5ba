"""What a job is told of files: which it finds, which come back, which are kept for people."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

MODES: Final = frozenset({"none", "push", "pull", "sync"})

_SHA256 = re.compile(r"[0-9a-f]{64}")
_PATTERN_CHARACTERS = 300
_PATTERNS = 100
_LISTS = ("include", "exclude", "artifacts")


class BadWorkspace(ValueError):
    """What no job is told of files; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Workspace:
    """The files of a job. `snapshot` names what it finds (the sha256 of a manifest, "" for nothing); `mode` says
    whether it is sent them (push), or what it changed comes back (pull), or both (sync), or neither (none).

    `include` and `exclude` are patterns of the paths that go either way, `artifacts` of those that are kept for people.
    """

    snapshot: str = ""
    mode: str = "none"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    artifacts: tuple[str, ...] = ()

    @property
    def comes_back(self) -> bool:
        """Whether what the job changed is merged into the workspace."""
        return self.mode in ("pull", "sync")

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, data: Any) -> Workspace:
        """Raises BadWorkspace."""
        if not isinstance(data, dict) or data.keys() - set(cls.__slots__):
            raise BadWorkspace("it must be an object with snapshot, mode and patterns, and nothing else")
        lists = {name: _patterns(name, data.get(name, ())) for name in _LISTS}
        snapshot, mode = data.get("snapshot", ""), data.get("mode", "none")
        if not isinstance(mode, str) or mode not in MODES:
            raise BadWorkspace(f"the mode {str(mode)[:40]!r} is not known here")
        if not isinstance(snapshot, str) or (snapshot and not _SHA256.fullmatch(snapshot)):
            raise BadWorkspace("its snapshot must be a sha256")
        return cls(snapshot, mode, **lists)


def _patterns(name: str, data: Any) -> tuple[str, ...]:
    if not isinstance(data, list | tuple) or len(data) > _PATTERNS:
        raise BadWorkspace(f"{name} must be a list of {_PATTERNS} patterns at the most")
    if not all(isinstance(one, str) and 0 < len(one) <= _PATTERN_CHARACTERS for one in data):
        raise BadWorkspace(f"a pattern of {name} must have 1 to {_PATTERN_CHARACTERS} characters")
    return tuple(data)
