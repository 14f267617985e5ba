"""Texts made to hurt: they are refused in bounded time, and the process lives."""

from __future__ import annotations

import resource
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.language import parse, source

SIZE = source.MOST_BYTES - 1000
TASK = "tasks: [{name: a, action: core.noop}]\n"
MOST_SECONDS = 1.0
MOST_KILOBYTES = 200 * 1024


def aliases(levels: int) -> str:
    lines = ["vars:", "  l0: &l0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"  l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines) + "\n" + TASK


BOMBS = {
    "brackets": ("[" * SIZE, "too-deep"),
    "braces": ("{" * SIZE, "too-deep"),
    "braces with keys": ("{a: " * (SIZE // 4), "too-deep"),
    "dashes": ("- " * (SIZE // 2), "too-deep"),
    "question marks": ("? " * (SIZE // 2), "too-deep"),
    "brackets on lines": ("[\n" * (SIZE // 2), "too-deep"),
    "deep indentation": ("\n".join(" " * n + "a:" for n in range(480)), "too-deep"),
    "deep lists": ("\n".join(" " * n + "-" for n in range(480)), "too-deep"),
    "one level too many": ("vars: {a: " + "[" * 63 + "]" * 63 + "}\n" + TASK, "too-deep"),
    "a closing too many": ("]" * SIZE, "yaml-syntax"),
    "colons": (": " * (SIZE // 2), "yaml-syntax"),
    "commas": ("[" + "," * SIZE, "yaml-syntax"),
    "a huge key": ("a" * SIZE + ": 1\n", "yaml-syntax"),
    "exclamation marks": ("!" * SIZE, "tag"),
    "anchors": ("&a " * (SIZE // 3), "anchor"),
    "a huge anchor": ("&" + "a" * SIZE, "anchor"),
    "a huge tag": ("!<" + "a" * SIZE + ">", "tag"),
    "tag directives": ("".join(f"%TAG !a{n}! x\n" for n in range(7000)) + "--- a\n", "tag"),
    "many documents": ("---\n" * (SIZE // 4), "multi-document"),
    "many values": ("vars: {x: [" + "a," * (SIZE // 2 - 40) + "]}\n" + TASK, "too-many-nodes"),
    "many pairs": ("vars: [" + "a: b," * (SIZE // 5 - 40) + "]\n", "too-many-nodes"),
    "many keys": ("".join(f"k{n}: 1\n" for n in range(9000)) + TASK, "too-many-problems"),
    "many near keys": ("".join(f"task{n}: 1\n" for n in range(9000)) + TASK, "too-many-problems"),
    "many duplicates": ("a: 1\n" * 9000 + TASK, "too-many-problems"),
    "many aliases": ("tags: [" + "*a," * 9000 + "]\n" + TASK, "too-many-problems"),
    "an unclosed quote": ('"' + "a" * SIZE, "yaml-syntax"),
    "only a text": ("a " * (SIZE // 2), "wrong-type"),
    "carriage returns": ("\r" * SIZE, "empty-document"),
    "spaces": (" " * SIZE, "empty-document"),
    "comments": ("#" * SIZE, "empty-document"),
    "an alias bomb": (aliases(9), "alias"),
    "a merge bomb": ("".join(f"a{n}: &a{n} {{<<: [*a{n - 1}]}}\n" for n in range(1, 50)) + TASK, "merge-key"),
    "a number of 5000 digits": ("vars: {n: " + "9" * 5000 + "}\n" + TASK, "number-too-big"),
    "a float of 5000 digits": ("vars: {n: 1." + "9" * 5000 + "e5}\n" + TASK, "number-too-big"),
    "a huge name": ("tasks: [{name: " + "a" * 100_000 + ", action: core.noop}]\n", "out-of-range"),
    "a huge target": (
        "tasks: [{name: a, action: core.noop, on_success: " + "b" * 100_000 + "}]\n",
        "unknown-target",
    ),
    "deep brackets in a template": ('vars: {x: "{{ ' + "(" * 5000 + ')}}"}\n' + TASK, None),
    "a huge template": ('vars: {x: "{{ ' + "1 + " * 20_000 + '1 }}"}\n' + TASK, None),
    "many unknown targets": (
        "tasks:\n" + "".join(f"- {{name: t{n}, action: core.noop, on_success: x{n}}}\n" for n in range(1500)),
        "too-many-problems",
    ),
    "too many tasks": (
        "tasks:\n" + "".join(f"- {{name: t{n}, action: core.noop}}\n" for n in range(2001)),
        "too-many-tasks",
    ),
    "too many children": (
        "tasks:\n- name: p\n  type: parallel\n  tasks:\n"
        + "".join(f"  - {{name: t{n}, action: core.noop}}\n" for n in range(501)),
        "too-many-tasks",
    ),
    "too many nodes of the fleet": (
        "tasks: [{name: f, type: distributed_shell, input: {command: ls, nodes: ["
        + ",".join(f"n{n}" for n in range(10_001))
        + "]}}]\n",
        "out-of-range",
    ),
    "a schema too deep": (
        TASK + "output_map: {}\noutput: " + "{items: " * 16 + "{}" + "}" * 16 + "\n",
        "schema-too-large",
    ),
    "a schema too wide": (
        TASK + "output_map: {}\noutput: {anyOf: [" + "{}, " * 501 + "{}]}\n",
        "schema-too-large",
    ),
    "a schema of options of options": (
        TASK + "output_map: {}\noutput: " + "{anyOf: [{}, " * 15 + "{}" + "]}" * 15 + "\nno: 1\n",
        "unknown-key",
    ),
    "one byte too many": (TASK + "#" * (source.MOST_BYTES - len(TASK) + 1), "too-large"),
    "a megabyte": ("a: [" * 250_000, "too-large"),
    "a megabyte of text beyond ASCII": ("ä" * 100_000, "too-large"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_in_time(name: str) -> None:
    text, code = BOMBS[name]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    loaded = parse.load(text)

    assert time.perf_counter() - started < MOST_SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_KILOBYTES
    assert loaded.workflow is None
    assert code is None or code in {problem.code for problem in loaded.problems}


ENCODINGS = {
    "latin-1": (b"label: \xc3\xa4caf\xe9\n", "not-utf8", (1, 12)),
    "half a character": (b"ref: a.b\nlabel: \xc3\n", "not-utf8", (2, 8)),
    "an overlong slash": (b"label: \xc0\xaf\n", "not-utf8", (1, 8)),
    "a surrogate in bytes": (b"label: \xed\xa0\x80\n", "not-utf8", (1, 8)),
    "utf-16": (TASK.encode("utf-16"), "not-utf8", (1, 1)),
    "utf-16 without a mark": (TASK.encode("utf-16-le"), "control-character", (1, 2)),
    "utf-32": (TASK.encode("utf-32"), "not-utf8", (1, 1)),
    "a NUL": (b"label: a\0b\n", "control-character", (1, 9)),
    "a bell": ("ref: a.b\nlabel: a\x07\n", "control-character", (2, 9)),
    "an escape": ("label: \x1b[31m\n", "control-character", (1, 8)),
    "a delete": ("label: a\x7f\n", "control-character", (1, 9)),
    "a C1 control": ("label: a\x9b\n", "control-character", (1, 9)),
    "a next line": ("label: a\x85b: c\n", "control-character", (1, 9)),
    "a line separator": ("label: a\u2028b\n", "control-character", (1, 9)),
    "a paragraph separator": ("label: a\u2029b\n", "control-character", (1, 9)),
    "a surrogate": ("label: \ud800\n", "control-character", (1, 8)),
    "a second mark": ("\ufeff\ufefflabel: a\n", "control-character", (1, 1)),
    "a noncharacter": ("label: \uffff\n", "control-character", (1, 8)),
    "an escaped NUL": ('label: "\\0"\n' + TASK, "control-character", (1, 8)),
    "an escaped surrogate": ('label: "\\ud800"\n' + TASK, "yaml-syntax", (1, 11)),
    "random bytes": (bytes(range(256)), "not-utf8", (2, 118)),
    "an archive": (b"\x1f\x8b\x08\x00\x00\x00\x00\x00", "not-utf8", (1, 2)),
}


@pytest.mark.parametrize("name", ENCODINGS)
def test_a_text_in_a_wrong_encoding_is_refused_at_its_place(name: str) -> None:
    text, code, place = ENCODINGS[name]
    loaded = parse.load(text)

    assert loaded.workflow is None
    assert (code, place) in {(one.code, (one.line, one.column)) for one in loaded.problems}


def test_a_byte_order_mark_is_no_problem() -> None:
    assert parse.load(b"\xef\xbb\xbf" + TASK.encode()) == parse.load(TASK)


def test_nesting_up_to_the_limit_is_no_problem() -> None:
    assert parse.load("vars: {a: " + "[" * 62 + "]" * 62 + "}\n" + TASK).workflow is not None


def test_a_text_up_to_the_limit_is_no_problem() -> None:
    assert parse.load(TASK + "#" * (source.MOST_BYTES - len(TASK))).workflow is not None


GOOD = """\
ref: a.b
parameters: {p: {type: integer, default: 3}, q: {}}
vars: {x: "{{ parameters.p }}", y: [1, 2.50, {z: null}]}
tasks:
  - name: a
    action: core.shell
    input: {command: "echo {{ parameters.q }}", env: {A: "{{ vars.x }}"}}
    retry: {count: 2, on_error: "{{ task.a.error.type == 'x' }}"}
    publish: [{v: "{{ task.a.result.stdout }}"}]
    decision:
      - {when: "{{ vars.v }}", next: [b]}
      - default: c
  - {name: b, type: parallel, tasks: [{name: d, action: core.noop}], on_complete: c}
  - {name: c, type: distributed_shell, join: any, input: {nodes: [n1, n2], script: "set -e\\nls"}}
finally: [{name: e, action: core.echo, input: {message: "{{ task.b.status }}"}}]
"""
MARKS = "{}[]:-\"'|>!#\\äa😀\n\t\0"
WORDS = [
    "{{",
    "}}",
    "{%",
    "&a ",
    "*a",
    ": ",
    "- ",
    "  ",
    "? ",
    "<<: ",
    "!!str ",
    "null",
    "true",
    "012",
    "1e9",
]
LINES = ["task.", "name: a", "tasks:", "on_success: b"]
PIECES = st.sampled_from([*MARKS, *WORDS, *LINES])


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(GOOD)), st.integers(0, 12), PIECES), min_size=1, max_size=4))
def test_a_damaged_workflow_never_raises_and_every_problem_has_a_place(
    edits: list[tuple[int, int, str]],
) -> None:
    text = GOOD
    for start, length, piece in edits:
        text = text[:start] + piece + text[start + length :]
    loaded = parse.load(text)
    lines = text.split("\n")

    assert (loaded.workflow is None) == any(one.severity == "error" for one in loaded.problems)
    for one in loaded.problems:
        assert 1 <= one.line <= len(lines)
        assert 1 <= one.column <= len(lines[one.line - 1]) + 2
        assert one.message
        assert one.code


def test_the_text_that_is_damaged_is_good() -> None:
    assert parse.load(GOOD).workflow is not None
