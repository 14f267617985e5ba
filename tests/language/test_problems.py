"""How problems are shown: text for terminals, commands for annotations, JSON."""

from __future__ import annotations

import json

import pytest

from app.language import parse, problems

BAD = 'ref: a.b\ntasks:\n  - name: a\n    action: core.noop\n    timout: 5\n    when: "{{ vars.x"\n'


def test_text_shows_place_line_caret_and_hint() -> None:
    first = parse.load(BAD, "deploy.yaml").problems[0]

    assert problems.render_text([first]) == (
        "deploy.yaml:5:5: error: a task has no key `timout` [unknown-key]\n"
        "        timout: 5\n"
        "        ^\n"
        "    hint: did you mean `timeout`?"
    )


def test_the_caret_stands_under_the_column_of_a_long_line() -> None:
    text = "tasks: [{name: a, action: core.noop, description: " + "x" * 300 + ", timout: 5}]\n"
    shown = problems.render_text(parse.load(text).problems).splitlines()

    assert len(shown[1]) < 140
    assert shown[1][shown[2].index("^") :].startswith("timout")


def test_nothing_that_moves_a_cursor_is_shown() -> None:
    text = 'tasks: [{name: "a\\e[31m\\u202eb", action: core.noop, timout: 1}]\nlabel:\t@\n'
    shown = problems.render_text(parse.load(text).problems)

    assert not any(character in shown for character in "\x1b\u202e\t")


@pytest.mark.parametrize(
    ("message", "file", "line"),
    [
        ("50% done", "a.yaml", "::error file=a.yaml,line=1,col=2,title=x::50%25 done"),
        ("a\nb\rc", "a.yaml", "::error file=a.yaml,line=1,col=2,title=x::a%0Ab%0Dc"),
        ("a: b, c", "c:/a,b.yaml", "::error file=c%3A/a%2Cb.yaml,line=1,col=2,title=x::a: b, c"),
        (
            "::set-output name=x::y",
            "a.yaml",
            "::error file=a.yaml,line=1,col=2,title=x::::set-output name=x::y",
        ),
    ],
)
def test_github_commands_are_escaped(message: str, file: str, line: str) -> None:
    assert problems.render_github([problems.Problem("x", message, file, 1, 2)]) == line


def test_github_tells_warnings_from_errors() -> None:
    loaded = parse.load("tasks:\n- {name: a, action: core.noop}\n- {name: b, action: core.noop}\n", "w.yaml")

    assert problems.render_github(loaded.problems).startswith(
        "::warning file=w.yaml,line=3,col=3,title=several-entries::"
    )


def test_json_carries_every_field() -> None:
    first = parse.load(BAD, "deploy.yaml").problems[0]

    assert json.loads(json.dumps(problems.as_json(first))) == {
        "code": "unknown-key",
        "message": "a task has no key `timout`",
        "file": "deploy.yaml",
        "line": 5,
        "column": 5,
        "path": "/tasks/0/timout",
        "hint": "did you mean `timeout`?",
        "severity": "error",
        "source_line": "    timout: 5",
    }


def test_pointers_are_escaped() -> None:
    loaded = parse.load('vars: {x: {"a/b~c": 012}}\ntasks: [{name: a, action: core.noop}]\n')

    assert [problem.path for problem in loaded.problems] == ["/vars/x/a~1b~0c"]


def test_invalid_workflow_names_the_first_error_and_counts_the_rest() -> None:
    with pytest.raises(problems.InvalidWorkflow) as caught:
        parse.load_or_raise("vars: {v: 1.10}\n" + BAD, "deploy.yaml")

    error = caught.value
    assert error.code == "invalid-workflow"
    assert error.status == 422
    assert error.message == "deploy.yaml:6:5: a task has no key `timout` (and 1 more problem)"
    assert error.hint == "did you mean `timeout`?"
    assert [problem.severity for problem in error.problems] == ["warning", "error", "error"]
    assert error.detail["errors"][1]["path"] == "/tasks/0/timout"


def test_a_good_workflow_is_given_back() -> None:
    assert parse.load_or_raise("tasks: [{name: a, action: core.noop}]\n").tasks[0].name == "a"


def test_the_number_of_problems_is_bounded() -> None:
    found = parse.load("".join(f"k{n}: 1\n" for n in range(1000))).problems

    assert len(found) == problems.MOST_PROBLEMS + 1
    assert found[-1].code == "too-many-problems"
