"""`muster kv` and `muster secret` against a server that speaks the contract; rotation on a database of its own."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from speaking_server import Server

from app.cli.main import main
from app.settings import Settings

ONE = {"name": "db/password", "version": 3, "users": ["ada"], "warnings": []}


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Any:
    def give(text: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))

    return give


def sent(server: Server) -> Any:
    return json.loads(server.seen[-1][4])


@pytest.mark.parametrize(
    ("given", "arguments", "value"),
    [
        ("s3cret\n", [], "s3cret"),
        ("s3cret\r\n", [], "s3cret"),
        ("two\nlines\n\n", [], "two\nlines\n"),
        ("key\n", ["--file", "-"], "key\n"),
    ],
)
def test_a_secret_comes_from_standard_input(
    server: Server,
    stdin: Any,
    given: str,
    arguments: list[str],
    value: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server.says("PUT", "/api/v1/secrets/db%2Fpassword", 200, {**ONE, "warnings": ["short"]})
    stdin(given)
    assert main(["secret", "set", "db/password", "--user", "ada", *arguments]) == 0
    assert sent(server) == {"value": value, "users": ["ada"]}
    out = capsys.readouterr()
    assert (out.out, out.err) == ("set: db/password version 3\n", "warning: short\n")


def test_a_secret_is_never_an_argument(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["secret", "set", "db/password", "s3cret"]) == 2
    assert server.seen == []
    assert main(["secret", "set", "db/password", "--value", "s3cret"]) == 2
    assert server.seen == []
    capsys.readouterr()


def test_a_secret_from_a_file_keeps_every_byte(server: Server, tmp_path: Path) -> None:
    server.says("PUT", "/api/v1/secrets/k", 200, ONE)
    file = tmp_path / "key"
    file.write_text("-----BEGIN\nx\n")
    assert main(["secret", "set", "k", "--file", str(file)]) == 0
    assert sent(server)["value"] == "-----BEGIN\nx\n"
    file.write_bytes(b"\xff")
    assert main(["secret", "set", "k", "--file", str(file)]) == 2


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        (["8080"], 8080),
        (['{"a": [1]}'], {"a": [1]}),
        (["plain text"], "plain text"),
        (["8080", "--text"], "8080"),
        (["true"], True),
        (["NaN"], "NaN"),
    ],
)
def test_a_value_is_json_or_text(server: Server, arguments: list[str], value: Any) -> None:
    server.says("PUT", "/api/v1/kv/app%2Fport", 200, {"key": "app/port", "revision": 2})
    assert main(["kv", "set", "app/port", *arguments, "--expires-in", "60"]) == 0
    assert sent(server) == {"value": value, "expires_in": 60.0}


def test_values_are_shown(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    row = {
        "key": "a",
        "value": {"b": 1},
        "revision": 1,
        "updated_by": "ada",
        "updated_at": "now",
        "expires_at": None,
    }
    server.says("GET", "/api/v1/kv/a", 200, row)
    assert main(["kv", "get", "a"]) == 0
    assert json.loads(capsys.readouterr().out) == {"b": 1}
    server.says("GET", "/api/v1/kv/a", 200, {**row, "value": "text\x1b"})
    assert main(["kv", "get", "a"]) == 0
    assert capsys.readouterr().out == "text\\x1b\n"
    server.says("GET", "/api/v1/kv", 200, {"items": [row], "next_cursor": None})
    assert main(["kv", "list", "--prefix", "a"]) == 0
    assert "ada" in capsys.readouterr().out
    server.says("GET", "/api/v1/secrets", 200, {"items": [ONE], "next_cursor": None})
    assert main(["secret", "list"]) == 0
    assert "db/password" in capsys.readouterr().out


def test_rotation_says_what_is_no_longer_needed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MUSTER_DATA_DIR", str(tmp_path / "data"))
    assert main(["secret", "rotate"]) == 1
    assert "muster setup" in capsys.readouterr().err
    assert main(["setup", "--json"]) == 0
    path = Path(json.loads(capsys.readouterr().out)["secret_keys"])
    assert path == Settings(data_dir=str(tmp_path / "data")).secret_keys_path
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_text()
    assert main(["secret", "rotate", "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert (done["added"], done["rows"], len(done["idle"]), done["file"]) == (True, 0, 1, str(path))
    assert path.read_text().endswith(before)
    assert path.stat().st_mode & 0o777 == 0o600
