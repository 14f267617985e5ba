"""Verbs that call the API, against a server that speaks its contract."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from speaking_server import EVENTS, EXECUTIONS, GOOD, Request, Server, event, started
from waiting import PATIENCE

from app.cli.connection import read_client_file
from app.cli.main import main
from app.language import parse, problems

PROBLEMS = [
    (400, 2),
    (401, 3),
    (403, 3),
    (404, 4),
    (409, 5),
    (412, 5),
    (413, 2),
    (415, 2),
    (422, 2),
    (500, 1),
    (503, 1),
]


@pytest.mark.parametrize(("status", "code"), PROBLEMS)
def test_exit_code_of_a_problem(
    server: Server, capsys: pytest.CaptureFixture[str], status: int, code: int
) -> None:
    server.says(
        "GET", "/api/v1/nodes", status, {"detail": "it is \x1b[31mwrong", "hint": "do this", "code": "c"}
    )
    assert main(["node", "list"]) == code
    err = capsys.readouterr().err
    assert err == "error: it is \\x1b[31mwrong\nhint: do this\n"
    assert server.seen[0][3]["Authorization"] == "Bearer mst_test"


def test_a_problem_as_json(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    errors = [{"pointer": "/role", "detail": "no"}]
    server.says("POST", "/api/v1/tokens", 422, {"detail": "bad", "code": "invalid", "errors": errors})
    assert main(["token", "create", "eve", "--json"]) == 2
    assert json.loads(capsys.readouterr().err)["error"] == {
        "code": "invalid",
        "message": "bad",
        "hint": "",
        "errors": errors,
    }


def test_an_answer_that_is_no_problem_json(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.says("GET", "/api/v1/nodes", 502, None)
    assert main(["node", "list"]) == 1
    assert "502" in capsys.readouterr().err
    server.routes["GET", "/api/v1/nodes"] = lambda request: request.answer(200, None)
    assert main(["node", "list"]) == 1
    assert "did not answer as a Muster API" in capsys.readouterr().err


def test_what_the_server_finds_wrong_looks_as_what_validate_finds(
    server: Server, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(
        "ref: a.b\ntasks:\n  - name: x\n    action: core.shel\n  - name: x\n    action: core.noop\n"
    )
    found = parse.load(file.read_text()).problems
    errors = [
        {"pointer": one.path, "detail": one.message}
        | {
            name: value
            for name, value in problems.as_json(one).items()
            if name in ("line", "column", "code", "hint", "severity")
        }
        for one in found
    ]
    server.says("POST", EXECUTIONS, 422, {"detail": "bad", "code": "invalid-workflow", "errors": errors})
    assert main(["validate", "bad.yaml"]) == 2
    local = capsys.readouterr().out
    assert main(["run", "bad.yaml"]) == 2
    assert capsys.readouterr().err == local
    assert "bad.yaml:4:" in local


def test_a_lost_answer_is_asked_for_again_with_the_same_key(server: Server, tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text(GOOD)
    started(server)
    server.in_turn(
        "POST",
        EXECUTIONS,
        Request.hang_up,
        lambda request: request.answer(200, {"id": "01X", "status": "running"}),
    )
    assert main(["run", "good.yaml", "--no-follow"]) == 0
    keys = [headers["Idempotency-Key"] for _, headers, _ in server.requests("POST", EXECUTIONS)]
    assert len(keys) == 2
    assert keys[0] == keys[1]


def test_no_follow_says_what_was_started(
    server: Server, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    server.says("POST", "/api/v1/workflows/a.b/execute", 201, {"id": "01X", "status": "requested"})
    (tmp_path / "p.json").write_text('{"x": [1, 2], "y": "file"}')
    assert main(["run", "a.b", "--no-follow", "--parameters", "p.json", "-p", "y=line"]) == 0
    assert capsys.readouterr().out == "execution=01X status=requested\n"
    body = server.requests("POST", "/api/v1/workflows/a.b/execute")[0][2]
    assert json.loads(body) == {"parameters": {"x": [1, 2], "y": "line"}}
    assert main(["workflow", "execute", "a.b", "--revision", "3", "--no-follow", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == "01X"
    body = server.requests("POST", "/api/v1/workflows/a.b/execute")[1][2]
    assert json.loads(body) == {"parameters": {}, "version": 3}


def test_json_waits_and_prints_one_document(
    server: Server, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "good.yaml").write_text(GOOD)
    started(server, status="cancelled")
    server.routes["GET", EVENTS] = lambda request: request.stream([event("end", {"status": "cancelled"})])
    assert main(["run", "good.yaml", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["status"] == "cancelled"
    assert found["tasks"][0]["task"] == "x"


VERBS = yaml.safe_load((Path(__file__).parent / "cases" / "verbs.yaml").read_text())


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
@pytest.mark.parametrize("case", VERBS, ids=lambda case: " ".join(case["args"]))
def test_verbs(
    server: Server, capsys: pytest.CaptureFixture[str], case: dict[str, Any], as_json: bool
) -> None:
    method, _, target = case["request"].partition(" ")
    path, _, query = target.partition("?")
    answer = case["answer"]
    server.says(method, path, 200 if answer is not None else 204, answer)
    assert main([*case["args"], "--json"] if as_json else case["args"]) == 0
    out = capsys.readouterr().out
    found_query, _, body = server.requests(method, path)[0]
    assert found_query == query
    if "body" in case:
        assert json.loads(body) == case["body"]
    if as_json:
        found = json.loads(out)
        assert found in (answer or found, {"items": answer})
        assert "\x1b" not in out
        return
    for text in case["printed"]:
        assert text in out


def test_pages_are_read_until_there_are_enough(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    pages = [
        lambda request: request.answer(
            200, {"items": [{"id": f"A{n}"} for n in range(100)], "next_cursor": "c1"}
        ),
        lambda request: request.answer(
            200, {"items": [{"id": f"B{n}"} for n in range(20)], "next_cursor": "c2"}
        ),
    ]
    server.in_turn("GET", EXECUTIONS, *pages)
    assert main(["execution", "list", "--limit", "120", "--status", "failed", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["items"]) == 120
    queries = [query for query, _, _ in server.requests("GET", EXECUTIONS)]
    assert queries == ["status=failed&limit=100", "status=failed&limit=20&cursor=c1"]


def test_workflow_put_sends_the_text_to_its_pack(
    server: Server, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "good.yaml").write_text(GOOD)
    answer = {"ref": "a.b", "version": "1", "revision": 4}
    server.in_turn(
        "POST",
        "/api/v1/packs/a/workflows",
        lambda request: request.answer(201, answer),
        lambda request: request.answer(200, answer),
    )
    assert main(["workflow", "put", "good.yaml"]) == 0
    assert main(["workflow", "put", "good.yaml"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "stored: a.b version 1 revision 4",
        "unchanged: a.b version 1 revision 4",
    ]
    assert json.loads(server.seen[0][4]) == {"definition": GOOD}


def test_names_stay_one_step_of_the_path(server: Server) -> None:
    for name in ("../../healthz", "a/b", "..", ".", "a?x=1", "a b", "é"):
        assert main(["node", "show", name]) == 4
    for _, path, query, _, _ in server.seen:
        assert path.startswith("/api/v1/nodes/")
        assert path.count("/") == 4
        assert not query
        assert path.rpartition("/")[2] not in (".", "..")


def test_the_client_file_counts_only_if_it_is_ours_alone(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server.says("GET", "/api/v1/nodes", 200, {"items": []})
    monkeypatch.delenv("MUSTER_URL")
    monkeypatch.delenv("MUSTER_TOKEN")
    (tmp_path / ".muster").mkdir()
    file = tmp_path / ".muster" / "client.env"
    file.write_text(f"MUSTER_URL={server.url}\nMUSTER_TOKEN=mst_file\n")
    file.chmod(0o644)
    assert read_client_file(file) == ("", "")
    assert main(["node", "list"]) == 2
    file.chmod(0o600)
    assert main(["node", "list"]) == 0
    assert server.seen[-1][3]["Authorization"] == "Bearer mst_file"
    # A token of the environment must not go to a server that only a directory names.
    monkeypatch.setenv("MUSTER_TOKEN", "mst_secret")
    before = len(server.seen)
    assert main(["node", "list"]) == 2
    assert len(server.seen) == before


def test_output_is_out_at_once_for_a_pipe(server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    seen = threading.Event()

    def slowly(request: Request) -> None:
        request.stream(
            [event("output", {"job": "j", "node": "n", "stream": "stdout", "offset": 0, "text": "now\n"})],
            then_hang=True,
        )

    server.routes["GET", EVENTS] = slowly
    codes: list[int] = []
    thread = threading.Thread(
        target=lambda: codes.append(main(["execution", "follow", "01X", "--timeout", "5"]))
    )
    thread.start()
    text = ""
    for _ in range(200):
        text += capfd.readouterr().out
        if "now" in text:
            seen.set()
            break
        thread.join(0.02)
    assert seen.is_set()
    assert thread.is_alive()
    started(server)
    server.routes["GET", EVENTS] = lambda request: request.stream([event("end", {"status": "completed"})])
    server.released.set()
    thread.join(PATIENCE)
    assert codes == [0]
