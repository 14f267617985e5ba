"""Plain data: what a template may read and make (JSON's kinds of value), how big it is, and its text.

Every limit on the size of what a template makes stands here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from jinja2 import Undefined

from app.marks import is_marked

MAX_TEXT = 1_000_000
"""Characters that a template may put out, and that a step of it may make."""
MAX_ITEMS = 100_000
"""Items of a list or map that a step of a template may make."""
MAX_WORK = 50_000_000
"""Characters that one filter may look at when it takes the same value to every item of a list."""
MAX_INTEGER = 2**63 - 1
"""The largest magnitude of an integer that arithmetic may give: what the database and JSON readers hold."""


class ValueRefused(ValueError):
    """A step of a template was given, or would make, a value that it must not. `hint` says what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Opaque:
    """What plain data never holds: asked for its text, it raises its own error."""

    __slots__ = ()


def kind_of(value: Any) -> str:
    """The kind of `value` in the words that people use: text, number, boolean, null, list, map."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "text"
    if isinstance(value, Mapping):
        return "a map"
    return "a list" if isinstance(value, (list, tuple)) else "not plain data"


def check_text(length: int) -> None:
    """Refuse a text of `length` characters over the limit, before it is made."""
    if length > MAX_TEXT:
        raise ValueRefused(
            f"the result is larger than {MAX_TEXT:,} characters",
            "pick the part that is needed, or use a file",
        )


def check_items(count: int) -> None:
    """Refuse a list or map of `count` items over the limit, before it is made."""
    if count > MAX_ITEMS:
        raise ValueRefused(f"the result has more than {MAX_ITEMS:,} items", "use fewer items")


def check_work(times: int, size: int) -> None:
    """Refuse to do something `times` over with a value of `size` characters when that would take long."""
    if times * size > MAX_WORK:
        raise ValueRefused("the list and the value are too large together", "use a smaller value")


def check_storable(text: str) -> None:
    """Refuse a text that is no UTF-8 or holds NUL: no database or environment takes it."""
    if "\x00" in text:
        raise ValueRefused("a text holds a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueRefused("a text holds half of a surrogate pair") from None


def check_number(value: int | float) -> int | float:
    """Return `value` if it is a number that JSON and the database hold; raise ValueRefused otherwise."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueRefused("the result is not a finite number")
    elif not -MAX_INTEGER <= value <= MAX_INTEGER:
        raise ValueRefused(f"the result is larger than {MAX_INTEGER}")
    return value


def check_plain(value: Any, storable: bool = False, marked: list[str] | None = None) -> int:
    """Refuse what is no plain data, or is larger than MAX_TEXT characters of JSON; return that size, roughly.

    A value that occurs twice counts twice: lists share their items, so that memory alone says little about
    the size of the text. With `storable`, texts are refused that no database takes. An undefined value inside
    raises its own error. Texts that hold what marks are made of are added to `marked`.
    """
    todo = [value]
    size = 0
    while todo:
        item = todo.pop()
        if isinstance(item, str):
            size += len(item) + 2
            if marked is not None and is_marked(item):
                marked.append(item)
            if storable:
                check_storable(item)
        elif item is None or isinstance(item, (bool, int)):
            size += 4
        elif isinstance(item, float):
            if not math.isfinite(item):
                raise ValueRefused("a number is not finite")
            size += 8
        elif isinstance(item, (list, tuple)):
            size += 2 + len(item)
            todo.extend(item)
        elif isinstance(item, Mapping):
            size += 2 + len(item)
            todo.extend(item)
            todo.extend(item.values())
            if not all(isinstance(key, str) for key in item):
                raise ValueRefused("the keys of a map must be text")
        elif isinstance(item, Undefined | Opaque):
            str(item)
        else:
            raise ValueRefused(f"a {type(item).__name__} is not plain data")
        check_text(size)
    return size


def text_of(value: Any) -> str:
    """The text of a value wherever text is wanted.

    Text as it is, `true` and `false`, null as nothing, numbers as in JSON, lists and maps as compact JSON.
    Raises ValueRefused for what is too large or no plain data.
    """
    if isinstance(value, str):
        check_text(len(value))
        return value
    if value is None:
        return ""
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, int):
        check_number(value)
        return str(value)
    check_plain(value)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_as_dict)


def _as_dict(value: Any) -> Any:
    """Read-only maps are no dicts to the JSON encoder; check_plain has let nothing else through."""
    return dict(value)
