"""What a file of a tree may be called, and which of them a pattern means.

A path that is taken here means the same file to every shell, file system and terminal that it comes to: relative,
of plain names, in one Unicode form, without anything that a terminal would obey.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from fnmatch import translate
from functools import lru_cache
from typing import Final

from app.errors import InvalidInput
from app.files.limits import DEFAULT, Limits

MAX_PATTERNS: Final = 1000
MAX_PATTERN_BYTES: Final = 1024

_PLAIN = re.compile(r"[A-Za-z0-9_ +,@=~#%:()\[\]{}!$&;'^.-]+")
_REFUSED = re.compile(r"[\x00-\x1f\x7f-\x9f\\\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, what ends a line or turns it round, halves of characters, and `\\`: a separator to PowerShell."""

_Part = Callable[[str], object]


class BadTree(InvalidInput):
    """A path, manifest, bundle or directory that is not what a tree of files may be; `detail["path"]` where it is."""

    code = "bad-tree"


def check_path(text: object, limits: Limits = DEFAULT) -> str:
    """The path as it is, or BadTree: relative, `/` between names, NFC, no `.`, `..` or empty name, within bounds."""
    if not isinstance(text, str):
        raise BadTree(f"a path must be a text, not {type(text).__name__}")
    names = text.split("/")
    if len(names) > limits.depth:
        raise BadTree(f"{_shown(text)} is {len(names)} names deep, more than {limits.depth}")
    for name in names:
        if why := _refusal(name, limits):
            raise BadTree(f"{_shown(text)} {why}", path=_shown(text))
    if len(text.encode()) > limits.path_bytes:
        raise BadTree(f"{_shown(text)} has more than {limits.path_bytes} bytes")
    return text


def check_name(name: str, limits: Limits = DEFAULT) -> str:
    """One name of a path, as a directory lists it. Raises BadTree."""
    if why := _refusal(name, limits):
        raise BadTree(f"{_shown(name)} {why}", hint="rename it, or leave it out with `exclude`")
    return name


def _refusal(name: str, limits: Limits) -> str:
    """Why the name is none, or nothing."""
    if name in ("", ".", ".."):
        return f"holds the name {name!r}: a path is relative, of plain names"
    if len(name) <= limits.name_bytes and _PLAIN.fullmatch(name):
        return ""
    if _REFUSED.search(name):
        return "holds a character that no file of a workspace may have in its name"
    if not unicodedata.is_normalized("NFC", name):
        return "is not in the Unicode form NFC"
    return (
        f"has a name of more than {limits.name_bytes} bytes" if len(name.encode()) > limits.name_bytes else ""
    )


def _shown(text: str) -> str:
    """The path as a message may carry it: short, and nothing in it that a terminal obeys."""
    return ascii(text if len(text) <= 120 else f"{text[:100]}…")


def folded(path: str) -> str:
    """What two paths have in common that a file system without large and small letters takes for one."""
    return path if path.isascii() and path.islower() else unicodedata.normalize("NFC", path.casefold())


class Globs:
    """Which paths are meant: those that a pattern of `include` takes (none given: all), but for those of `exclude`.

    Patterns are like paths, from the top of the tree. `*` and `?` stand for anything within a name, `[a-c]` for one
    character, `**` as a whole name for any number of names, none included. A pattern that takes a directory takes all
    that is in it. Case counts, and a leading dot is a character like others. Time is linear in the path's length for
    each pattern. Raises BadTree for a pattern that can take nothing.
    """

    __slots__ = ("_exclude", "_include")

    def __init__(self, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> None:
        if len(include) + len(exclude) > MAX_PATTERNS:
            raise BadTree(f"there are more than {MAX_PATTERNS} patterns")
        self._include = [_compiled(pattern) for pattern in include]
        self._exclude = [_compiled(pattern) for pattern in exclude]

    def takes(self, path: str) -> bool:
        """Is the file or directory meant?"""
        if not self._include and not self._exclude:
            return True
        names = path.split("/")
        if self._include and not any(_takes(pattern, names) for pattern in self._include):
            return False
        return not any(_takes(pattern, names) for pattern in self._exclude)

    def may_enter(self, directory: str) -> bool:
        """Can anything in the directory be meant? False spares the walk."""
        names = directory.split("/")
        if self._include and not any(_may_enter(pattern, names) for pattern in self._include):
            return False
        return not any(_takes(pattern, names) for pattern in self._exclude)


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> tuple[_Part | None, ...]:
    """A matcher for each name of the pattern; None for `**`."""
    if not isinstance(pattern, str) or len(pattern.encode(errors="replace")) > MAX_PATTERN_BYTES:
        raise BadTree(f"a pattern must be a text of at most {MAX_PATTERN_BYTES} bytes")
    names = pattern.removeprefix("./").rstrip("/").split("/")
    if any(name in ("", ".", "..") for name in names) or _REFUSED.search(pattern):
        hint = "patterns are relative to the workspace: `src/**`, `*.log`, `**/*.tmp`"
        raise BadTree(f"{_shown(pattern)} cannot be a pattern", hint=hint)
    found: list[_Part | None] = []
    for name in names:
        if name != "**":
            # `translate` writes expressions that never go back over what a `*` has taken.
            found.append(re.compile(translate(name)).match)
        elif not found or found[-1] is not None:
            found.append(None)
    return tuple(found)


def _takes(pattern: tuple[_Part | None, ...], names: list[str]) -> bool:
    """Whether the pattern takes the path or a directory that it is in.

    Going back to the last `**` alone is enough: whatever an earlier one could take, it can leave to this one.
    """
    at = place = 0
    again = resumed = -1
    while at < len(names):
        if place == len(pattern):
            return True
        part = pattern[place]
        if part is None:
            again, resumed = place, at
            place += 1
        elif part(names[at]):
            place, at = place + 1, at + 1
        elif again >= 0:
            resumed += 1
            place, at = again + 1, resumed
        else:
            return False
    return all(part is None for part in pattern[place:])


def _may_enter(pattern: tuple[_Part | None, ...], names: list[str]) -> bool:
    for part, name in zip(pattern, names, strict=False):
        if part is None:
            return True
        if not part(name):
            return False
    return True
