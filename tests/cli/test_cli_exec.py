"""`muster exec` against a server that says what each test tells it to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from speaking_server import Server, event

from app.cli import fold
from app.cli.main import main

ID = "01J0000000000000000000000A"
ONE = "/api/v1/nodes/web-1/execute"
BACK = f"{ONE}/{ID}"
MANY = "/api/v1/nodes/execute"
EXECUTION = f"/api/v1/workflow-executions/{ID}"
USAGE: list[dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parent / "cases" / "exec_usage.yaml").read_text("utf-8")
)


@pytest.mark.parametrize("case", USAGE, ids=lambda case: case["name"])
def test_usage(server: Server, capsys: pytest.CaptureFixture[str], case: dict[str, Any]) -> None:
    if "file" in case:
        Path("FILE").write_bytes(case["file"].encode("latin-1") * case.get("times", 1))
    assert main(["exec", *case["args"]]) == 2
    assert case["told"] in capsys.readouterr().err
    assert server.seen == []


def result(status: str = "succeeded", code: int | None = 0, **more: Any) -> dict[str, Any]:
    return {"node_id": "web-1", "execution": ID, "status": status, "exit_code": code, "error": None, **more}


def one_node(server: Server, *events: str, path: str = ONE) -> None:
    """Answers with a stream of one command."""

    def answer(request: Any) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "text/event-stream")
        request.send_header("Location", EXECUTION)
        request.end_headers()
        request.wfile.write("".join(events).encode())
        request.close_connection = True

    server.routes["GET" if path == BACK else "POST", path] = answer


def body_of(server: Server, path: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(server.requests("POST", path)[0][2])
    return found


@pytest.mark.parametrize(
    ("args", "wanted"),
    [
        (["--", "df", "-h", "--", "--json"], {"command": ["df", "-h", "--", "--json"]}),
        (["--shell", "bash", "--", "echo", "$HOME"], {"command": "echo $HOME", "language": "bash"}),
        (["--script", "FILE"], {"script": "#!/usr/bin/env python3\nprint()\n", "language": "python"}),
        (
            ["--script", "FILE", "--shell", "sh"],
            {"script": "#!/usr/bin/env python3\nprint()\n", "language": "sh"},
        ),
        (
            ["--timeout", "5", "--cwd", "/tmp", "--stdin", "FILE", "--", "cat"],
            {
                "command": ["cat"],
                "timeout": 5,
                "cwd": "/tmp",
                "stdin": "#!/usr/bin/env python3\nprint()\n",
            },
        ),
    ],
)
def test_what_is_sent(server: Server, args: list[str], wanted: dict[str, Any]) -> None:
    Path("FILE").write_text("#!/usr/bin/env python3\nprint()\n")
    one_node(server, event("result", result()), event("end", {"status": "completed"}))
    assert main(["exec", "web-1", *args]) == 0
    assert body_of(server, ONE) == {**wanted, "stream_output": True}


@pytest.mark.parametrize(
    ("first", "shell"),
    [
        ("echo", "sh"),
        ("#!/bin/bash", "bash"),
        ("#! /bin/dash -e", "dash"),
        ("#!/usr/bin/env -S zsh -f", "zsh"),
        ("#!/usr/local/bin/python3 -u", "python"),
        ("#!/usr/bin/env pwsh", "powershell"),
        ("#!/bin/mksh", "ksh"),
    ],
)
def test_the_first_line_of_a_script_names_its_shell(server: Server, first: str, shell: str) -> None:
    Path("FILE").write_text(f"{first}\n")
    one_node(server, event("result", result()), event("end", {}))
    main(["exec", "web-1", "--script", "FILE"])
    assert body_of(server, ONE)["language"] == shell


def test_one_node_passes_its_two_outputs_on(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    one_node(
        server,
        event("started", {"seq": 1}, 1),
        event("stdout", {"text": "a\r\nb"}, 2),
        event("stderr", {"text": "\x1b[31mred\n"}, 3),
        event("stdout", {"text": "c\n"}, 4),
        event("result", result()),
        event("end", {"status": "completed"}),
    )
    assert main(["exec", "web-1", "--", "x"]) == 0
    assert capsys.readouterr() == ("a\nbc\n", "\\x1b[31mred\n")


@pytest.mark.parametrize(
    ("status", "code", "error", "wanted", "told"),
    [
        ("failed", 7, {"type": "exit", "message": "exit code 7"}, 1, "web-1: failed, exit code 7"),
        ("timed_out", None, {"type": "timeout", "message": "too long"}, 124, "web-1: timed_out, too long"),
        ("cancelled", 143, None, 1, "web-1: cancelled, exit code 143"),
        ("failed", 127, {"type": "not_found", "message": "no"}, 1, "for a line of a shell say --shell sh"),
        ("skipped", None, None, 1, "web-1: skipped"),
    ],
)
def test_how_one_node_ends(
    server: Server,
    capsys: pytest.CaptureFixture[str],
    status: str,
    code: int | None,
    error: Any,
    wanted: int,
    told: str,
) -> None:
    one_node(server, event("result", result(status, code, error=error)), event("end", {"status": "failed"}))
    assert main(["exec", "web-1", "--", "x"]) == wanted
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("offset", "cut", "told"),
    [(2, False, ""), (2, True, "output cut"), (100, False, "output cut"), (1, False, "")],
)
def test_output_that_is_not_all_there_is_said_to_be_cut_though_nobody_looks_on(
    server: Server, capsys: pytest.CaptureFixture[str], offset: int, cut: bool, told: str
) -> None:
    """`muster exec … > file` of what is too long, or `| less` of what comes too fast, looks whole otherwise."""
    one_node(
        server,
        event("stdout", {"offset": 0, "text": "a\n"}),
        event("stdout", {"offset": offset, "text": "b\n"}),
        event("result", result(truncated=cut)),
        event("end", {"status": "completed"}),
    )
    assert main(["exec", "web-1", "--", "x"]) == 0
    found = capsys.readouterr()
    assert found.out == "a\nb\n"
    assert bool(found.err) == bool(told)
    assert told in found.err


def test_json_of_one_node_is_its_result(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    one_node(
        server, event("stdout", {"text": "a\n"}), event("result", {**result(), "seq": 3}), event("end", {})
    )
    assert main(["exec", "--json", "web-1", "--", "x"]) == 0
    assert json.loads(capsys.readouterr().out) == result()


def test_a_stream_that_breaks_goes_on_behind_its_last_event(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    one_node(server, event("started", {}, 1), event("stdout", {"text": "one\n"}, 2))
    one_node(
        server, event("stdout", {"text": "two\n"}, 3), event("result", result()), event("end", {}), path=BACK
    )
    assert main(["exec", "web-1", "--", "x"]) == 0
    assert capsys.readouterr().out == "one\ntwo\n"
    assert [headers["Last-Event-ID"] for _, headers, _ in server.requests("GET", BACK)] == ["2"]
    assert len(server.requests("POST", ONE)) == 1


def test_a_lost_answer_is_asked_for_again_with_the_same_key(server: Server) -> None:
    one_node(server, event("result", result()), event("end", {}))
    good = server.routes["POST", ONE]
    server.in_turn("POST", ONE, lambda request: request.hang_up(), good)
    assert main(["exec", "web-1", "--", "x"]) == 0
    keys = [headers["Idempotency-Key"] for _, headers, _ in server.requests("POST", ONE)]
    assert len(keys) == 2
    assert len(set(keys)) == 1


@pytest.mark.parametrize(
    ("status", "wanted"), [(401, 3), (403, 3), (404, 4), (409, 5), (413, 2), (422, 2), (503, 1)]
)
def test_a_refusal(server: Server, capsys: pytest.CaptureFixture[str], status: int, wanted: int) -> None:
    server.says("POST", ONE, status, {"detail": "no \x1b", "code": "not-allowed", "hint": "ask"})
    assert main(["exec", "web-1", "--", "x"]) == wanted
    assert capsys.readouterr().err.splitlines()[0] == "error: no \\x1b"


def unit(
    node: str, status: str = "succeeded", code: int | None = 0, out: str = "", **more: Any
) -> dict[str, Any]:
    job = f"{ID}.run.{node}.1"
    return {"node": node, "status": status, "exit_code": code, "result": {"stdout": out}, "job": job, **more}


def many_nodes(server: Server, status: str, *units: dict[str, Any]) -> None:
    """Answers as an execution of these units."""
    server.says("POST", MANY, 201, {"id": ID})
    frames = [
        event(
            "output", {"job": one["job"], "node": one["node"], "stream": "stdout", "offset": 0, "text": text}
        )
        for one in units
        if (text := one["result"]["stdout"])
    ]
    frames.append(event("end", {"status": status, "degraded": False}))
    server.routes["GET", f"{EXECUTION}/events"] = lambda request: request.stream(frames)
    server.says("GET", f"{EXECUTION}/tasks", 200, {"items": list(units)})
    digests = [{"job": one["job"], "stream": "stdout", "sha256": one["result"]["stdout"]} for one in units]
    server.says("GET", f"{EXECUTION}/output", 200, {"items": digests, "next_cursor": None})


def test_many_nodes_live_in_a_table_and_folded(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    units = [unit(f"web-{number}", out="up 3 days\n") for number in range(1, 5)]
    slow = unit("db-1", "timed_out", None, error={"type": "timeout", "message": "too long"})
    many_nodes(server, "failed", *units, unit("db-2", out="up 1 day\n"), slow)
    args = ["exec", "--diff", "--batch", "1,50%", "--max-failures", "0", *[one["node"] for one in units]]
    assert main([*args, "db-1", "db-2", "--", "uptime"]) == 124
    out = capsys.readouterr().out
    assert "web-1  │ up 3 days" in out
    assert "db-1   timed_out  -" in out
    assert "4 the same, 2 differ" in out
    assert "  1  exit code 0: db-2" in out
    assert "-up 3 days\n+up 1 day\n" in out
    body = body_of(server, MANY)
    assert (body["batch"], body["max_failures"], body["allow_unknown"]) == ([1, "50%"], 0, True)
    assert [query for query, _, _ in server.requests("GET", f"{EXECUTION}/output")] == ["text=0&limit=200"]


def test_without_folding_nothing_is_compared(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    many_nodes(server, "completed", unit("web-1"), unit("web-2"))
    assert main(["exec", "--no-fold", "web-1", "web-2", "--", "true"]) == 0
    assert "the same" not in capsys.readouterr().out
    assert server.requests("GET", f"{EXECUTION}/output") == []


@pytest.mark.parametrize(
    ("status", "units", "wanted"),
    [
        ("completed", [unit("a"), unit("b")], 0),
        ("completed", [unit("a"), unit("b", "failed", 1)], 0),
        ("completed", [unit("a", "skipped", None), unit("b", "skipped", None)], 1),
        ("failed", [unit("a"), unit("b", "failed", 1)], 1),
        ("failed", [unit("a", "timed_out", None), unit("b", "failed", 1)], 1),
        ("failed", [unit("a"), unit("b", "timed_out", None)], 124),
        ("cancelled", [unit("a", "cancelled", None), unit("b", "cancelled", None)], 1),
    ],
)
def test_exit_codes_of_many(server: Server, status: str, units: list[dict[str, Any]], wanted: int) -> None:
    many_nodes(server, status, *units)
    assert main(["exec", "--labels", "role=web,site=n", "--", "true"]) == wanted
    assert body_of(server, MANY)["labels"] == {"role": "web", "site": "n"}


def test_json_of_many_has_nodes_and_groups(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    many_nodes(server, "completed", unit("a", out="x"), unit("b", out="x"))
    assert main(["exec", "--json", "a", "b", "--", "true"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["execution"], found["status"]) == (ID, "completed")
    assert [one["node"] for one in found["nodes"]] == ["a", "b"]
    assert [one["nodes"] for one in found["groups"]] == [["a", "b"]]


def test_what_differs_only_where_the_text_is_cut_is_not_the_same() -> None:
    units = [unit("a", out="head … tail"), unit("b", out="head … tail")]
    digests = [{"job": one["job"], "stream": "stdout", "sha256": one["node"]} for one in units]
    assert [one.nodes for one in fold.groups(units, digests)] == [("a",), ("b",)]
    assert next(fold.summary(fold.groups(units, digests))) == "2 nodes, all different"


def test_a_group_of_fifty_is_told_in_one_line() -> None:
    found = fold.groups([unit(f"n-{number:02}") for number in range(50)] + [unit("x", "failed", 1)], [])
    lines = list(fold.summary(found))
    assert lines[0] == "50 the same, 1 differ"
    assert lines[1].endswith("n-09 and 40 more")
    assert list(fold.summary(found[:1])) == ["50 the same"]
    assert list(fold.summary([])) == []
