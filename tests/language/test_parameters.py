"""Binding a caller's values to declared parameters."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import InvalidInput
from app.language import parameters
from app.language.model import Parameter


def bound(kind: str, value: Any, **declared: Any) -> Any:
    return parameters.bind((Parameter("p", kind, **declared),), {"p": value})["p"]


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("string", "", ""),
        ("string", "5", "5"),
        ("string", "true", "true"),
        ("secret", "s3cret", "s3cret"),
        ("integer", 5, 5),
        ("integer", "5", 5),
        ("integer", "-5", -5),
        ("integer", "007", 7),
        ("number", 1.5, 1.5),
        ("number", 2, 2),
        ("number", "1.5", 1.5),
        ("number", "2", 2),
        ("float", "1e3", 1000.0),
        ("boolean", True, True),
        ("boolean", "true", True),
        ("boolean", "false", False),
        ("object", {"a": [1]}, {"a": [1]}),
        ("array", [], []),
        ("any", {"a": 1}, {"a": 1}),
        ("any", "5", "5"),
    ],
)
def test_a_value_of_its_type_is_bound(kind: str, value: Any, expected: Any) -> None:
    result = bound(kind, value)

    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("string", 5),
        ("string", True),
        ("string", 1.5),
        ("string", ["a"]),
        ("string", "a\0b"),
        ("secret", 5),
        ("integer", True),
        ("integer", 5.0),
        ("integer", 1.5),
        ("integer", "5.0"),
        ("integer", "1_000"),
        ("integer", " 5"),
        ("integer", "5\n"),
        ("integer", "٥"),
        ("integer", ""),
        ("integer", "9" * 5000),
        ("integer", 2**63),
        ("number", True),
        ("number", "nan"),
        ("number", "inf"),
        ("number", "1e999"),
        ("number", float("nan")),
        ("number", float("inf")),
        ("number", "0x10"),
        ("boolean", 1),
        ("boolean", 0),
        ("boolean", "yes"),
        ("boolean", "True"),
        ("boolean", ""),
        ("object", "{}"),
        ("object", []),
        ("array", "a,b"),
        ("array", {}),
        ("array", "[]"),
    ],
)
def test_a_value_of_another_type_is_refused(kind: str, value: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        bound(kind, value)

    assert [error["pointer"] for error in caught.value.detail["errors"]] == ["/parameters/p"]


DECLARED = (
    Parameter("app_name", required=True, description="Name of the application"),
    Parameter("environment", enum=("dev", "staging", "prod"), has_default=True, default="dev"),
    Parameter("count", "integer", has_default=True, default=3),
    Parameter("note"),
)


def test_what_is_not_given_has_its_default_or_is_null() -> None:
    assert parameters.bind(DECLARED, {"app_name": "web"}) == {
        "app_name": "web",
        "environment": "dev",
        "count": 3,
        "note": None,
    }


def test_a_null_takes_the_place_of_a_default() -> None:
    assert parameters.bind(DECLARED, {"app_name": "web", "count": None})["count"] is None


def test_a_required_parameter_with_a_default_takes_it() -> None:
    declared = (Parameter("p", required=True, has_default=True, default="x"),)

    assert parameters.bind(declared, {}) == {"p": "x"}
    assert parameters.bind(declared, {"p": None}) == {"p": "x"}


def test_everything_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(InvalidInput) as caught:
        parameters.bind(DECLARED, {"app-name": "web", "environment": "stagin", "count": "many", "a/b": 1})

    error = caught.value
    assert error.code == "invalid-parameters"
    assert error.detail["errors"] == [
        {
            "pointer": "/parameters/app-name",
            "detail": "there is no parameter `app-name`",
            "hint": "did you mean `app_name`?",
        },
        {
            "pointer": "/parameters/a~1b",
            "detail": "there is no parameter `a/b`",
            "hint": "known here: app_name, count, environment, note",
        },
        {
            "pointer": "/parameters/app_name",
            "detail": "the parameter `app_name` is required",
            "hint": "Name of the application",
        },
        {
            "pointer": "/parameters/environment",
            "detail": "the parameter `environment` cannot be `stagin`",
            "hint": "did you mean `staging`?",
        },
        {
            "pointer": "/parameters/count",
            "detail": "the parameter `count` must be a whole number, not `many`",
            "hint": "its type is integer",
        },
    ]


@pytest.mark.parametrize(("kind", "value"), [("secret", 12345), ("secret", "wrong12345")])
def test_a_secret_is_in_no_message(kind: str, value: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        bound(kind, value, enum=("right",))

    assert "12345" not in f"{caught.value} {caught.value.hint} {caught.value.detail}"


def test_an_enum_tells_true_from_one() -> None:
    with pytest.raises(InvalidInput):
        bound("any", True, enum=(1,))
    assert bound("integer", "1", enum=(1, 2)) == 1


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(max_examples=300)
@given(kind=st.sampled_from(parameters.TYPES), value=ANY_JSON)
def test_what_is_bound_is_of_its_type_and_nothing_else_is_raised(kind: str, value: Any) -> None:
    try:
        result = bound(kind, value)
    except InvalidInput:
        return
    assert result is None or parameters.accepts(kind, result)
    assert result is value or (isinstance(value, str) and isinstance(result, (int, float)))
