"""`muster execution replay`: the story, and whether it is the whole truth."""

from __future__ import annotations

import json
from typing import Any

import pytest
from speaking_server import Server

from app.cli.main import main

ONE = "/api/v1/workflow-executions/01X"
EVENTS = f"{ONE}/events"
REPLAYS = [
    ({"is_same": True}, 0, "replayed 2 events: the same as what is stored, completed"),
    (
        {"is_same": False, "differences": [{"place": "task x", "column": "result"}]},
        1,
        "replayed 2 events: NOT what is stored (completed), which differs in\n  task x result",
    ),
]


@pytest.mark.parametrize(("said", "code", "verdict"), REPLAYS, ids=["same", "other"])
def test_replay_tells_the_story_and_whether_it_is_the_whole_truth(
    server: Server, capsys: pytest.CaptureFixture[str], said: dict[str, Any], code: int, verdict: str
) -> None:
    server.says("GET", f"{ONE}/replay", 200, {"execution": "01X", "status": "completed", "events": 2, **said})
    log = [{"what": "task", "task": "x", "status": "running"}]
    server.says("GET", EVENTS, 200, {"items": [{"seq": 1, "at": "then", "kind": "submitted", "log": log}]})
    assert main(["execution", "replay", "01X"]) == code
    assert capsys.readouterr().out == f"1 then submitted  x: running\n{verdict}\n"
    assert main(["execution", "replay", "01X", "--json"]) == code
    found = json.loads(capsys.readouterr().out)
    assert (found["is_same"], len(found["items"])) == (said["is_same"], 1)
