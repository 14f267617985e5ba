"""Our part of JSON Schema against the library that knows all of it, and its bounds."""

from __future__ import annotations

import time
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.language.fitting import MOST_CHECKS, misfits, same

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 4)
    | st.sampled_from([0.5, 1.0, 2.5])
    | st.sampled_from(["", "a", "ab", "abc"])
)
NAMES = st.sampled_from(["a", "b", "c/d"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
TYPES = st.sampled_from(["null", "boolean", "integer", "number", "string", "array", "object"])
COUNTS = st.integers(0, 3)
NUMBERS = st.integers(-2, 3) | st.just(1.5)
PLAIN: dict[str, st.SearchStrategy[Any]] = {
    "type": TYPES | st.lists(TYPES, min_size=1, max_size=3, unique=True),
    "enum": st.lists(VALUES, min_size=1, max_size=3),
    "const": VALUES,
    "required": st.lists(NAMES, max_size=2, unique=True),
    "uniqueItems": st.booleans(),
    "multipleOf": st.sampled_from([1, 2, 0.5]),
    **dict.fromkeys(
        ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"), COUNTS
    ),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), NUMBERS),
}


def parts(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    many = st.lists(inner, min_size=1, max_size=3)
    nested = {
        "properties": st.dictionaries(NAMES, inner, max_size=3),
        **dict.fromkeys(("items", "additionalProperties", "not"), inner),
        **dict.fromkeys(("allOf", "anyOf", "oneOf"), many),
    }
    return st.fixed_dictionaries({}, optional={**PLAIN, **nested})


SCHEMAS = st.recursive(st.booleans() | st.fixed_dictionaries({}, optional=PLAIN), parts, max_leaves=6)


@settings(max_examples=500, deadline=None)
@given(SCHEMAS, VALUES)
def test_it_says_what_the_library_says(schema: Any, value: Any) -> None:
    expected = jsonschema.Draft202012Validator(schema).is_valid(value)
    found = list(misfits(schema, value))
    assert (not found) == expected, (schema, value, found)


@given(VALUES)
def test_a_value_is_the_same_as_itself_and_its_tuples(value: Any) -> None:
    assert same(value, value)
    assert not list(misfits({"const": value}, value))
    assert same(value, tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"items": {"anyOf": [{"type": "string"}, {"type": "number"}]}}, [1] * 200_000),
        ({"items": {"enum": list(range(500))}}, [-1] * 100_000),
        ({"uniqueItems": True}, list(range(200_000))),
        ({"additionalProperties": {"type": "integer"}}, {f"k{n}": n for n in range(200_000)}),
        ({"properties": {}, "additionalProperties": False}, {f"k{n}": n for n in range(200_000)}),
    ],
)
def test_what_would_take_long_is_refused(schema: Any, value: Any) -> None:
    started = time.process_time()
    found = list(misfits(schema, value))
    assert time.process_time() - started < 2
    assert (found[-1].rule, len(found) <= MOST_CHECKS + 1) == ("size", True)


def test_no_message_holds_a_value() -> None:
    schema = {
        "properties": {"a": {"type": "integer", "enum": [1], "maxLength": 2}},
        "additionalProperties": False,
    }
    told = " ".join(f"{one.pointer} {one.message}" for one in misfits(schema, {"a": "canary", "b": "canary"}))
    assert "canary" not in told
    assert "/a must be a whole number" in told
