"""Every filter that templates may use, by name. All are pure, and none makes more than `plain` allows.

A filter gets plain data and gives plain data; it raises ValueRefused with a message for people, or the error
of an undefined value. Only keys of maps and positions of lists are ever looked up: no filter reaches an
attribute of a Python object.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from jinja2 import Undefined

from app.language.arguments import Function, Missing, as_count, settled, step_into, strict
from app.language.list_filters import LIST_FILTERS
from app.language.plain import MAX_INTEGER, ValueRefused
from app.language.predicates import TESTS
from app.language.text_filters import NUMBER_FILTERS, TEXT_FILTERS

MAX_RANGE = 10_000
"""Numbers that `range(…)` gives at most."""


def _default(value: Any, default_value: Any = "", boolean: Any = False) -> Any:
    """Null counts as missing: an optional parameter that was not given is null."""
    if isinstance(value, Undefined) or value is None or (boolean and not value):
        return default_value
    return value


def _concat(value: Any) -> Any:
    return TEXT_FILTERS["join"]([settled(item) for item in value])


def _range(value: Any) -> list[int]:
    if len(value) == 3 and value[2] == 0:
        raise ValueRefused("a range cannot step by zero")
    numbers = range(*(as_count(settled(number), -MAX_INTEGER, MAX_INTEGER) for number in value))
    if len(numbers) > MAX_RANGE:
        raise ValueRefused(f"a range has at most {MAX_RANGE:,} numbers")
    return list(numbers)


def _kv(kind: str) -> Function:
    def lookup(store: Any, key: str, *default: Any, **named: Any) -> Any:
        known = step_into(settled(store), kind)
        if isinstance(known, Mapping) and key in known:
            return known[key]
        for value in (*default, *named.values()):
            return value
        return Missing(hint=f"`kv.{kind}('{key}')`")

    return lookup


FILTERS: dict[str, Function] = {
    **{name: strict(name, item) for name, item in (TEXT_FILTERS | NUMBER_FILTERS | LIST_FILTERS).items()},
    "d": _default,
    "default": _default,
}
"""What a template may name."""

INTERNAL_FILTERS: dict[str, Function] = {
    "_concat": _concat,
    "_range": strict("range", _range),
    "_kv_get": _kv("get"),
    "_kv_get_secret": _kv("get_secret"),
}
"""What `~` and calls are rewritten to. A template cannot name these."""

_SIGNATURES = {
    **{("filter", name): inspect.signature(item) for name, item in FILTERS.items()},
    **{("test", name): inspect.signature(item) for name, item in TESTS.items()},
}


def arguments_fit(sort: str, name: str, positional: int, named: list[str]) -> bool:
    """Whether a filter or test (`sort`) takes that many arguments after its value, and those names."""
    try:
        _SIGNATURES[sort, name].bind(None, *(None for _ in range(positional)), **dict.fromkeys(named))
    except TypeError:
        return False
    return True
