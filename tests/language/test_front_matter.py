"""The header of a script's file: parted from the body, and every problem with its place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.language.front_matter import BadHeader, read

HEADED = "#!/bin/bash\n# ---\n# name: deploy\n# parameters:\n#   - {name: a}\n#\n# ---\necho $a\n"


def test_a_header_is_no_part_of_the_body() -> None:
    found = read(HEADED, "f")
    assert found.says == {"name": "deploy", "parameters": [{"name": "a"}], "shell": "bash"}
    assert found.body == "#!/bin/bash\necho $a\n"
    assert [found.line_of_body(line) for line in (1, 2, 3)] == [1, 8, 9]
    place = found.place("/parameters/0/name")
    assert place is not None
    assert (place.line, place.column) == (5, 8)
    assert found.place("/timeout") is None


@pytest.mark.parametrize(
    ("text", "says", "body"),
    [
        ("echo\n", {}, "echo\n"),
        ("", {}, ""),
        ("#!/usr/bin/env python3\nx", {"shell": "python"}, "#!/usr/bin/env python3\nx"),
        ("#! /usr/bin/pwsh\n", {"shell": "powershell"}, "#! /usr/bin/pwsh\n"),
        ("# ---\n# shell: sh\n# ---", {"shell": "sh"}, ""),
        ("# ---\n# ---\necho", {}, "echo"),
        (
            "@echo off\r\nREM ---\r\nREM name: w\r\nrem ---\r\necho\r\n",
            {"name": "w"},
            "@echo off\r\necho\r\n",
        ),
        (":: ---\n:: name: w\n:: ---\n", {"name": "w"}, ""),
        ("echo\n\n# ---\n# name: late\n# ---\n", {}, "echo\n\n# ---\n# name: late\n# ---\n"),
        ("echo a\x0bb\u2028c\n", {}, "echo a\x0bb\u2028c\n"),
    ],
)
def test_headers(text: str, says: dict[str, object], body: str) -> None:
    found = read(text, "f")
    assert (found.says, found.body) == (says, body)


@pytest.mark.parametrize(
    ("text", "line", "column", "code"),
    [
        ("# ---\n# nam: x\n# ---\n", 2, 3, "unknown-key"),
        ("# ---\n# name: [x\n# ---\n", 3, 1, "yaml-syntax"),
        ("# ---\n# name: x\n# name: y\n# ---\n", 3, 3, "duplicate-key"),
        ("# ---\n# [a]\n# ---\n", 2, 3, "wrong-type"),
        ("# ---\n# name: x\necho\n# ---\n", 3, 1, "bad-header"),
        ("#!/bin/sh\n# ---\n# name: x\n", 2, 1, "bad-header"),
        ("# ---\n# name: &x y\n# ---\n", 2, 9, "anchor"),
    ],
)
def test_what_is_wrong_has_its_place_in_the_file(text: str, line: int, column: int, code: str) -> None:
    with pytest.raises(BadHeader) as caught:
        read(text, "f")
    first = caught.value.problems[0]
    assert (first.line, first.column, first.code) == (line, column, code)


@given(
    st.lists(
        st.sampled_from(["# ---", "# name: x", "#", "echo", "REM ---", "\r", "# - a", "  ", "# {", "\u2028"])
    )
)
def test_every_file_is_read_or_refused(lines: list[str]) -> None:
    text = "\n".join(lines)
    try:
        found = read(text, "f")
    except BadHeader:
        return
    assert found.lines or found.body == text
