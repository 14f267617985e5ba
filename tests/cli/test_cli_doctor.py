"""`muster doctor` against a server that speaks the contract."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from speaking_server import Server

from app.cli.main import main


def test_doctor_asks_the_server(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.says("GET", "/healthz", 200, {"status": "ok"})
    server.says("GET", "/version", 200, {"version": "0.1.0", "celery": "5.7.0"})
    server.says("GET", "/readyz", 200, {})
    server.says(
        "GET",
        "/api/v1/nodes",
        200,
        {"items": [{"name": "a", "online": True}, {"name": "b", "online": False}]},
    )
    main(["doctor", "--json"])
    found = {one["name"]: one["status"] for one in json.loads(capsys.readouterr().out)["checks"]}
    assert {name: found[name] for name in ("api", "clock", "token", "server", "nodes")} == {
        "api": "ok",
        "clock": "ok",
        "token": "ok",
        "server": "ok",
        "nodes": "warn",
    }
    server.says("GET", "/readyz", 503, {"detail": "redis does not answer"})
    server.says("GET", "/api/v1/nodes", 200, {"items": [{"name": "b", "online": False}]})
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "fail  server" in out
    assert "redis does not answer" in out
    assert "start the workers of b" in out
    server.says("GET", "/version", 401, {"detail": "no such token"})
    assert main(["doctor"]) == 1
    assert "set MUSTER_TOKEN" in capsys.readouterr().out


def test_doctor_looks_at_the_keys_for_secrets(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MUSTER_DATA_DIR", str(tmp_path))

    def finding() -> tuple[str, str] | None:
        main(["doctor", "--json"])
        checks = json.loads(capsys.readouterr().out)["checks"]
        return next(((one["status"], one["hint"]) for one in checks if one["name"] == "secret keys"), None)

    assert finding() is None
    (tmp_path / "control.keys").touch()
    assert finding() == ("warn", "`muster setup` makes it")
    keys = tmp_path / "secret.keys"
    keys.touch(0o600)
    assert finding() == ("ok", "")
    keys.chmod(0o640)
    assert finding() == ("fail", f"chmod 600 {keys}")
