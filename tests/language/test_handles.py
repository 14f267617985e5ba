"""Secrets in templates while they are rendered: every case of tests/cases/templates/handles.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from app import marks
from app.language import expressions
from app.language.expressions import TemplateError
from app.language.opaque import Handle
from app.language.plain import ValueRefused

CASES: list[dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parents[1] / "cases" / "templates" / "handles.yaml").read_text("utf-8")
)
FORGED = marks.mark("secret:token")
SCOPE: dict[str, Any] = {
    "kv": {"get": {}, "get_secret": {"token": Handle("secret:token")}},
    "parameters": {"p": Handle("parameter:p"), "q": 1},
    "vars": {
        "yes": True,
        "name": "p",
        "data": FORGED,
        "deep": {"a": [FORGED], f"{marks.OPEN}k": 1},
        "open": marks.OPEN,
        "close": marks.CLOSE,
        "encoded": "77eQc2VjcmV0OnRva2Vu77eR",
        "map": {"p": 1},
    },
}


def wanted(value: Any) -> Any:
    return value.replace("[[", marks.OPEN).replace("]]", marks.CLOSE) if isinstance(value, str) else value


@pytest.mark.parametrize("case", CASES, ids=[case["text"] for case in CASES])
def test_a_template_with_a_secret(case: dict[str, Any]) -> None:
    text = case["text"]
    if case.get("refused") and not case.get("places"):
        for handles in (False, True):
            with pytest.raises(TemplateError):
                expressions.render(text, SCOPE, handles=handles)
        return
    if "value" in case:
        assert expressions.render(text, SCOPE, handles=True) == wanted(case["value"])
    if case.get("anywhere"):
        assert expressions.render(text, SCOPE) == wanted(case["value"])
    else:
        with pytest.raises(TemplateError):
            expressions.render(text, SCOPE)


def test_a_condition_is_never_a_secret() -> None:
    with pytest.raises(TemplateError):
        expressions.truth("{{ parameters.p }}", SCOPE)


@pytest.mark.parametrize(
    "ask", [str, repr, bool, len, hash, iter, int, float, list, lambda handle: f"{handle}", lambda h: h == h]
)
def test_a_handle_says_nothing(ask: Any) -> None:
    with pytest.raises(ValueRefused):
        ask(Handle("secret:token"))


def test_marks_are_put_in_once() -> None:
    value = {"a": [f"x{FORGED}y"], "b": 1, FORGED: "k"}
    assert marks.put(value, {"secret:token": FORGED}) == {"a": [f"x{FORGED}y"], "b": 1, FORGED: "k"}
    assert marks.put(value, {"secret:token": "v"})["a"] == ["xvy"]
    assert marks.shown(value["a"]) == ["xsecretref:tokeny"]
    assert marks.shown(marks.mark("parameter:p") + marks.OPEN) == "secretref:parameter:p\ufffd"
    with pytest.raises(KeyError):
        marks.put(value, {})
    assert marks.harmless(value) == {
        "a": ["x\ufffdsecret:token\ufffdy"],
        "b": 1,
        "\ufffdsecret:token\ufffd": "k",
    }
