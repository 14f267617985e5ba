"""Following an execution: what is printed live and at the end, over a stream that breaks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from speaking_server import EVENTS, EXECUTIONS, GOOD, ONE, Request, Server, event, started

from app.cli import sse
from app.cli.client import Client
from app.cli.main import main
from app.errors import Unavailable


def test_run_follows_and_sums_up(server: Server, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text(GOOD)
    started(server, output={"answer": 42}, degraded=True)
    stream = [
        ": hello\n\n",
        event("event", {"seq": 1, "log": [{"what": "task", "task": "x", "status": "running"}]}, 1),
        event("output", {"job": "j", "node": "web-1", "stream": "stdout", "offset": 0, "text": "one\ntw"}),
        event(
            "output",
            {"job": "j", "node": "web-1", "stream": "stdout", "offset": 6, "text": "o\r\n10%\r20%\n"},
        ),
        event(
            "output",
            {"job": "k", "node": "a-much-longer", "stream": "stderr", "offset": 0, "text": "\x1b[2J\u202ex"},
        ),
        event(
            "output",
            {"job": "j", "task": "x", "node": "web-1", "stream": "stdout", "offset": 20, "text": "rest"},
        ),
        event("event", {"seq": 2, "log": [{"what": "task", "task": "x", "status": "succeeded"}]}, 2),
        event("end", {"status": "completed", "degraded": True}),
    ]
    server.routes["GET", EVENTS] = lambda request: request.stream(stream)
    assert main(["run", "good.yaml", "-p", "n=5", "-p", 'l=["a"]']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:8] == [
        "       · x: running",
        "web-1  │ one",
        "web-1  │ two",
        "web-1  │ 10%",
        "web-1  │ 20%",
        "web-1  │ rest",
        "       · x: succeeded",
        "a-much-longer │ \\x1b[2J\\u202ex",
    ]
    assert lines[-4:] == [
        "node   task  status     exit code  duration",
        "web-1  x     succeeded  0          1.50s",
        'output: {"answer": 42}',
        "execution=01X status=completed degraded=true",
    ]
    _, headers, body = server.requests("POST", EXECUTIONS)[0]
    assert json.loads(body) == {"definition": GOOD, "parameters": {"n": "5", "l": ["a"]}}
    assert len(headers["Idempotency-Key"]) == 26
    assert server.requests("GET", EVENTS)[0][0] == "output=1"


def test_the_sum_tells_units_apart_and_what_was_wrong(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    started(server, status="failed")
    base = {"task": "l", "node": "local", "exit_code": None, "duration": 0.5}
    exited = {"type": "exit", "message": "exit code 3"}
    rows = [
        {**base, "unit": 0, "status": "failed", "exit_code": 3, "error": exited},
        {**base, "unit": 1, "status": "succeeded", "exit_code": 0},
        {
            **base,
            "unit": 0,
            "node": "web-1",
            "status": "failed",
            "error": {"type": "no_shell", "message": "x" * 300},
        },
    ]
    server.says("GET", f"{ONE}/tasks", 200, {"items": rows})
    server.routes["GET", EVENTS] = lambda request: request.stream([event("end", {"status": "failed"})])
    assert main(["execution", "follow", "01X"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines if line.startswith(("node", "local", "web"))] == [
        ["node", "task", "status", "exit", "code", "duration", "error"],
        ["local", "l[0]", "failed", "3", "0.50s", "-"],
        ["local", "l[1]", "succeeded", "0", "0.50s", "-"],
        ["web-1", "l", "failed", "-", "0.50s", "no_shell:", f"{'x' * 189}…"],
    ]


def test_a_broken_stream_goes_on_where_it_was(
    server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started(server, status="failed", error_message="x failed")
    chunk = {"job": "j", "node": "web-1", "stream": "stdout", "offset": 0, "text": "once\n"}
    server.in_turn(
        "GET",
        EVENTS,
        lambda request: request.stream(
            [event("event", {"seq": 7, "log": []}, 7), event("output", chunk), "event: out"]
        ),
        Request.hang_up,
        lambda request: request.answer(503, {"detail": "starting"}),
        lambda request: request.stream(
            [event("output", chunk), event("output", {**chunk, "offset": 5, "text": "more\n"})]
        ),
        lambda request: request.stream([event("end", {"status": "failed"})]),
    )
    assert main(["execution", "follow", "01X"]) == 1
    out = capsys.readouterr().out
    assert out.count("once") == 1
    assert out.count("more") == 1
    assert out.endswith("error: x failed\nexecution=01X status=failed\n")
    resumed = [headers.get("Last-Event-ID") for _, headers, _ in server.requests("GET", EVENTS)]
    assert resumed == [None, "7", "7", "7", "7"]


def test_the_timeout_of_following(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.routes["GET", EVENTS] = lambda request: request.stream([": here\n\n"], then_hang=True)
    assert main(["execution", "follow", "01X", "--timeout", "0.3"]) == 124
    err = capsys.readouterr().err
    assert "was not over within 0.3 s; it goes on" in err
    assert "muster execution cancel 01X" in err


def test_ctrl_c_stops_following_only(
    server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    server.routes["GET", EVENTS] = lambda request: request.stream(
        [event("event", {"log": []})], then_hang=True
    )
    monkeypatch.setattr("app.cli.follow.Printer.take", interrupted)
    assert main(["execution", "follow", "01X"]) == 130
    assert "muster execution cancel 01X" in capsys.readouterr().err
    assert {method for method, *_ in server.seen} == {"GET"}


def test_refused_streams_are_not_tried_again(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["execution", "follow", "01X"]) == 4
    assert len(server.seen) == 1


def test_a_server_that_stays_away(server: Server) -> None:
    server.routes["GET", EVENTS] = Request.hang_up
    now = [0.0]
    limits = sse.Limits(
        clock=lambda: now[0], pause=lambda seconds: now.__setitem__(0, now[0] + seconds), patience=5.0
    )
    with pytest.raises(Unavailable, match="has not answered for 5 s"):
        list(sse.follow(Client(server.url), EVENTS, {}, "", limits))
    assert len(server.seen) >= 3
