"""Parameters of saved scripts: how they may be declared, and which values they take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import InvalidInput
from app.language import parameters
from app.language import script_parameters as script
from app.language.names import SHELLS
from app.language.reserved_names import is_reserved
from app.language.script_declarations import MOST_PARAMETERS, read
from app.language.script_parameters import ScriptParameter, from_json, to_json

CASES = Path(__file__).parent.parent / "cases" / "scripts"
VALUES = yaml.safe_load((CASES / "values.yaml").read_text())
DECLARATIONS = yaml.safe_load((CASES / "declarations.yaml").read_text())
RESERVED = yaml.safe_load((CASES / "reserved.yaml").read_text())
EVERY_SHELL = (*SHELLS, "dash", "python", "powershell", "cmd")


def numbered(rows: list[dict[str, Any]]) -> list[Any]:
    return [pytest.param(row, id=str(number)) for number, row in enumerate(rows, 1)]


@pytest.mark.parametrize("case", numbered([case for case in VALUES if "wrong" not in case]))
def test_a_value_is_bound(case: dict[str, Any]) -> None:
    (declared,) = read([{"name": "p", **case["declared"]}], case.get("shell", "bash"))
    bound = script.bind([declared], {"p": case["value"]}, shell=case.get("shell", ""))["p"]
    assert (bound, type(bound)) == (case["is"], type(case["is"]))
    assert script.env_text(declared.type, bound) == case["env"]


@pytest.mark.parametrize("case", numbered([case for case in VALUES if "wrong" in case]))
def test_a_value_is_refused_with_its_place(case: dict[str, Any]) -> None:
    declared = read([{"name": "p", **case["declared"]}], case.get("shell", "bash"))
    with pytest.raises(InvalidInput) as caught:
        script.bind(declared, {"p": case["value"]}, "/values", case.get("shell", ""))
    (error,) = caught.value.detail["errors"]
    assert error["pointer"] == "/values/p"
    assert case["wrong"] in error["detail"]
    assert case.get("hint", "") in error["hint"]
    if "secret" in case:
        assert case["secret"] not in f"{caught.value} {caught.value.hint} {caught.value.detail}"


def test_every_type_has_cases_of_both_kinds() -> None:
    for wrong in (True, False):
        assert {case["declared"]["type"] for case in VALUES if ("wrong" in case) is wrong} == set(
            script.TYPES
        )


def problems_of(declared: Any, shell: str) -> dict[str, str]:
    """Pointer -> text."""
    try:
        read(declared, shell)
    except InvalidInput as error:
        return {one["pointer"]: one["detail"] for one in error.detail["errors"]}
    return {}


@pytest.mark.parametrize("case", numbered(DECLARATIONS))
def test_declarations(case: dict[str, Any]) -> None:
    found = problems_of(case["declared"], case.get("shell", "bash"))
    assert found.keys() == case["problems"].keys()
    for pointer, part in case["problems"].items():
        assert part in found[pointer]


def test_too_many_parameters() -> None:
    names = [{"name": f"p{number}"} for number in range(MOST_PARAMETERS + 1)]
    assert len(read(names[:-1], "bash")) == MOST_PARAMETERS
    with pytest.raises(InvalidInput) as caught:
        read(names, "bash")
    assert [error["pointer"] for error in caught.value.detail["errors"]] == ["/parameters"]


@pytest.mark.parametrize("shell", EVERY_SHELL)
def test_names_that_are_taken(shell: str) -> None:
    own = RESERVED.get(shell, {"taken": [], "free": []})
    for name in (*RESERVED["any"]["taken"], *own["taken"]):
        assert is_reserved(name, shell), name
        with pytest.raises(InvalidInput):
            read([{"name": name}], shell)
    for name in (*RESERVED["any"]["free"], *own["free"]):
        assert not is_reserved(name, shell), name
        assert read([{"name": name}], shell)[0].name == name


def test_everything_that_is_wrong_is_said_at_once() -> None:
    declared = read([{"name": "target", "required": True}, {"name": "count", "type": "integer"}], "bash")
    with pytest.raises(InvalidInput) as caught:
        script.bind(declared, {"tarjet": "x", "count": "many", "a/b": 1})
    assert [(one["pointer"], one["hint"]) for one in caught.value.detail["errors"]] == [
        ("/parameter_values/tarjet", "did you mean `target`?"),
        ("/parameter_values/a~1b", "known here: count, target"),
        ("/parameter_values/target", "give a text"),
        ("/parameter_values/count", "its type is integer"),
    ]
    assert caught.value.code == "invalid-parameters"


def test_what_is_not_given_has_its_default_in_the_order_declared() -> None:
    declared = read([{"name": "b", "type": "float", "default": 3}, {"name": "a"}], "bash")
    bound = script.bind(declared, {"a": "x"})
    assert list(bound.items()) == [("b", 3.0), ("a", "x")]
    assert isinstance(bound["b"], float)
    assert script.bind(declared, {}) == {"b": 3.0, "a": None}


def test_texts_are_bounded_alone_and_together() -> None:
    declared = [ScriptParameter(f"p{number}") for number in range(20)]
    longest = "é" * (script.MOST_VALUE // 2)
    assert script.bind(declared, {"p0": longest})["p0"] == longest
    with pytest.raises(InvalidInput) as caught:
        script.bind(declared, {"p0": longest + "x"})
    assert caught.value.detail["errors"][0]["pointer"] == "/parameter_values/p0"
    with pytest.raises(InvalidInput) as caught:
        script.bind(declared, {one.name: longest for one in declared})
    assert caught.value.detail["errors"][0]["pointer"] == "/parameter_values"


def test_thousands_of_unknown_names_are_told_in_part() -> None:
    with pytest.raises(InvalidInput) as caught:
        script.bind([ScriptParameter("p")], {f"x{number}": 1 for number in range(50_000)})
    assert len(caught.value.detail["errors"]) == script.MOST_UNKNOWN


def test_a_workflow_declares_the_same() -> None:
    given = [
        {"name": "a", "type": "secret", "required": True, "description": "The key"},
        {"name": "b", "type": "float", "required": False, "default": 2, "choices": [2, 3]},
    ]
    key, number = script.as_workflow(read(given, "bash"))
    assert (key.name, key.type, key.required, key.has_default) == ("a", "secret", True, False)
    assert (number.type, number.default, number.enum) == ("float", 2, (2, 3))
    assert parameters.bind((key, number), {"a": "x", "b": 3.0}) == {"a": "x", "b": 3.0}


def test_a_declaration_comes_back_from_json_as_it_was() -> None:
    for case in DECLARATIONS:
        if not case["problems"]:
            for declared in read(case["declared"], "bash"):
                assert from_json(to_json(declared)) == declared


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
KEYS = st.sampled_from(
    ["name", "type", "required", "default", "description", "pattern", "min", "max", "choices"]
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.dictionaries(KEYS, ANY_JSON) | ANY_JSON, max_size=3) | ANY_JSON, st.sampled_from(EVERY_SHELL)
)
def test_whatever_is_declared_nothing_else_is_raised(declared: Any, shell: str) -> None:
    if not problems_of(declared, shell):
        found = read(declared, shell)
        assert [from_json(to_json(one)) for one in found] == list(found)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(script.TYPES), ANY_JSON)
def test_whatever_is_given_is_of_its_type_or_refused(kind: str, value: Any) -> None:
    try:
        bound = script.bind([ScriptParameter("p", kind)], {"p": value})["p"]
    except InvalidInput:
        return
    assert bound is None or parameters.accepts(kind, bound)
    assert "\0" not in script.env_text(kind, bound)
