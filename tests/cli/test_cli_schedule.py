"""`muster schedule` against a server that speaks the contract: what it sends, and what it prints."""

from __future__ import annotations

import json
from typing import Any

import pytest
from speaking_server import Server

from app.cli.main import main

PATH = "/api/v1/automation/schedules"
ONE = {
    "id": "01J0000000000000000000000A",
    "name": "nightly",
    "workflow": "demo.backup",
    "script": None,
    "script_name": None,
    "version": None,
    "cron": "0 3 * * *",
    "zone": "Europe/Berlin",
    "enabled": True,
    "next_run": "2026-11-22T02:00:00.000+00:00",
    "last_run": None,
    "last_status": "skipped",
    "last_reason": "overlap",
    "parameters": {},
}
WHEN = ["--cron", "0 3 * * *", "--zone", "Europe/Berlin"]


def sent(server: Server) -> Any:
    return json.loads(server.seen[-1][4])


@pytest.mark.parametrize(
    ("words", "body"),
    [
        (
            ["--workflow", "demo.backup", "-p", "target=/srv", "-p", 'list=["a"]', "--secret", "password=db/pw"],
            {
                "workflow": "demo.backup",
                "parameters": {"target": "/srv", "list": ["a"], "password": {"secret": "db/pw"}},
            },
        ),
        (
            ["--script", "restart", "--on", "web-1,web-2", "--on", "web-3", "-p", 'service=["a"]', "--version", "3"],
            {
                "script": "restart",
                "host_ids": ["web-1", "web-2", "web-3"],
                "parameters": {"service": '["a"]'},
                "version": 3,
            },
        ),
        (
            ["--script", "restart", "--label", "role=web", "--batch", "1,10%", "--max-failures", "2", "--paused"],
            {
                "script": "restart",
                "labels": {"role": "web"},
                "batch": [1, "10%"],
                "max_failures": 2,
                "parameters": {},
                "enabled": False,
            },
        ),
        (
            ["--workflow", "demo.a", "--misfire=all", "--most=5", "--grace=60", "--overlap=queue", "--jitter=9"],
            {
                "workflow": "demo.a",
                "parameters": {},
                "misfire": "all",
                "misfire_most": 5,
                "misfire_grace": 60.0,
                "overlap": "queue",
                "jitter": 9.0,
            },
        ),
    ],
    ids=["workflow", "hosts", "labels", "policies"],
)  # fmt: skip
def test_what_is_said_is_what_is_sent(
    server: Server, words: list[str], body: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    server.says("POST", PATH, 201, ONE)
    assert main(["schedule", "add", "nightly", *WHEN, *words]) == 0
    told = {"name": "nightly", "cron": "0 3 * * *", "zone": "Europe/Berlin", "description": ""}
    assert sent(server) == {**told, **body}
    assert capsys.readouterr().out == "schedule=nightly next=2026-11-22T02:00:00Z\n"


def test_it_is_written_anew_or_made_where_there_is_none(server: Server) -> None:
    words = ["schedule", "add", "nightly", *WHEN, "--workflow", "demo.backup", "--replace"]
    server.says("PUT", f"{PATH}/nightly", 200, ONE)
    assert main(words) == 0
    assert [one[0] for one in server.seen] == ["PUT"]
    server.says("PUT", f"{PATH}/nightly", 404, {"code": "unknown-schedule", "detail": "there is none"})
    server.says("POST", PATH, 201, ONE)
    assert main(words) == 0
    assert [one[0] for one in server.seen] == ["PUT", "PUT", "POST"]
    server.says("PUT", f"{PATH}/nightly", 403, {"code": "not-owner", "detail": "it is ada's"})
    assert main(words) == 3


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--workflow", "a.b", "--script", "c"],
        ["--workflow", "a.b", "-p", "x"],
        ["--script", "c", "--secret", "=x"],
    ],
    ids=str,
)
def test_what_makes_no_sense_is_not_sent(
    server: Server, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["schedule", "add", "nightly", *WHEN, *words]) == 2
    assert server.seen == []
    assert "hint: " in capsys.readouterr().err


def test_a_list_says_what_runs_and_how_the_last_time_went(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = {**ONE, "name": "gone", "workflow": None, "script": ONE["id"], "enabled": False, "next_run": None}
    script = {**gone, "name": "restarts", "script_name": "restart", "version": 2, "last_reason": ""}
    server.says("GET", PATH, 200, {"items": [gone, ONE, script], "next_cursor": None})
    assert main(["schedule", "list"]) == 0
    rows = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    told = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert told == [
        ["name", "runs", "cron", "zone", "state", "next_run", "last_run", "last"],
        [
            "gone",
            f"{ONE['id']} (deleted)",
            "0 3 * * *",
            "Europe/Berlin",
            "paused",
            "-",
            "-",
            "skipped: overlap",
        ],
        [
            "nightly",
            "demo.backup",
            "0 3 * * *",
            "Europe/Berlin",
            "on",
            "2026-11-22T02:00:00Z",
            "-",
            "skipped: overlap",
        ],
        ["restarts", "restart@2", "0 3 * * *", "Europe/Berlin", "paused", "-", "-", "skipped"],
    ]


def test_pause_and_resume_take_many(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        server.says("POST", f"{PATH}/{name}/disable", 200, {"name": name, "enabled": False})
        server.says("POST", f"{PATH}/{name}/enable", 200, {**ONE, "name": name})
    assert main(["schedule", "pause", "a", "b"]) == 0
    assert main(["schedule", "resume", "a"]) == 0
    assert capsys.readouterr().out == (
        "schedule=a paused\nschedule=b paused\nschedule=a next=2026-11-22T02:00:00Z\n"
    )


def test_history_and_next(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    tick = {
        "fire_time": "2026-11-22T02:00:00.000+00:00",
        "status": "missed",
        "reason": "late",
        "execution": None,
    }
    server.says("GET", f"{PATH}/nightly/history", 200, {"items": [tick], "next_cursor": None})
    assert main(["schedule", "history", "nightly"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["2026-11-22T02:00:00Z", "missed", "late", "-"]
    times = {"items": [{"at": "2026-11-22T02:00:00.000+00:00", "local": "2026-11-22T03:00:00+01:00"}]}
    server.says("POST", f"{PATH}/check", 200, times)
    assert main(["schedule", "next", *WHEN, "--count", "1"]) == 0
    assert sent(server) == {"cron": "0 3 * * *", "zone": "Europe/Berlin", "count": 1}
    assert capsys.readouterr().out.splitlines()[1].split() == [
        "2026-11-22T03:00:00+01:00",
        "2026-11-22T02:00:00Z",
    ]
    assert main(["schedule", "next"]) == 2
    assert main(["schedule", "next", "nightly", "--cron", "* * * * *"]) == 2
    server.says("DELETE", f"{PATH}/nightly", 204, None)
    assert main(["schedule", "delete", "nightly"]) == 0
    assert capsys.readouterr().out == "deleted: nightly\n"
