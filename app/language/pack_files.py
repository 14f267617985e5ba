"""The files of a pack by their paths: what may be there, how much of it, and where. Nothing is opened here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from app.language.problems import Problem, nearest, shown
from app.language.source import MOST_BYTES

MOST_FILES: Final = 300
MOST_FILE_BYTES: Final = MOST_BYTES
MOST_PACK_BYTES: Final = 512 * 1024
MOST_DEPTH: Final = 5
MOST_PATH: Final = 200

PACK: Final = "pack.yaml"
CONFIG: Final = "config.yaml"
FOLDERS: Final = ("actions", "workflows", "rules", "sensors", "tests")
KEPT: Final = ("rules", "sensors")
"""Kept and listed, never run."""

_LOOSE: Final = re.compile(r"(LICENSE|NOTICE|[A-Za-z0-9_-]+\.(md|txt))\Z")
_CHARACTERS: Final = re.compile(r"[A-Za-z0-9._ +@=,-]+\Z")


def problem(file: str, code: str, message: str, hint: str = "", *, warning: bool = False) -> Problem:
    """A problem of a file as a whole."""
    return Problem(code, message, file, 1, 1, hint=hint, severity="warning" if warning else "error")


def check(files: Mapping[str, str]) -> tuple[dict[str, str], list[Problem]]:
    """The files that can be read, and what is wrong with the others and with all of them together."""
    found: list[Problem] = []
    if len(files) > MOST_FILES:
        message = f"the pack has {len(files)} files, {MOST_FILES} are allowed"
        return {}, [problem(PACK, "out-of-range", message, "keep data elsewhere")]
    sizes = {path: len(text.encode("utf-8", "surrogatepass")) for path, text in files.items()}
    if sum(sizes.values()) > MOST_PACK_BYTES:
        message = f"the pack has {sum(sizes.values())} bytes, {MOST_PACK_BYTES} are allowed"
        found.append(problem(PACK, "too-large", message, "keep data elsewhere"))
    good: dict[str, str] = {}
    folded: dict[str, str] = {}
    for path, text in sorted(files.items()):
        told = _path(path) or _place(path) or _text(path, text, sizes[path])
        first = folded.setdefault(path.casefold(), path)
        if told is None and first != path:
            hint = "not every system tells them apart: rename one"
            message = f"{shown(path)} and {shown(first)} differ in capital letters only"
            told = problem(path, "duplicate-file", message, hint)
        if told is None:
            good[path] = text
        else:
            found.append(told)
    return good, found


def _path(path: str) -> Problem | None:
    """Why a path is none inside of a folder."""
    parts = path.split("/")
    if not path or len(path) > MOST_PATH:
        return _bad(path, f"a path must have 1 to {MOST_PATH} characters")
    if path.startswith("/"):
        return _bad(path, f"{shown(path)} is an absolute path")
    if "\\" in path:
        return _bad(path, f"{shown(path)} has a backslash")
    if ".." in parts:
        return _bad(path, f"{shown(path)} leads out of the pack's folder")
    if "." in parts or "" in parts:
        return _bad(path, f"{shown(path)} is not written in its shortest form")
    if not all(_CHARACTERS.match(part) for part in parts):
        return _bad(path, f"{shown(path)} has a character that no path in a pack may have")
    if len(parts) > MOST_DEPTH:
        return _bad(path, f"{shown(path)} is {len(parts)} levels deep, {MOST_DEPTH} are allowed")
    return None


def _bad(path: str, message: str) -> Problem:
    # A path that may move a cursor is shown, never used.
    name = path if _CHARACTERS.match(path.replace("/", "")) else shown(path)
    return problem(name[:MOST_PATH], "bad-path", message, "paths are relative, inside of the pack, with `/`")


def _place(path: str) -> Problem | None:
    """Why nothing would ever look at a file here."""
    top, _, rest = path.partition("/")
    if not rest:
        if path in (PACK, CONFIG) or _LOOSE.match(path):
            return None
        near = nearest(path, [PACK, CONFIG])
        hint = f"did you mean `{near}`?" if near else "scripts belong into actions/"
        return problem(path, "unknown-file", f"a pack has no file {shown(path)} at its top", hint)
    if top not in FOLDERS:
        near = nearest(top, FOLDERS)
        hint = f"did you mean `{near}/`?" if near else f"a pack has {', '.join(FOLDERS)}"
        return problem(path, "unknown-file", f"a pack has no folder {shown(top)}", hint)
    if path.endswith(".yml") and top not in KEPT:
        hint = f"call it {path[:-4]}.yaml"
        return problem(path, "unknown-file", f"{shown(path)} would not be looked at", hint)
    if top in ("workflows", "tests") and not path.endswith(".yaml"):
        hint = "scripts belong into actions/"
        return problem(path, "unknown-file", f"in {top}/ there are YAML files only", hint)
    return None


def _text(path: str, text: str, size: int) -> Problem | None:
    if size > MOST_FILE_BYTES:
        message = f"{shown(path)} has {size} bytes, {MOST_FILE_BYTES} are allowed"
        return problem(path, "too-large", message, "keep data elsewhere")
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        return problem(path, "not-utf8", f"{shown(path)} is no text", "a pack has texts in UTF-8 only")
    return None
