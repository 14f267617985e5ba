"""The tests that templates may use after `is`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2 import Undefined

from app.language.arguments import Function, as_number, as_text, strict
from app.language.plain import ValueRefused


def _defined(value: Any) -> bool:
    return not isinstance(value, Undefined)


def _divisible(value: Any, by: Any) -> bool:
    divisor = as_number(by)
    if divisor == 0:
        raise ValueRefused("nothing is divisible by zero")
    return as_number(value) % divisor == 0


def _integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_TESTS: dict[str, Function] = {
    "boolean": lambda value: isinstance(value, bool),
    "defined": _defined,
    "divisibleby": _divisible,
    "eq": lambda value, other: value == other,
    "even": lambda value: _divisible(value, 2),
    "false": lambda value: value is False,
    "float": lambda value: isinstance(value, float),
    "ge": lambda value, other: value >= other,
    "gt": lambda value, other: value > other,
    "in": lambda value, other: value in other,
    "integer": _integer,
    "iterable": lambda value: isinstance(value, (str, list, tuple, Mapping)),
    "le": lambda value, other: value <= other,
    "lower": lambda value: as_text(value).islower(),
    "lt": lambda value, other: value < other,
    "mapping": lambda value: isinstance(value, Mapping),
    "ne": lambda value, other: value != other,
    "none": lambda value: value is None,
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "odd": lambda value: not _divisible(value, 2),
    "sequence": lambda value: isinstance(value, (str, list, tuple)),
    "string": lambda value: isinstance(value, str),
    "true": lambda value: value is True,
    "undefined": lambda value: not _defined(value),
    "upper": lambda value: as_text(value).isupper(),
}
_TESTS |= {"==": _TESTS["eq"], "!=": _TESTS["ne"], "equalto": _TESTS["eq"], "greaterthan": _TESTS["gt"]}
_TESTS |= {
    "<": _TESTS["lt"],
    "<=": _TESTS["le"],
    ">": _TESTS["gt"],
    ">=": _TESTS["ge"],
    "lessthan": _TESTS["lt"],
}
_TESTS |= {"null": _TESTS["none"]}

TESTS: dict[str, Function] = {
    name: test if name in ("defined", "undefined") else strict(name, test) for name, test in _TESTS.items()
}
"""By name; each gives true or false, or raises ValueRefused or TypeError for values that it cannot judge."""
