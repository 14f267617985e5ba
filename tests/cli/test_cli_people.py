"""`muster user` where it is used wrongly; `muster audit verify` and `export`, page by page."""

from __future__ import annotations

import json
from typing import Any

import pytest
from speaking_server import Server

from app.cli.main import main

HASH = "0123456789abcdef" * 4
PAGE = {
    "ok": True,
    "entries": 3,
    "sealed": 5,
    "unsealed": 0,
    "first_wrong": None,
    "head": {"seq": 5, "hash": HASH},
    "anchor": {"seq": 0, "hash": ""},
    "next_cursor": None,
}
PATH = "/api/v1/audit/verify"


@pytest.mark.parametrize(
    "arguments",
    [
        ["add", "ann"],
        ["set", "ann"],
        ["add", "ann", "--role", "root"],
        ["add", "ann", "--role", "viewer", "--grant", "viewer"],
        ["add", "ann", "--grant", ""],
        ["add", "ann", "--grant", "root@web"],
        ["add", "ann", "--grant", "viewer@"],
        ["add", "ann", "--grant", "viewer@web,"],
        ["add", "ann", "--grant", "viewer:"],
        ["add", "ann", "--grant", "viewer:site"],
        ["add", "ann", "--grant", "viewer:site=a,site=b"],
        ["add", "ann", "--grant", "viewer:=a"],
    ],
)
def test_usage(server: Server, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["user", *arguments]) == 2
    assert server.seen == []
    assert capsys.readouterr().err


def test_verify_goes_through_all_pages(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    first = {**PAGE, "next_cursor": f"3:{HASH}"}
    last = {**PAGE, "entries": 2, "unsealed": 1, "anchor": {"seq": 9, "hash": HASH}}
    server.in_turn("GET", PATH, lambda one: one.answer(200, first), lambda one: one.answer(200, last))
    assert main(["audit", "verify", "--head", f"5:{HASH}"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "ok: 5 of 5 sealed entries verified",
        "not sealed yet: 1",
        f"pruned up to: 9:{HASH}",
        f"head: 5:{HASH}",
    ]
    asked = [query for query, _, _ in server.requests("GET", PATH)]
    assert asked == [f"head=5%3A{HASH}", f"head=5%3A{HASH}&cursor=3%3A{HASH}"]


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        (
            {"seq": 4, "id": 7, "what": "it is not as it was sealed"},
            "entry 4 (row 7): it is not as it was sealed",
        ),
        ({"seq": 4, "id": None, "what": "it is missing"}, "entry 4: it is missing"),
        ({"seq": None, "id": 7, "what": "x"}, "an entry (row 7): x"),
    ],
)
def test_verify_exits_with_1_where_something_is_wrong(
    server: Server, wrong: Any, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server.says("GET", PATH, 200, {**PAGE, "ok": False, "first_wrong": wrong})
    assert main(["audit", "verify"]) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[:2] == ["NOT OK: 3 of 5 sealed entries verified", f"first wrong: {line}"]
    assert main(["audit", "verify", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["first_wrong"] == wrong


@pytest.mark.parametrize(
    "head", ["5", "x:y", f"5:{HASH[:-1]}", f"5:{HASH}0", f"5:{HASH.upper()}", "", f"5:{HASH}\n"]
)
def test_a_head_of_another_form_is_not_sent(server: Server, head: str) -> None:
    assert main(["audit", "verify", "--head", head]) == 2
    assert server.seen == []


def test_export_prints_a_line_for_each_entry(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"seq": number, "hash": HASH, "person": "ada\u001b"} for number in (1, 2, 3)]
    first, last = {"items": rows[:2], "next_cursor": "c"}, {"items": rows[2:], "next_cursor": None}
    path = "/api/v1/audit/sealed"
    server.in_turn("GET", path, lambda one: one.answer(200, first), lambda one: one.answer(200, last))
    assert main(["audit", "export", "--after", "0"]) == 0
    out = capsys.readouterr().out
    assert [json.loads(line) for line in out.splitlines()] == rows
    assert "\u001b" not in out
    assert [query for query, _, _ in server.requests("GET", path)] == [
        "after=0&limit=200",
        "after=0&limit=200&cursor=c",
    ]
