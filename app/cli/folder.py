"""Folders of packs on this machine: read as texts, following nothing that leads elsewhere."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from app.errors import InvalidInput
from app.language import packs
from app.language.known import NOTHING, Known
from app.language.pack_files import MOST_DEPTH, MOST_FILE_BYTES, MOST_FILES, PACK, problem
from app.language.problems import Problem, shown

MOST_PACKS = 200
"""Packs of one folder that are looked at."""

_SKIPPED = ("__pycache__",)


def read(directory: Path) -> tuple[dict[str, str], list[Problem]]:
    """The files of a pack by path, and those that cannot be taken: links, devices, what is no text.

    Names that begin with a dot and `__pycache__` are left out. Raises InvalidInput where the folder cannot be read.
    """
    files: dict[str, str] = {}
    found: list[Problem] = []
    try:
        _read(directory, "", files, found)
    except OSError as error:
        hint = "give the path of a folder with a pack.yaml"
        raise InvalidInput(f"{directory}: {error.strerror}", hint=hint) from None
    return files, found


def _read(directory: Path, inside: str, files: dict[str, str], found: list[Problem]) -> None:
    with os.scandir(directory) as entries:
        listed = sorted(entries, key=lambda entry: entry.name)
    for entry in listed:
        if entry.name.startswith(".") or entry.name in _SKIPPED:
            continue
        path = f"{inside}{entry.name}"
        if len(files) + len(found) > MOST_FILES:
            return  # the reader says that there are too many
        if entry.is_symlink():
            message = f"{shown(path)} is a symbolic link"
            found.append(problem(path, "bad-path", message, "put the file itself there"))
        elif entry.is_dir():
            if path.count("/") < MOST_DEPTH:
                _read(Path(entry.path), f"{path}/", files, found)
            else:
                files[f"{path}/…"] = ""  # too deep, as the reader will say
        else:
            text = _text(entry.path, path)
            if isinstance(text, Problem):
                found.append(text)
            else:
                files[path] = text


def _text(file: str, path: str) -> str | Problem:
    # Not to follow a link that was put there since, and not to hang on a named pipe.
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as opened:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return problem(path, "bad-path", f"{shown(path)} is no regular file", "remove it")
        raw = opened.read(MOST_FILE_BYTES + 1)
    if len(raw) > MOST_FILE_BYTES:
        message = f"{shown(path)} has more than {MOST_FILE_BYTES} bytes"
        return problem(path, "too-large", message, "keep data elsewhere")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        hint = "a pack has texts in UTF-8 only"
        return problem(path, "not-utf8", f"{shown(path)} is no text", hint)


def load(directory: Path, known: Known) -> packs.Loaded:
    """The pack in a folder, with the problems of its files named as one would find them from here."""
    files, found = read(directory)
    loaded = packs.load(files, known)
    problems = tuple(named(one, directory) for one in (*found, *loaded.problems))
    return packs.Loaded(None if found else loaded.pack, problems)


def named(one: Problem, directory: Path) -> Problem:
    """The problem of a file of the pack, with the path of the folder before it."""
    return replace(one, file=os.path.normpath(directory / one.file))


def known_for(file: str, folders: Sequence[str]) -> Known:
    """What a file may refer to: the packs in `folders`, its own pack, and those that lie beside that."""
    return known_in([*(Path(folder) for folder in folders), *_around(Path(file))])


def shipped(text: bytes) -> Known:
    """What those packs that come with Muster offer of which a text may speak; also where they are in an archive."""
    known = NOTHING
    code: Any = resources.files("app")
    place = code.parent / "config" / "packs"
    for folder in sorted(place.iterdir(), key=lambda one: str(one.name)) if place.is_dir() else ():
        # What the built-in one says, every text knows.
        if folder.name != "core" and f"{folder.name}.".encode() in text:
            known = known.over(packs.outline(dict(_texts(folder, ""))))
    return known


def _texts(folder: Any, inside: str) -> Iterator[tuple[str, str]]:
    for entry in folder.iterdir():
        if entry.is_dir() and entry.name not in _SKIPPED:
            yield from _texts(entry, f"{inside}{entry.name}/")
        elif entry.is_file():
            yield f"{inside}{entry.name}", entry.read_text("utf-8")


def known_in(folders: Iterable[Path]) -> Known:
    """What the packs in these folders offer; a folder may also be a pack itself. Raises InvalidInput."""
    known = NOTHING
    for folder in folders:
        for pack in packs_in(folder):
            known = known.over(_outline(pack))
    return known


def packs_in(folder: Path) -> list[Path]:
    """The packs of a folder, or the folder itself if it is one. Raises InvalidInput where there are none."""
    if (folder / PACK).is_file():
        return [folder]
    found = sorted(path.parent for path in folder.glob(f"*/{PACK}"))[:MOST_PACKS]
    if not found:
        hint = "give a folder with packs in it, or that of one pack"
        raise InvalidInput(f"{folder}: there is no {PACK} in it", hint=hint)
    return found


@lru_cache(MOST_PACKS)
def _outline(directory: Path) -> Known:
    return packs.outline(read(directory)[0])


def _around(file: Path) -> list[Path]:
    """The folder that the pack of a file lies in, if the file is part of a pack."""
    for directory in list(file.absolute().parents)[: MOST_DEPTH + 1]:
        if (directory / PACK).is_file():
            return packs_in(directory.parent)
    return []
