"""`muster node add` and `trust`, and what `list` and `doctor` say of nodes over SSH."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from typing import Any

import pytest
from speaking_server import Request, Server

from app.cli.main import main

NODES = "/api/v1/nodes"
ONE = f"{NODES}/far-1"
SEEN = "SHA256:0o+XEA1ROQlKLW+ogg8oaH3QpB2O0O9cyKw/Qa+ovGc"
OTHER = "SHA256:DqDUmoJ1GgmiXP5bj+OyaRSL8Km7XCGvvm6qo7Tetqk"


def node(**more: Any) -> dict[str, Any]:
    ssh = {"user": "deploy", "host": "far-1", "port": 22, "host_key": "", "offered_key": "", **more}
    breaker = {"state": more.pop("state", "closed"), "error": more.pop("error", "")}
    return {"name": "far-1", "transport": "ssh", "address": "far-1:22", "ssh": ssh, "breaker": breaker}


def sent(server: Server, method: str, path: str) -> Any:
    return [json.loads(body) for _, _, body in server.requests(method, path)]


def test_a_node_is_added_with_what_was_said_and_no_more(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.says("POST", NODES, 201, node())
    asked = ["node", "add", "far-1", "--ssh", "deploy@far-1", "--key", "ssh/web"]
    assert main([*asked, "--label", "role=web"]) == 0
    assert capsys.readouterr().out == (
        "added: far-1 at deploy@far-1:22\nnext, once its host key has been seen: muster node trust far-1\n"
    )
    more = ["--slots", "2", "--backend", "openssh", "--workdir", "/srv/jobs", "--replace"]
    assert main([*asked, *more]) == 0
    place = {"name": "far-1", "transport": "ssh", "address": "deploy@far-1", "key": "ssh/web"}
    assert sent(server, "POST", NODES) == [
        {**place, "labels": {"role": "web"}, "replace": False},
        {**place, "labels": {}, "replace": True, "slots": 2, "backend": "openssh", "workdir": "/srv/jobs"},
    ]
    assert main([*asked, "--backend", "plink"]) == 2


def test_a_key_is_trusted_as_somebody_says(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """The key is waited for. Without a terminal, a fingerprint and --yes nothing is trusted."""
    server.in_turn(
        "GET",
        ONE,
        lambda request: request.answer(200, node()),
        lambda request: request.answer(200, node(offered_key=SEEN)),
    )

    def trusts(request: Request) -> None:
        request.answer(200, node(host_key=json.loads(request.body)["fingerprint"]))

    server.routes["POST", f"{ONE}/trust"] = trusts
    assert main(["node", "trust", "far-1"]) == 2
    assert f"far-1 shows the host key {SEEN}: give it with --fingerprint" in capsys.readouterr().err
    assert not server.requests("POST", f"{ONE}/trust")
    assert main(["node", "trust", "far-1", "--yes"]) == 0
    assert capsys.readouterr().out == f"trusted: far-1 with the host key {SEEN}\n"
    assert main(["node", "trust", "far-1", "--fingerprint", OTHER]) == 0
    assert sent(server, "POST", f"{ONE}/trust") == [{"fingerprint": SEEN}, {"fingerprint": OTHER}]


@pytest.mark.parametrize(("said", "code"), [(b"y\n", 0), (b"n\n", 1)], ids=["yes", "no"])
def test_a_person_at_a_terminal_is_asked(server: Server, said: bytes, code: int) -> None:
    """And told where it is another key than the one that is trusted."""
    server.says("GET", ONE, 200, node(offered_key=SEEN, host_key=OTHER))
    server.says("POST", f"{ONE}/trust", 200, node(host_key=SEEN))
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "app.cli.main", "node", "trust", "far-1"],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    os.close(theirs)
    os.write(ours, said)
    _, told = process.communicate(timeout=60)
    os.close(ours)
    assert process.returncode == code, told
    assert f"IT IS ANOTHER ONE THAN THAT WHICH IS TRUSTED, {OTHER}" in told.decode()
    assert len(server.requests("POST", f"{ONE}/trust")) == (1 if code == 0 else 0)


def test_a_node_with_a_worker_has_no_host_key(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.says("GET", ONE, 200, {"name": "far-1", "transport": "worker", "ssh": None, "breaker": None})
    assert main(["node", "trust", "far-1"]) == 2
    assert "has a worker" in capsys.readouterr().err


def test_nobody_has_seen_a_key(
    server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.cli.node_ssh.PATIENCE", 0.0)
    server.says("GET", ONE, 200, node(error="it did not answer within 10 s"))
    assert main(["node", "trust", "far-1"]) == 1
    assert "it did not answer within 10 s" in capsys.readouterr().err


def test_the_list_tells_of_connections_where_there_are_any(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = {"name": "web-1", "transport": "worker", "ssh": None, "breaker": None, "online": True}
    server.says("GET", NODES, 200, {"items": [plain]})
    assert main(["node", "list"]) == 0
    assert "breaker" not in capsys.readouterr().out
    found = [
        plain,
        {**node(), "name": "far-1"},
        {**node(host_key=SEEN), "name": "far-2", "online": True},
        {**node(host_key=SEEN, error="refused"), "name": "far-3"},
        {**node(host_key=SEEN, state="open", error="refused"), "name": "far-4"},
    ]
    server.says("GET", NODES, 200, {"items": found})
    assert main(["node", "list"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[0][-1] == "breaker"
    told = {row[0]: row[-1] for row in rows[1:]}
    assert {name: told[name] for name in ("far-1", "far-2", "far-3", "far-4")} == {
        "far-1": "untrusted",
        "far-2": "closed",
        "far-3": "failing",
        "far-4": "open",
    }
    for path in ("/healthz", "/version", "/readyz"):
        server.says("GET", path, 200, {})
    main(["doctor"])
    out = capsys.readouterr().out
    assert "trust the host keys of far-1: `muster node trust NAME`" in out
    assert "see why far-3, far-4 cannot be reached: `muster node show NAME`" in out
