"""Event streams as they are read, and what of a node's output reaches a terminal."""

from __future__ import annotations

import pytest

from app.cli import sse
from app.cli.plain import safe

PARSED = [
    ("one", "data: a\n\n", [("message", "a", "")]),
    ("names, several lines of data", "event: x\nid: 3\ndata: a\ndata:b\n\n", [("x", "a\nb", "3")]),
    ("comments and unknown fields", ": c\nretry: 5\nfoo\ndata: a\n\n", [("message", "a", "")]),
    ("no data, no message", "event: x\n\ndata: a\n\n", [("message", "a", "")]),
    ("the id stays", "id: 1\ndata: a\n\ndata: b\n\n", [("message", "a", "1"), ("message", "b", "1")]),
    ("an id with NUL is none", "id: \0\ndata: a\n\n", [("message", "a", "")]),
    ("carriage returns", "data: a\r\n\r\n", [("message", "a", "")]),
    ("an unfinished one is none", "data: a\n", []),
    ("only one space goes", "data:  a\n\n", [("message", " a", "")]),
]


@pytest.mark.parametrize(("text", "wanted"), [case[1:] for case in PARSED], ids=[case[0] for case in PARSED])
def test_event_streams(text: str, wanted: list[tuple[str, str, str]]) -> None:
    parser = sse.Parser()
    found = [message for line in text.encode().splitlines(keepends=True) if (message := parser.feed(line))]
    assert [(one.event, one.data, one.id) for one in found] == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("plain ä│", "plain ä│"),
        ("\x1b]0;t\x07", "\\x1b]0;t\\x07"),
        ("a\tb", "a\tb"),
        ("a\nb\r", "a\\x0ab\\x0d"),
        ("\x9b31m", "\\x9b31m"),
        ("\u202etxt\u2066", "\\u202etxt\\u2066"),
    ],
)
def test_safe(text: str, wanted: str) -> None:
    assert safe(text) == wanted
