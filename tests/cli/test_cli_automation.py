"""The commands of the automation where they are used wrongly; `muster notification list`; hints that name a way out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from speaking_server import Server

from app.cli.main import main

USAGE = yaml.safe_load((Path(__file__).parent / "cases" / "automation_usage.yaml").read_text("utf-8"))
NOTIFICATIONS = "/api/v1/automation/notifications"
ASKED = {
    "id": "01K0000000000000000000000A",
    "kind": "approval.asked",
    "subject": "01K0000000000000000000000B",
    "data": {"approval": "01K0000000000000000000000B", "workflow": "script.backup"},
    "status": "failed",
    "ways": ["webhook"],
    "attempts": 8,
    "error": "webhook: 500\x1b[2J",
    "created_at": "2026-11-21T12:18:11.932+00:00",
    "due_at": "2026-11-21T12:18:11.932+00:00",
    "sent_at": None,
}
ALARM = {
    **ASKED,
    "kind": "schedule.alarm",
    "subject": "01K0000000000000000000000C",
    "data": {"name": "nightly", "skips": 3},
    "status": "sent",
    "error": "",
    "sent_at": "2026-11-21T12:18:12.000+00:00",
}
EXECUTION = "01K0000000000000000000000D"
MANY = {**ASKED, "subject": EXECUTION, "data": {"execution": EXECUTION, "more": 5}}


@pytest.mark.parametrize("case", USAGE, ids=lambda case: case["name"])
def test_usage(server: Server, capsys: pytest.CaptureFixture[str], case: dict[str, Any]) -> None:
    if "file" in case:
        Path("FILE").write_bytes(case["file"].encode("latin-1"))
    assert main(case["args"]) == 2
    told = capsys.readouterr()
    assert case["told"] in told.err
    assert told.out == ""
    assert server.seen == []


def test_what_was_told_is_listed(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    first, last = {"items": [ASKED, ALARM], "next_cursor": "c"}, {"items": [MANY], "next_cursor": None}
    server.in_turn(
        "GET", NOTIFICATIONS, lambda one: one.answer(200, first), lambda one: one.answer(200, last)
    )
    assert main(["notification", "list", "--status", "failed", "--limit", "3"]) == 0
    head, *rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert head == ["id", "kind", "about", "status", "attempts", "created_at", "sent_at", "error"]
    assert [row[1:5] for row in rows] == [
        ["approval.asked", "01K0000000000000000000000B", "failed", "8"],
        ["schedule.alarm", "nightly", "sent", "8"],
        ["approval.asked", "5", "more", "of"],
    ]
    assert rows[0][6:] == ["-", "webhook:", "500\\x1b[2J"]
    asked = [query for query, _, _ in server.requests("GET", NOTIFICATIONS)]
    assert asked == ["status=failed&limit=3", "status=failed&limit=1&cursor=c"]


def test_what_was_told_as_json(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.says("GET", NOTIFICATIONS, 200, {"items": [ASKED], "next_cursor": None})
    assert main(["notification", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"items": [ASKED], "next_cursor": None}


def test_who_may_not_see_them(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.says("GET", NOTIFICATIONS, 403, {"code": "not-allowed", "detail": "this is for admins"})
    assert main(["notification", "list"]) == 3
    assert "this is for admins" in capsys.readouterr().err


def test_without_a_token_the_hint_is_for_a_terminal(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    problem = {"detail": "this needs a token", "hint": "send `Authorization: Bearer <token>`"}
    server.says("GET", NOTIFICATIONS, 401, problem)
    assert main(["notification", "list"]) == 3
    first, second = capsys.readouterr().err.splitlines()
    assert first == "error: this needs a token"
    assert second.startswith("hint: set MUSTER_TOKEN to a valid token")


def test_an_error_is_told_once(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """The server's message names the pointer itself where there is only one error."""
    one = {"pointer": "/host_ids", "detail": "Give a list of 1 to 10000 names."}
    problem = {"detail": "/host_ids: Give a list of 1 to 10000 names.", "errors": [one]}
    server.says("POST", "/api/v1/automation/scripts/deploy/execute", 422, problem)
    assert main(["script", "run", "deploy", "--on", ","]) == 2
    assert capsys.readouterr().err == "error: /host_ids: Give a list of 1 to 10000 names.\n"
    more = {"pointer": "/version", "detail": "Must be a number."}
    problem = {"detail": f"{problem['detail']} (and 1 more)", "errors": [one, more]}
    server.says("POST", "/api/v1/automation/scripts/deploy/execute", 422, problem)
    assert main(["script", "run", "deploy", "--on", ","]) == 2
    assert capsys.readouterr().err.splitlines()[1:] == [
        "  /host_ids: Give a list of 1 to 10000 names.",
        "  /version: Must be a number.",
    ]


def test_a_token_does_not_go_where_a_directory_says(
    server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MUSTER_URL")
    monkeypatch.delenv("MUSTER_TOKEN")
    Path(".muster").mkdir()
    client = Path(".muster/client.env")
    client.touch(0o600)
    client.write_text(f"MUSTER_URL={server.url}\nMUSTER_TOKEN=mst_here\n")
    assert main(["approval", "list", "--token", "mst_other"]) == 2
    assert server.seen == []
    assert f"add --url {server.url}" in capsys.readouterr().err
    server.says("GET", "/api/v1/automation/approvals", 200, {"items": [], "next_cursor": None})
    assert main(["approval", "list", "--token", "mst_other", "--url", server.url]) == 0
    assert server.seen[-1][3]["Authorization"] == "Bearer mst_other"
