"""What is found in a saved script's text, and values that are pasted into one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import InvalidInput
from app.language import findings
from app.language.script_declarations import read
from app.language.script_form import Form, check
from app.language.script_lint import SHELLS, check_text, lint, render_text
from app.language.script_parameters import ScriptParameter

CASES = yaml.safe_load((Path(__file__).parent.parent / "cases" / "scripts" / "lint.yaml").read_text())
DECLARED = (
    ScriptParameter("name"),
    ScriptParameter("key", "secret"),
    ScriptParameter("count", "integer"),
    ScriptParameter("ratio", "float"),
    ScriptParameter("dry", "boolean"),
)


@pytest.mark.parametrize("case", [pytest.param(case, id=repr(case["body"])[:60]) for case in CASES])
def test_what_is_found(case: dict[str, Any]) -> None:
    found = lint(case.get("shell", "bash"), case["body"], DECLARED)
    assert sorted(f"{one.line}:{one.column} {one.code}" for one in found) == sorted(case["found"])
    assert all(one.hint and one.message for one in found)


def test_every_finding_has_a_case() -> None:
    shown = {text.split(" ")[1] for case in CASES for text in case["found"]}
    assert shown | {"lint-too-deep"} == findings._MESSAGES.keys()


@pytest.mark.parametrize(
    "text",
    [
        "a " * 250_000 + "$name",
        "\\a" * 250_000 + "$name",
        '"$name" ' * 60_000,
        "eval " + '"$name" ' * 60_000,
        "$(" * 200_000 + "name",
        "${x:-" * 90_000 + "$name",
        "'" + "$name " * 80_000 + "'",
        "cat <<A\n" * 50_000 + "$name",
        "$((name+" * 60_000,
        "$((" + "name " * 90_000,
        "`" * 400_000 + "name",
        "$name[" * 80_000,
        "a[$name " * 60_000,
        '"' * 400_000 + "name",
        "name" * 100_000,
        "${a[" + "$name" * 90_000,
        "let " + "name " * 90_000,
        "[[ " + "name -eq " * 50_000,
    ],
    ids=range(18),
)
def test_no_text_takes_long(text: str) -> None:
    for shell in ("bash", "powershell", "cmd"):
        started = time.process_time()
        assert len(lint(shell, text[:500_000], DECLARED)) <= findings.MOST
        assert time.process_time() - started < 5


def test_what_is_nested_too_deep_is_not_read_to_its_end() -> None:
    found = lint("bash", "$(" * 500 + "$name", DECLARED)
    assert [one.code for one in found] == ["lint-too-deep"]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                *"$(){}[]'\"`\\\n\r;&|<>#=%!@:- ",
                "$name",
                "${name",
                "${!name}",
                "name",
                "<<A",
                "<<'A'",
                "A\n",
                "$((",
                "))",
                "[[",
                "]]",
                "-eq",
                "eval",
                "case",
                "in",
                "esac",
                "for",
                "let",
                "iex",
                "@'\n",
                "\n'@",
                "%name%",
            ]
        ),
        max_size=40,
    ).map(" ".join)
    | st.text(),
    st.sampled_from(SHELLS),
)
def test_any_text_is_read(text: str, shell: str) -> None:
    for one in lint(shell, text, DECLARED):
        line = (text + "\n").split("\n")[one.line - 1]
        assert 1 <= one.column <= len(line) + 1


def test_one_pass_from_left_to_right() -> None:
    declared = [ScriptParameter("a"), ScriptParameter("b"), ScriptParameter("dry", "boolean")]
    values = {"a": "${b}", "b": "\\1 $a ${a}", "dry": False}
    assert render_text("${a}${b} $a ${c} ${dry} ${a", declared, values) == "${b}\\1 $a ${a} $a ${c} false ${a"


def test_what_is_no_character_is_refused() -> None:
    """Between these two stand the names of secrets where a value is put in."""
    for form in (Form("a", "sh", "echo \ufdd0"), Form("a", "sh", "true", description="\ufdd1")):
        with pytest.raises(InvalidInput) as caught:
            check(form)
        assert len(caught.value.detail["errors"]) == 1


def test_pasting_is_for_what_is_bounded_and_approved() -> None:
    given = [
        {"name": "free"},
        {"name": "bounded", "pattern": "[a-z]+"},
        {"name": "loose", "pattern": "[^a]+"},
        {"name": "listed", "choices": ["a", "b;c"]},
        {"name": "count", "type": "integer"},
        {"name": "key", "type": "secret", "pattern": "[a-z]+"},
    ]
    errors, warnings = check_text(read(given, "bash"), requires_approval=False)
    assert [one["pointer"] for one in errors] == [
        "/requires_approval",
        "/parameters/0/pattern",
        "/parameters/5/type",
    ]
    assert [one["pointer"] for one in warnings] == ["/parameters/2/pattern", "/parameters/3/pattern"]
    assert check_text(read(given[1:2], "bash"), requires_approval=True) == ([], [])
