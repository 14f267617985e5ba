"""Whether a value fits a schema: the part of JSON Schema (draft 2020-12) that `json_schema` lets through.

Pure and bounded: nothing is fetched, no expression is matched, and a value that would take too long is refused. No
message holds a value.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

MOST_CHECKS = 100_000
"""How often a part of a value may be held against a part of a schema."""

TYPES: Final = ("null", "boolean", "integer", "number", "string", "array", "object")

_CALLED: Final = {
    "null": "null",
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "string": "a text",
    "array": "a list",
    "object": "an object",
}


@dataclass(frozen=True, slots=True)
class Misfit:
    """`pointer` is the JSON pointer into the value, `rule` the keyword that it does not meet."""

    pointer: str
    rule: str
    message: str


def misfits(schema: Any, value: Any) -> Iterator[Misfit]:
    """Every way in which `value`, plain data, does not fit; nothing if it does. `schema` is one that was checked."""
    try:
        yield from _Check().against(schema, value, "")
    except _TooMuch:
        yield Misfit("", "size", f"is too large to be checked: more than {MOST_CHECKS:,} comparisons")


def same(left: Any, right: Any) -> bool:
    """As JSON: lists and tuples are alike, 1 and 1.0 are, true and 1 are not."""
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(same(*pair) for pair in zip(left, right, strict=True))
    return bool(left == right) and isinstance(left, bool) == isinstance(right, bool)


def is_of(kind: str, value: Any) -> bool:
    """Whether the value is of one of TYPES. As in JSON Schema, 1.0 is an integer."""
    if kind == "null":
        return value is None
    if kind == "boolean":
        return isinstance(value, bool)
    if kind == "string":
        return isinstance(value, str)
    if kind == "array":
        return _is_list(value)
    if kind == "object":
        return isinstance(value, Mapping)
    if kind == "integer":
        return _is_number(value) and float(value).is_integer()
    return _is_number(value)


def called(kinds: Sequence[str]) -> str:
    """What a message calls a value of one of these types."""
    return " or ".join(_CALLED[kind] for kind in kinds)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


class _TooMuch(Exception):
    pass


class _Check:
    """One value against one schema, counting as it goes."""

    def __init__(self) -> None:
        self.left = MOST_CHECKS

    def spend(self, count: int = 1) -> None:
        self.left -= count
        if self.left < 0:
            raise _TooMuch

    def against(self, schema: Any, value: Any, at: str) -> Iterator[Misfit]:
        self.spend()
        if isinstance(schema, bool):
            if not schema:
                yield Misfit(at, "false", "must not be there")
            return
        for keyword, given in schema.items():
            rule = _RULES.get(keyword)
            if rule is not None and (message := rule(given, value)):
                yield Misfit(at, keyword, message)
        yield from self._options(schema, value, at)
        if isinstance(value, Mapping):
            yield from self._members(schema, value, at)
        elif _is_list(value):
            yield from self._items(schema, value, at)

    def fits(self, schema: Any, value: Any) -> bool:
        return next(self.against(schema, value, ""), None) is None

    def _options(self, schema: Mapping[str, Any], value: Any, at: str) -> Iterator[Misfit]:
        for keyword in ("enum", "const"):
            allowed = [schema[keyword]] if keyword == "const" and keyword in schema else schema.get(keyword)
            if isinstance(allowed, list | tuple) and keyword in schema:
                self.spend(len(allowed))
                if not any(same(value, one) for one in allowed):
                    yield Misfit(at, keyword, "is none of the values that are allowed")
        for part in schema.get("allOf", ()):
            yield from self.against(part, value, at)
        if "anyOf" in schema and not any(self.fits(part, value) for part in schema["anyOf"]):
            yield Misfit(at, "anyOf", "fits none of what is allowed")
        if "oneOf" in schema:
            count = sum(self.fits(part, value) for part in schema["oneOf"])
            if count != 1:
                yield Misfit(at, "oneOf", f"fits {count} of what is allowed, where it must be one")
        if "not" in schema and self.fits(schema["not"], value):
            yield Misfit(at, "not", "is what it must not be")

    def _members(self, schema: Mapping[str, Any], value: Mapping[str, Any], at: str) -> Iterator[Misfit]:
        for name in schema.get("required", ()):
            if name not in value:
                yield Misfit(_below(at, name), "required", "is missing")
        properties = schema.get("properties", {})
        others = schema.get("additionalProperties", True)
        for name, member in value.items():
            if name in properties:
                yield from self.against(properties[name], member, _below(at, name))
            elif others is False:
                self.spend()
                yield Misfit(_below(at, name), "additionalProperties", "must not be there")
            elif others is not True:
                yield from self.against(others, member, _below(at, name))

    def _items(self, schema: Mapping[str, Any], value: Sequence[Any], at: str) -> Iterator[Misfit]:
        if "items" in schema:
            for place, item in enumerate(value):
                yield from self.against(schema["items"], item, _below(at, place))
        if schema.get("uniqueItems"):
            self.spend(len(value))
            texts = {json.dumps(_levelled(item), sort_keys=True) for item in value}
            if len(texts) != len(value):
                yield Misfit(at, "uniqueItems", "has an item twice")


def _below(at: str, step: str | int) -> str:
    return f"{at}/{str(step).replace('~', '~0').replace('/', '~1')}"


def _levelled(value: Any) -> Any:
    """With 1.0 as 1, so that equal values have equal texts."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {name: _levelled(member) for name, member in value.items()}
    return [_levelled(item) for item in value] if _is_list(value) else value


def _type(given: str | Sequence[str], value: Any) -> str:
    kinds = [given] if isinstance(given, str) else list(given)
    return "" if any(is_of(kind, value) for kind in kinds) else f"must be {called(kinds)}"


def _bound(applies: Callable[[Any], bool], meets: Callable[[Any, Any], bool], words: str) -> Any:
    def rule(given: Any, value: Any) -> str:
        return words.format(given) if applies(value) and not meets(value, given) else ""

    return rule


def _multiple(value: Any, of: Any) -> bool:
    quotient = value / of
    return math.isfinite(quotient) and float(quotient).is_integer()


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_map(value: Any) -> bool:
    return isinstance(value, Mapping)


_RULES: Final[dict[str, Callable[[Any, Any], str]]] = {
    "type": _type,
    "minimum": _bound(_is_number, lambda value, given: value >= given, "must be at least {}"),
    "maximum": _bound(_is_number, lambda value, given: value <= given, "must be at most {}"),
    "exclusiveMinimum": _bound(_is_number, lambda value, given: value > given, "must be more than {}"),
    "exclusiveMaximum": _bound(_is_number, lambda value, given: value < given, "must be less than {}"),
    "multipleOf": _bound(_is_number, _multiple, "must be a multiple of {}"),
    "minLength": _bound(
        _is_text, lambda value, given: len(value) >= given, "must have {} characters or more"
    ),
    "maxLength": _bound(
        _is_text, lambda value, given: len(value) <= given, "must have {} characters or fewer"
    ),
    "minItems": _bound(_is_list, lambda value, given: len(value) >= given, "must have {} items or more"),
    "maxItems": _bound(_is_list, lambda value, given: len(value) <= given, "must have {} items or fewer"),
    "minProperties": _bound(
        _is_map, lambda value, given: len(value) >= given, "must have {} members or more"
    ),
    "maxProperties": _bound(
        _is_map, lambda value, given: len(value) <= given, "must have {} members or fewer"
    ),
}
