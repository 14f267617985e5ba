"""`muster approval` against a server that speaks the contract: what a person sees before the word, and the word."""

from __future__ import annotations

import json
from typing import Any

import pytest
from speaking_server import Server

from app.cli.main import main

ID = "01K0000000000000000000000A"
PATH = f"/api/v1/automation/approvals/{ID}"
WHOLE: dict[str, Any] = {
    "id": ID,
    "execution": "01K0000000000000000000000B",
    "workflow": "script.backup",
    "task": "",
    "unit": 0,
    "kind": "approval",
    "prompt": "Run the script backup, version 3, on 2 nodes?",
    "approvers": [],
    "quorum": 1,
    "digest": "ab" * 32,
    "requester": "ada",
    "status": "pending",
    "expires_at": None,
    "decisions": [],
    "about": {
        "is_genuine": True,
        "script": {"name": "backup", "version": 3},
        "parameters": {"target": "/srv", "token": "secretref:parameter:token"},
        "runs": [
            {
                "task": "script",
                "nodes": ["web-1", "web-2"],
                "shell": "bash",
                "script": "cd" * 32,
                "body": 'tar c "$target"\n\x1b[2Jreboot\n',
                "command": None,
                "timeout": 300.0,
                "secrets": {"parameter:token": {"secret": "db", "version": 2}},
            }
        ],
    },
}
SHOWN = f"""\
id         {ID}
status     pending
kind       approval
prompt     Run the script backup, version 3, on 2 nodes?
execution  01K0000000000000000000000B
workflow   script.backup
requester  ada
quorum     1
digest     {"ab" * 32}

what would run
script   backup version 3
nodes    web-1,web-2
shell    bash
timeout  300 s
values   target=/srv,token=secretref:parameter:token
secrets  db version 2
sha256   {"cd" * 32}

    tar c "$target"
    \\x1b[2Jreboot
"""


def test_what_would_run_where_is_shown(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """And nothing of the script reaches the terminal but as text."""
    server.says("GET", PATH, 200, WHOLE)
    assert main(["approval", "show", ID]) == 0
    assert capsys.readouterr().out == SHOWN


def test_what_was_said_is_shown(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    said = {"person": "bob", "decision": "reject", "reason": "not\ntoday", "at": "2026-01-02T03:04:05+00:00"}
    server.says("GET", PATH, 200, {**WHOLE, "status": "rejected", "decisions": [said]})
    assert main(["approval", "show", ID]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "2026-01-02T03:04:05+00:00 bob reject: not\\x0atoday"


def test_a_text_that_was_changed_is_said_to_be(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.says("GET", PATH, 200, {**WHOLE, "about": {"is_genuine": False}})
    assert main(["approval", "show", ID]) == 0
    out = capsys.readouterr().out
    assert "was changed in the database" in out
    assert "what would run" not in out


def test_the_question_of_a_task_shows_its_values(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    about = {"is_genuine": True, "parameters": {"what": "shop"}}
    server.says("GET", PATH, 200, {**WHOLE, "task": "go", "about": about})
    assert main(["approval", "show", ID]) == 0
    assert "parameters  what=shop" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("verb", ["approve", "reject"])
def test_a_word_is_said_with_its_reason(
    server: Server, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    server.says("POST", f"{PATH}/{verb}", 200, {**WHOLE, "status": f"{verb}d"})
    assert main(["approval", verb, ID, "--reason", "seen"]) == 0
    assert json.loads(server.seen[-1][4]) == {"reason": "seen"}
    assert capsys.readouterr().out == f"approval={ID} status={verb}d\n"


def test_a_refusal_says_what_to_do(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    problem = {
        "status": 409,
        "code": "subject-changed",
        "detail": f"approval {ID} cannot be given: version 3 of backup was asked for, 4 is the newest now",
        "hint": "reject it",
    }
    server.says("POST", f"{PATH}/approve", 409, problem)
    assert main(["approval", "approve", ID]) == 5
    err = capsys.readouterr().err
    assert "4 is the newest now" in err
    assert "reject it" in err


def test_the_inbox_is_what_is_pending(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.says("GET", "/api/v1/automation/approvals", 200, {"items": [WHOLE], "next_cursor": None})
    assert main(["approval", "list"]) == 0
    assert "status=pending" in server.seen[-1][2]
    (head, row) = capsys.readouterr().out.splitlines()
    assert head.split() == ["id", "kind", "workflow", "task", "requester", "status", "expires_at", "prompt"]
    assert row.split()[:4] == [ID, "approval", "script.backup", "-"]
