"""The one byte form of what is said about trees, so that a digest names a content and nothing else.

Everything here raises BadTree and nothing else for what it is given.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Final, NamedTuple

from app.files.limits import FEWER_BYTES, FEWER_FILES, Limits
from app.files.names import BadTree, check_path

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)
# One without an end goes to the end, so that no place is looked at twice.
_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)', re.S)
_FEW: Final = 16
"""Lists of a document that are none of a file's."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Entry(NamedTuple):
    """A file: its permission bits (at most 0o777), its size in bytes and the sha256 of its bytes in hexadecimal."""

    mode: int
    size: int
    sha256: str


def canonical(value: Any) -> bytes:
    """The one byte form of a JSON value."""
    return _CANONICAL.encode(value).encode()


def digest_of(data: bytes) -> str:
    """sha256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def is_digest(text: object) -> bool:
    """Is it a sha256 in hexadecimal, in small letters?"""
    return isinstance(text, str) and bool(_SHA256.fullmatch(text))


def parsed(data: bytes, what: str, keys: frozenset[str], limits: Limits) -> dict[str, Any]:
    """The JSON object of version 1 with just these keys."""
    if len(data) > limits.document_bytes:
        raise BadTree(f"a {what} may not have more than {limits.document_bytes} bytes")
    _check_parts(data, what, limits)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadTree(f"the {what} is not JSON: {error}") from None
    if not isinstance(value, dict) or value.keys() != keys | {"version"}:
        raise BadTree(f"a {what} must be an object with {', '.join(sorted(keys))} and version")
    if value.pop("version") != 1:
        raise BadTree(f"this version of a {what} is not known here")
    return value


def _check_parts(data: bytes, what: str, limits: Limits) -> None:
    """Raises BadTree for more values than so many files need: a value costs twenty times its bytes once it is read."""
    most = limits.files + _FEW
    if _is_within(data, most) or _is_within(_TEXT.sub(b"", data), most):
        return
    raise BadTree(f"the {what} tells of more than {limits.files} files", hint=FEWER_FILES)


def _is_within(data: bytes, most: int) -> bool:
    """Whether it has no more lists and commas than any document that puts and removes so many files."""
    return data.count(b"[") + data.count(b"{") <= most and data.count(b",") <= 8 * most


def check_form(data: bytes, form: bytes, what: str) -> None:
    """That the document is written as this module writes it: sorted, nothing twice, no room for a second meaning."""
    if data != form:
        raise BadTree(f"the {what} is not in canonical form: sorted keys, no name twice, no spaces")


def read_entries(value: object, what: str, limits: Limits) -> dict[str, Entry]:
    """A map of path to [mode, size, sha256]."""
    if not isinstance(value, dict):
        raise BadTree(f"{what} must be a map of path to [mode, size, sha256]")
    check_count(len(value), limits)
    found = {}
    for path, raw in value.items():
        check_path(path, limits)
        if type(raw) is not list or len(raw) != 3:
            raise BadTree(f"{path} must have [mode, size, sha256]", path=path)
        found[path] = check_entry(path, Entry(*raw), limits)
    return found


def read_paths(value: object, what: str, limits: Limits) -> tuple[str, ...]:
    """A sorted list of paths."""
    if not isinstance(value, list):
        raise BadTree(f"{what} must be a list of paths")
    check_count(len(value), limits)
    paths = tuple(check_path(path, limits) for path in value)
    if any(one >= other for one, other in pairwise(paths)):
        raise BadTree(f"{what} must be sorted and name nothing twice")
    return paths


def check_entry(path: str, entry: Entry, limits: Limits) -> Entry:
    """The entry as it is, or BadTree."""
    mode, size, sha256 = entry
    if type(mode) is not int or not 0 <= mode <= 0o777:
        raise BadTree(f"the mode of {path} must be permission bits, 0 to 511", path=path)
    if type(size) is not int or not 0 <= size <= limits.bytes:
        raise BadTree(f"the size of {path} must be 0 to {limits.bytes} bytes", path=path)
    if not is_digest(sha256):
        raise BadTree(f"the sha256 of {path} must be 64 hexadecimal digits", path=path)
    return entry


def check_count(count: int, limits: Limits) -> None:
    if count > limits.files:
        raise BadTree(f"there are more than {limits.files} files and empty directories", hint=FEWER_FILES)


def check_bytes(files: Mapping[str, Entry], limits: Limits) -> None:
    if (total := sum(entry.size for entry in files.values())) > limits.bytes:
        message = f"the files have {total} bytes together, more than {limits.bytes}"
        raise BadTree(message, hint=FEWER_BYTES)
