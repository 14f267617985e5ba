"""The JSON Schema that a workflow may write: of its output, and of the answer to an inquiry.

A part of draft 2020-12 that needs nothing fetched and cannot hang: `fitting` says what a value comes to. What is not
in the table is refused with its place, so that nobody relies on a keyword that does nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from app.language.fields import Anything, Kind, Schema
from app.language.fitting import TYPES, called, is_of, misfits
from app.language.problems import shown
from app.language.reading import BAD, Reading, label
from app.language.source import Node

DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"
MOST_DEPTH: Final = 16
MOST_PARTS: Final = 500
"""Schemas within one schema, itself counted."""

_REFERENCES: Final = ("$ref", "$defs", "$id", "$anchor", "$dynamicRef", "$dynamicAnchor", "definitions")
_PATTERN: Final = (
    "a pattern may take for ever to match: use `enum` or `maxLength`, or check the text in a task"
)
_REFUSED: Final = {
    "pattern": _PATTERN,
    "patternProperties": _PATTERN,
    "format": "no format is checked: use `enum` or `maxLength`, or check the text in a task",
}
_NOTES: Final = {"title": str, "description": str, "$comment": str, "deprecated": bool, "readOnly": bool}
_COUNTS: Final = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_NUMBERS: Final = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_LISTS: Final = ("allOf", "anyOf", "oneOf")
_PARTS: Final = ("items", "additionalProperties", "not")
_VALUES: Final = ("default", "examples", "const", "enum")
_OTHERS: Final = ("$schema", "type", "properties", "required", "uniqueItems")
KEYWORDS: Final = (*_OTHERS, *_VALUES, *_NUMBERS, *_COUNTS, *_PARTS, *_LISTS, *_NOTES)
"""Every keyword that may stand in a schema."""

_LOW_HIGH: Final = (
    ("minLength", "maxLength"),
    ("minItems", "maxItems"),
    ("minProperties", "maxProperties"),
    ("minimum", "maximum"),
)


@dataclass(frozen=True)
class JsonSchema(Kind):
    """A schema; gives it as plain data."""

    def read(self, r: Reading, node: Node) -> Any:
        if node.kind != "map":
            return r.wrong(node, "a JSON Schema, which is a mapping", "such as {type: object}")
        reader = _Reader(r)
        return node.data() if reader.schema(node, 1) else BAD

    def schema(self) -> Schema:
        return {"type": "object"}


@dataclass(frozen=True)
class ObjectSchema(JsonSchema):
    """The schema of what a script writes to MUSTER_OUTPUT, which is an object always."""

    def read(self, r: Reading, node: Node) -> Any:
        found = super().read(r, node)
        if found is not BAD and found.get("type", "object") not in ("object", ["object"]):
            hint = "MUSTER_OUTPUT takes a JSON object; what the script prints is `stdout`"
            return r.error(node.value["type"], "never-fits", "the result of an action is an object", hint)
        return found


@dataclass(slots=True)
class _Reader:
    """Reads the schemas within one schema. Each method gives False where it noted a problem."""

    r: Reading
    parts: int = 0

    def schema(self, node: Node, depth: int) -> bool:
        self.parts += 1
        if self.parts > MOST_PARTS + 1:
            return False
        if depth > MOST_DEPTH or self.parts > MOST_PARTS:
            limit = f"{MOST_DEPTH} levels" if depth > MOST_DEPTH else f"{MOST_PARTS} schemas"
            return self._wrong(
                node, "schema-too-large", f"the schema has more than {limit}", "make it simpler"
            )
        if node.kind == "broken":
            return False
        if node.kind == "scalar" and isinstance(node.value, bool) and depth > 1:
            return True
        if node.kind != "map":
            self.r.wrong(node, "a schema: a mapping, or true or false")
            return False
        good = True
        for keyword, child in node.value.items():
            good &= self._keyword(keyword, child, depth)
        return good and self._together(node)

    def _wrong(self, node: Node, code: str, message: str, hint: str = "", *, at_key: bool = False) -> bool:
        self.r.error(node, code, message, hint, mark=node.key if at_key else None)
        return False

    def _keyword(self, keyword: str, node: Node, depth: int) -> bool:
        if keyword in _REFERENCES:
            message = f"a schema cannot refer to another (`{keyword}`)"
            return self._wrong(node, "schema-reference", message, "write it out here", at_key=True)
        if keyword not in KEYWORDS:
            known = self.r.collector.did_you_mean(keyword, KEYWORDS, f"known: {', '.join(KEYWORDS)}")
            hint = _REFUSED.get(keyword, known)
            message = f"a schema here has no keyword {shown(keyword)}"
            return self._wrong(node, "unknown-keyword", message, hint, at_key=True)
        if keyword in _PARTS:
            return self.schema(node, depth + 1)
        if keyword in _LISTS:
            return self._list(node, depth)
        if keyword == "properties":
            return self._properties(node, depth)
        return self._plain(keyword, node)

    def _list(self, node: Node, depth: int) -> bool:
        if node.kind != "list" or not node.value:
            self.r.wrong(node, "a list of at least one schema")
            return False
        return self._each(node.value, depth)

    def _each(self, nodes: Iterable[Node], depth: int) -> bool:
        good = True
        for node in nodes:
            good &= self.schema(node, depth + 1)
        return good

    def _properties(self, node: Node, depth: int) -> bool:
        if node.kind != "map":
            self.r.wrong(node, "a mapping from names to schemas")
            return False
        return self._each(node.value.values(), depth)

    def _plain(self, keyword: str, node: Node) -> bool:
        value = Anything(templates=False).read(self.r, node)
        if value is BAD:
            return False
        wanted = _wanted(keyword, value)
        if wanted:
            self.r.wrong(node, wanted)
        elif keyword == "$schema" and str(value).rstrip("#") != DRAFT:
            message = f"{label(node)} must be {DRAFT}"
            return self._wrong(node, "bad-choice", message, "remove it, or write this draft")
        return not wanted

    def _together(self, node: Node) -> bool:
        """What no single keyword tells: limits that exclude each other, values that do not fit their own schema."""
        given = node.data()
        for low, high in _LOW_HIGH:
            if low in given and high in given and given[low] > given[high]:
                message = f"`{low}` is more than `{high}`: nothing can fit"
                return self._wrong(node.value[low], "never-fits", message)
        if given.get("additionalProperties") is False:
            for name in given.get("required", ()):
                if name not in given.get("properties", {}):
                    hint = "add it to `properties`, or take it out of `required`"
                    message = f"{shown(name)} is required and not allowed: nothing can fit"
                    return self._wrong(node.value["required"], "never-fits", message, hint)
        if "enum" in given or "const" in given:
            values = given["enum"] if "enum" in given else [given["const"]]
            where = node.value["enum" if "enum" in given else "const"]
            if not any(_fits_otherwise(given, value) for value in values):
                return self._wrong(where, "never-fits", "none of these values fits the rest of the schema")
        return all(self._example(given, child, value) for child, value in _examples(node))

    def _example(self, given: dict[str, Any], node: Node, value: Any) -> bool:
        found = next(misfits(given, value), None)
        if found is None:
            return True
        message = f"{label(node)} does not fit its own schema: {found.pointer or 'it'} {found.message}"
        return self._wrong(node, "bad-default", message)


def _fits_otherwise(given: dict[str, Any], value: Any) -> bool:
    rest = {keyword: part for keyword, part in given.items() if keyword not in ("enum", "const")}
    return next(misfits(rest, value), None) is None


def _examples(node: Node) -> Iterator[tuple[Node, Any]]:
    if "default" in node.value:
        yield node.value["default"], node.value["default"].data()
    if "examples" in node.value:
        yield from ((child, child.data()) for child in node.value["examples"].value)


def _wanted(keyword: str, value: Any) -> str:
    """What a message calls the value that the keyword wants, or "" where `value` is one."""
    checks: dict[str, tuple[bool, str]] = {
        "type": (_is_type(value), f"one of {', '.join(TYPES)}, or a list of some"),
        "required": (_are_names(value), "a list of names, each once"),
        "uniqueItems": (isinstance(value, bool), called(["boolean"])),
        "enum": (isinstance(value, list) and bool(value), "a list of at least one value"),
        "examples": (isinstance(value, list), "a list"),
        "$schema": (isinstance(value, str), "a text"),
        "multipleOf": (is_of("number", value) and value > 0, "a number above 0"),
    }
    if keyword in checks:
        fine, wanted = checks[keyword]
    elif keyword in _COUNTS:
        fine, wanted = (
            isinstance(value, int) and not isinstance(value, bool) and value >= 0,
            "a count from 0 on",
        )
    elif keyword in _NUMBERS:
        fine, wanted = is_of("number", value), "a number"
    elif keyword in _NOTES:
        fine = isinstance(value, _NOTES[keyword])
        wanted = "a text" if _NOTES[keyword] is str else called(["boolean"])
    else:
        fine, wanted = True, ""
    return "" if fine else wanted


def _is_type(value: Any) -> bool:
    if isinstance(value, str):
        return value in TYPES
    return (
        isinstance(value, list)
        and bool(value)
        and len(set(map(str, value))) == len(value)
        and all(one in TYPES for one in value)
    )


def _are_names(value: Any) -> bool:
    return (
        isinstance(value, list)
        and all(isinstance(one, str) for one in value)
        and len(set(value)) == len(value)
    )
