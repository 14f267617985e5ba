"""Whether a value can be JSON, and where it cannot."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

MOST_DEPTH = 200
"""Lists and maps inside one another: what every reader of JSON takes."""

STATE_DEPTH = MOST_DEPTH + 8
"""The same of a state, in which values lie some levels deep: `task.<name>.items[0].result`."""


def misfit(value: Any, most: int = MOST_DEPTH) -> tuple[str, str] | None:
    """The path of the first thing in a value that cannot be JSON, as `vars.list[3].name`, and what it is.

    None where all of it can be: numbers are finite, texts are UTF-8, keys are texts, and there are `most` levels.
    """
    todo: list[tuple[str, int, Any]] = [("", 0, value)]
    while todo:
        path, depth, item = todo.pop()
        why = _alone(item)
        if why:
            return path or "the value", why
        if isinstance(item, Mapping | list | tuple) and depth >= most:
            return path[:200], f"is nested deeper than {most} levels"
        if isinstance(item, Mapping):
            for key in item:
                if not isinstance(key, str) or _half(key):
                    return path or "the value", f"has the key {key!r}, which is no text"
            inner = [(f"{path}.{key}" if path else key, depth + 1, one) for key, one in item.items()]
            todo.extend(reversed(inner))
        elif isinstance(item, list | tuple):
            todo.extend(reversed([(f"{path}[{at}]", depth + 1, one) for at, one in enumerate(item)]))
    return None


def _alone(item: Any) -> str:
    """Why a value that is no list or map cannot be JSON, "" if it can."""
    if isinstance(item, str):
        return "holds half of a surrogate pair, which no UTF-8 has" if _half(item) else ""
    if isinstance(item, float):
        return "" if math.isfinite(item) else f"is {item}, and JSON has no such number"
    if item is None or isinstance(item, int | Mapping | list | tuple):
        return ""
    return f"is a {type(item).__name__}, which JSON does not have"


def _half(text: str) -> bool:
    return not text.isprintable() and any("\ud800" <= char <= "\udfff" for char in text)
