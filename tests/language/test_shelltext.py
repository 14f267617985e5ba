"""Values in shell text: bound where they are data, refused where they would be code, and run for real."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.errors import InvalidInput
from app.language import expressions
from app.language.shelltext import BindError, BoundText, bind, value_text
from app.marks import CLOSE, OPEN

CASES = yaml.safe_load((Path(__file__).parent.parent / "cases" / "templates" / "shell.yaml").read_text())
LETTERS = {"{x}": "{{ vars.x }}", "{y}": "{{ vars.y }}", "{z}": "{{ vars.z }}"}


def ids(rows: list[dict[str, Any]]) -> list[Any]:
    return [pytest.param(row, id=f"{number}-{row['text'][:40]!r}") for number, row in enumerate(rows, 1)]


@pytest.mark.parametrize("case", ids([row for row in CASES if "code" not in row]))
def test_text_is_bound(case: dict[str, Any]) -> None:
    bound = bind(case["text"], case.get("shell", "bash"))
    assert bound.whole is case.get("whole", False)
    if bound.whole:
        assert bound == BoundText(case["text"], whole=True)
        return
    sources = {**LETTERS, **({"{x}": case["x"]} if "x" in case else {})}
    names = {source: name for name, source in bound.bindings}
    expected = case["bound"]
    for letter, source in sources.items():
        assert (letter in expected) is (source in names), f"{source} in {bound}"
        expected = expected.replace(letter, f"${{{names.get(source)}}}")
    assert bound.text == expected
    assert sorted(names.values()) == [f"MUSTER_V{number}" for number in range(1, len(names) + 1)]


@pytest.mark.parametrize("case", ids([row for row in CASES if "code" in row]))
def test_text_is_refused_with_a_place_and_a_way_out(case: dict[str, Any]) -> None:
    with pytest.raises(BindError) as raised:
        bind(case["text"], case.get("shell", "bash"))
    error = raised.value
    assert error.code == case["code"], error.message
    assert (error.line, error.column) == (case.get("line", error.line), case.get("column", error.column))
    assert 1 <= error.line <= case["text"].count("\n") + 1
    assert error.message
    assert error.hint or case["code"].startswith("template")


def test_names_do_not_collide_with_the_text() -> None:
    bound = bind("echo $MUSTER_V1 {{ vars.x }} ${MUSTER_V3} {{ vars.y }} # MUSTER_V2", "bash")
    assert [name for name, _ in bound.bindings] == ["MUSTER_V4", "MUSTER_V5"]


def test_long_text_is_read_in_linear_time() -> None:
    text = 'echo "{{ vars.x }}" {# ${a} $(b) {%\n' * 2_000
    assert bind(text, "bash").bindings == (("MUSTER_V1", "{{ vars.x }}"),)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a b", "a b"),
        (True, "true"),
        (False, "false"),
        (None, ""),
        (3, "3"),
        (1.5, "1.5"),
        ([1, "é", None], '[1,"é",null]'),
        ({"a": {"b": False}}, '{"a":{"b":false}}'),
    ],
)
def test_value_text(value: Any, text: str) -> None:
    assert value_text(value) == text


@pytest.mark.parametrize("value", ["a\0b", "\ud800", float("inf"), 2**70, {"a": "x" * 1_000_001}, {1}])
def test_value_that_no_environment_carries_is_refused(value: Any) -> None:
    with pytest.raises(InvalidInput) as raised:
        value_text(value)
    assert raised.value.code == "value"


# The real shells. `{{ vars.x }}` stands in each script where data may stand; `show` prints its arguments with
# a NUL after each, so that a value that was split, expanded or run would be seen. A command substitution
# drops the newlines at its end: the scripts put a dot there.

SHOW = 'show() { for each in "$@"; do printf "%s\\0" "$each"; done; }\n'
CONTEXTS = {
    "unquoted": "show {{ vars.x }}",
    "double quoted": 'show "{{ vars.x }}"',
    "assignment": 'a={{ vars.x }}; show "$a"',
    "assignment in double quotes": 'a="{{ vars.x }}"; show "$a"',
    "here-document": 'a=$(cat <<EOF\n{{ vars.x }}.\nEOF\n)\nshow "${a%.}"',
    "nested": "a=$(printf '%s.' {{ vars.x }}); show \"${a%.}\"",
    "nested in double quotes": 'a="$(printf \'%s.\' "$(printf %s {{ vars.x }}.)")"; show "${a%..}"',
    "backquotes": "a=`printf '%s.' {{ vars.x }}`; show \"${a%.}\"",
    "export": 'export A={{ vars.x }}; show "$A"',
    "case": "case {{ vars.x }} in {{ vars.x }}) show {{ vars.x }};; *) show wrong;; esac",
    "loop": 'for a in {{ vars.x }}; do show "$a"; done',
    "function": 'f() { show "$1"; }; f {{ vars.x }}',
    "argument of a shell": 'a=$(sh -c \'printf "%s." "$1"\' sh {{ vars.x }}); show "${a%.}"',
    "test": '[ {{ vars.x }} = "{{ vars.x }}" ] && show {{ vars.x }}',
}
MARK = "touch MARK"
VALUES = [
    *(
        "",
        " ",
        "a b",
        "  a   b  ",
        "*",
        "?",
        "~",
        "~root",
        "$HOME",
        "${HOME}",
        "$(" + MARK + ")",
        "`" + MARK + "`",
    ),
    *("; " + MARK, "\n" + MARK + "\n", "&& " + MARK, "| " + MARK, "& " + MARK, "' ; " + MARK + " ; '"),
    *(
        '" ; ' + MARK + ' ; "',
        '"$(' + MARK + ')"',
        "'$(" + MARK + ")'",
        "\\",
        "\\\\",
        "a\\",
        "\\'",
        '\\"',
        "\\n",
    ),
    *(
        "a[$(" + MARK + ")]",
        "$((" + "a[$(" + MARK + ")]))",
        "x=1",
        "-n",
        "-e",
        "--help",
        "!",
        "!!",
        "# " + MARK,
    ),
    *(
        "EOF",
        "a\nEOF\n" + MARK,
        ")",
        "}",
        "]]",
        "(",
        "{a,b}",
        "{1..9}",
        "%s%n",
        "é ü 漢 😀",
        "\t",
        "\r",
        "\x01\x7f",
    ),
    *(
        "{{ 7 * 7 }}",
        "${MUSTER_V1}",
        "$MUSTER_V1",
        "<(" + MARK + ")",
        "> MARK",
        "esac",
        ";;",
        "\u2028",
        "=" * 3,
    ),
    *(json.dumps({"a": ["$(" + MARK + ")"]}), "a" * 5_000, "() { :; }; " + MARK),
]


def run_all(shell: str, script: str, values: list[str], where: Path) -> list[list[str]]:
    """What `show` was given in each run of the bound script, one run per value."""
    bound = bind(SHOW + script, shell)
    results = []
    for value in values:
        scope = {"vars": {"x": value}}
        env = {"PATH": os.environ["PATH"], "HOME": "/", "LC_ALL": "C.UTF-8"}
        env |= {name: value_text(expressions.render(source, scope)) for name, source in bound.bindings}
        done = subprocess.run(
            [shell, "-c", bound.text], env=env, cwd=where, capture_output=True, timeout=30, check=False
        )
        assert done.returncode == 0, (value, done.stderr)
        results.append(done.stdout.decode().split("\0")[:-1])
    return results


@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.parametrize("context", CONTEXTS)
def test_value_arrives_exactly_and_never_runs(context: str, shell: str, tmp_path: Path) -> None:
    (tmp_path / "decoy").touch()
    assert run_all(shell, CONTEXTS[context], VALUES, tmp_path) == [[value] for value in VALUES]
    assert [path.name for path in tmp_path.iterdir()] == ["decoy"]


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_integer_in_arithmetic_arrives(shell: str, tmp_path: Path) -> None:
    bound = bind("echo $(( 2 * {{ vars.x | int }} ))", shell)
    for value, shown in (("21", "42"), (-4, "-8"), ("1.9", "2")):
        [(name, source)] = bound.bindings
        env = {
            "PATH": os.environ["PATH"],
            name: value_text(expressions.render(source, {"vars": {"x": value}})),
        }
        done = subprocess.run([shell, "-c", bound.text], env=env, capture_output=True, check=True, timeout=30)
        assert done.stdout.decode().strip() == shown
    with pytest.raises(expressions.TemplateError):
        expressions.render(source, {"vars": {"x": "a[$(touch MARK)]"}})


@pytest.mark.parametrize(
    "case", ids([row for row in CASES if "bound" in row and row.get("shell", "bash") in ("sh", "bash")])
)
def test_bound_text_is_good_shell(case: dict[str, Any]) -> None:
    shell = case.get("shell", "bash")
    bound = bind(case["text"], shell)
    done = subprocess.run([shell, "-n", "-c", bound.text], capture_output=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr.decode()


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters=f"\0{OPEN}{CLOSE}")),
        min_size=20,
        max_size=40,
    )
)
def test_any_text_arrives_in_double_quotes(values: list[str]) -> None:
    script = "".join(f'printf "%s\\0" "<{{{{ vars.x[{place}] }}}}>"\n' for place in range(len(values)))
    bound = bind(script, "bash")
    env = {
        name: value_text(expressions.render(source, {"vars": {"x": values}}))
        for name, source in bound.bindings
    }
    done = subprocess.run(
        ["bash", "-c", bound.text],
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **env},
        capture_output=True,
        check=True,
        timeout=30,
    )
    assert done.stdout.decode().split("\0")[:-1] == [f"<{value}>" for value in values]


PIECES = st.sampled_from(
    [
        *(
            "{{ vars.x }}",
            "{{ vars.x | int }}",
            "'",
            '"',
            "`",
            "$(",
            ")",
            "${",
            "}",
            "$((",
            "))",
            "((",
            "\\",
            "#",
        ),
        *(
            "\n",
            " ",
            "<<EOF\n",
            "<<'EOF'\n",
            "\nEOF\n",
            "case a in b)",
            ";;",
            "esac",
            "[[ ",
            " ]]",
            ";",
            "&&",
        ),
        *(
            "|",
            "a",
            "a=",
            "a=(",
            "$'",
            "eval ",
            "sh -c ",
            "[",
            "]",
            "-eq",
            "{",
            "$",
            "{%",
            "%}",
            "<",
            ">",
            "&",
        ),
        *("f()", "if ", "; then ", "; fi"),
    ]
)


def _closed(text: str) -> str:
    """Without the spaces that keep braces of a comment from being taken for a template."""
    return re.sub(r"{ (?=[{%])", "{", text)


@settings(max_examples=400, deadline=None)
@given(st.lists(PIECES, max_size=14), st.sampled_from(["sh", "bash", "ksh", "zsh"]))
@example(["#", "$", "{{{ vars.x }}"], "sh")
def test_any_text_is_bound_or_refused(pieces: list[str], shell: str) -> None:
    """Bound, with everything but the placeholders as it was, or refused with a way out; nothing else."""
    text = "".join(pieces)
    try:
        bound = bind(text, shell)
    except BindError as error:
        refused = error
    else:
        refused = None
    if refused is not None:
        assert refused.hint or refused.code.startswith("template")
        return
    assert bound.whole or "{{" not in bound.text
    back = _closed(bound.text)
    for name, source in bound.bindings:
        assert f"${{{name}}}" in back
        back = re.sub(rf'"?\${{{name}}}"?', lambda _found, source=source: source, back)
    text = _closed(text)
    assert back.replace('"', "") == text.replace('"', "")
