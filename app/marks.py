"""Marks: what stands in a rendered text in place of a secret's value, until it is put in where it is used.

A mark is `kind:name` between two noncharacters, which no text that people write may hold. The kinds are `secret` (the
store of secrets), `parameter` (a secret parameter of the execution) and `config` (a secret of a pack's configuration);
`kind:name` is called a reference. Only templates make marks: in data that comes from outside the two are made harmless.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

OPEN: Final = "\ufdd0"
CLOSE: Final = "\ufdd1"

SECRET: Final = "secret"
PARAMETER: Final = "parameter"
CONFIG: Final = "config"

_MARK = re.compile(f"{OPEN}([a-z]{{1,16}}:[^{OPEN}{CLOSE}]{{1,300}}){CLOSE}")
_EITHER = re.compile(f"[{OPEN}{CLOSE}]")


def mark(reference: str) -> str:
    """The mark of `kind:name`."""
    return f"{OPEN}{reference}{CLOSE}"


def reference_of(value: Any) -> str | None:
    """The reference of a value that is exactly one mark; None of any other."""
    found = _MARK.fullmatch(value) if isinstance(value, str) else None
    return found[1] if found else None


def is_marked(text: str) -> bool:
    """Whether a text holds one of the two noncharacters."""
    return OPEN in text or CLOSE in text


def references(value: Any) -> Iterator[str]:
    """Every reference in the texts of a JSON value, as often as it stands there."""
    if isinstance(value, str):
        if OPEN in value:
            yield from _MARK.findall(value)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from references(item)


def put(value: Any, values: Mapping[str, str]) -> Any:
    """A JSON value with the marks in its texts replaced by `values`, by reference. Keys stay as they are.

    What is put in is not looked at again. Raises KeyError for a reference that has no value.
    """
    return _each(value, lambda text: _MARK.sub(lambda found: values[found[1]], text))


def harmless(value: Any) -> Any:
    """A JSON value from outside, its texts and keys without the two noncharacters."""
    if isinstance(value, Mapping):
        return {_clean(str(key)): harmless(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [harmless(item) for item in value]
    return _clean(value) if isinstance(value, str) else value


def shown(value: Any) -> Any:
    """A JSON value for people: `secretref:NAME` where a mark is, with the kind before names of other kinds."""
    return _each(value, lambda text: _EITHER.sub("\ufffd", _MARK.sub(_shown, text)))


def shown_reference(reference: str) -> str:
    """`secretref:NAME`, or `secretref:parameter:NAME`."""
    return f"secretref:{reference.removeprefix(f'{SECRET}:')}"


def _shown(found: re.Match[str]) -> str:
    return shown_reference(found[1])


def _clean(text: str) -> str:
    return _EITHER.sub("\ufffd", text) if is_marked(text) else text


def _each(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value) if is_marked(value) else value
    if isinstance(value, Mapping):
        return {key: _each(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_each(item, change) for item in value]
    return value
