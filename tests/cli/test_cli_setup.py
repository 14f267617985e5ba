"""`muster setup`: everything once, however often it runs; and what it refuses. `muster node enroll` from a file."""

from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from speaking_server import Server
from sqlalchemy import func, select

from app.cli.connection import read_client_file
from app.cli.main import main
from app.errors import Conflict, NotAllowed
from app.services import fleet, onetime, people
from app.services.control import Control
from app.settings import from_environment
from app.store.db import Store
from app.store.tables import EnrolmentToken, Token
from app.transport.keys import KeyPair

CASES = yaml.safe_load((Path(__file__).parent / "cases" / "setup.yaml").read_text())


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MUSTER_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


def run(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, Any]:
    assert main(["setup", "--json", *args]) == 0, capsys.readouterr().err
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def refused(capsys: pytest.CaptureFixture[str], code: int, *args: str) -> str:
    assert main(["setup", *args]) == code
    return capsys.readouterr().err


def opened() -> Control:
    settings = from_environment()
    return Control(settings, Store(settings.database))


def counts() -> tuple[int, int]:
    """How many tokens there are: of people, of nodes."""
    with opened().store.read() as connection:
        return tuple(
            connection.execute(select(func.count()).select_from(one)).scalar_one()
            for one in (Token, EnrolmentToken)
        )


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_all_of_it_once(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--node", "web-1", "--node", "local", "--label", "role=web"]
    args += ["--token-file", f"{data}/tokens/{{node}}", "--admin-file", f"{data}/client.env"]
    first = run(capsys, *args, "--url", "http://api:8088")
    assert first["admin"] == {"login": "admin", "made": True, "token": "", "file": f"{data}/client.env"}
    assert [one["state"] for one in first["nodes"]] == ["token", "token"]
    private = [
        data / "control.keys",
        data / "client.env",
        data / "tokens" / "web-1",
        data / "tokens" / "local",
    ]
    assert {path.name: mode(path) for path in private} == dict.fromkeys([one.name for one in private], 0o600)
    assert mode(data) == mode(data / "tokens") == 0o700
    url, token = read_client_file(data / "client.env")
    assert (url, people.authenticate(opened(), token).role) == ("http://api:8088", "admin")
    kept = {path: path.read_bytes() for path in private}
    before = counts()

    second = run(capsys, *args)
    assert second["admin"] == {"login": "admin", "made": False, "token": "", "file": ""}
    assert {**second, "admin": 0} == {**first, "admin": 0}
    assert {path: path.read_bytes() for path in private} == kept
    assert counts() == before == (1, 2)


def test_what_is_printed_is_printed_once(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["setup", "--node", "web-1"]) == 0
    out = capsys.readouterr().out
    token = out.partition("told this once: ")[2].split()[0]
    assert people.authenticate(opened(), token).login == "admin"
    assert onetime.valid_until(opened(), out.split()[-1], "web-1") is not None
    assert main(["setup"]) == 0
    assert "mst_" not in capsys.readouterr().out


def test_another_token_for_the_one_that_was_lost(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = run(capsys, "--another-token")["admin"]["token"]
    file = data / "client.env"
    found = run(capsys, "--another-token", "--admin-file", str(file))["admin"]
    assert found == {"login": "admin", "made": True, "token": "", "file": str(file)}
    second = read_client_file(file)[1]
    assert first != second
    assert [people.authenticate(opened(), token).role for token in (first, second)] == ["admin", "admin"]
    assert counts() == (2, 0)


def test_a_node_that_is_there_or_was_removed_gets_no_token(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys)
    control = opened()
    for name in ("web-1", "web-2"):
        pair = KeyPair.generate()
        secret = fleet.create_token(control, name, "ada").token
        proof = pair.prove("", secret, name, now=control.clock())
        fleet.enroll(control, fleet.Enrolment(name, secret, pair.public(), proof))
    fleet.remove(control, "web-2", "ada")
    before = counts()
    found = run(capsys, "--node", "web-1", "--node", "web-2", "--token-file", f"{data}/{{node}}")
    assert [(one["state"], one["token"], one["file"]) for one in found["nodes"]] == [
        ("active", "", ""),
        ("removed", "", ""),
    ]
    assert counts() == before
    assert not (data / "web-1").exists()


@pytest.mark.parametrize(
    "content", ["", "nothing", "[]", '{"node": "web-1", "token": "mse_x", "control": "c"}']
)
def test_a_token_file_that_is_of_no_use_is_written_anew(
    data: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    run(capsys)
    (data / "token").write_text(content)
    run(capsys, "--node", "web-1", "--token-file", f"{data}/token")
    token = json.loads((data / "token").read_text())["token"]
    assert onetime.valid_until(opened(), token, "web-1") is not None


def test_an_admin_file_that_cannot_be_written_makes_no_admin(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data.parent / "file").touch()
    err = refused(capsys, 3, "--admin-file", f"{data.parent}/file/client.env")
    assert "file/client.env cannot be written" in err
    assert counts() == (0, 0)
    assert run(capsys)["admin"]["made"]


def test_the_token_of_local_is_controls_own_to_make(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever is admin at the API cannot make one; with the token of `setup` the machine becomes `local`."""
    token = run(capsys, "--node", "local", "--label", "role=web")["nodes"][0]["token"]
    control, pair = opened(), KeyPair.generate()
    with pytest.raises(Conflict):
        fleet.create_token(control, "local", "admin")
    proof = pair.prove("", token, "local", now=control.clock())
    with pytest.raises(NotAllowed):
        fleet.enroll(control, fleet.Enrolment("local", "mse_other", pair.public(), proof))
    fleet.enroll(control, fleet.Enrolment("local", token, pair.public(), proof))
    with control.store.read() as connection:
        assert fleet.get_node(control, connection, "local")["labels"] == {}


def test_keys_of_another_installation(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys)
    keys = (data / "control.keys").read_bytes()
    (data / "control.keys").unlink()
    assert "copy control.keys" in refused(capsys, 5)
    KeyPair.generate().save(data / "control.keys")
    assert "does not hold the keys of this installation" in refused(capsys, 5)
    (data / "control.keys").write_bytes(keys)
    (data / "control.keys").chmod(0o644)
    assert "can be read by others" in refused(capsys, 3)
    (data / "control.keys").chmod(0o600)
    run(capsys)


def test_two_at_once_make_one_installation(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    codes: list[int] = []
    threads = [threading.Thread(target=lambda: codes.append(main(["setup"]))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [0] * 4, capsys.readouterr().err
    assert capsys.readouterr().out.count("told this once") == 1
    assert counts() == (1, 0)


def test_a_data_directory_of_somebody_else(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Root may write anywhere, and control could not read it then."""
    foreign = Path("/usr")
    if os.geteuid() == 0:
        foreign = data
        data.mkdir()
        os.chown(data, 12345, -1)
    monkeypatch.setenv("MUSTER_DATA_DIR", str(foreign))
    before = sorted(foreign.iterdir())
    err = refused(capsys, 3)
    assert "belongs to the user with the id" in err
    assert "run it as the user that runs control" in err
    assert sorted(foreign.iterdir()) == before


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_what_is_refused(
    case: dict[str, Any], data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tmp = str(data.parent)
    (data.parent / "file").write_text("a file, and no database\n" * 50)
    for name, value in case.get("environment", {}).items():
        monkeypatch.setenv(name, value.replace("{tmp}", tmp))
    err = refused(capsys, case["code"], *(word.replace("{tmp}", tmp) for word in case["args"]))
    assert [part for part in case["err"] if part.replace("{tmp}", tmp) not in err] == [], err
    assert "sesame" not in err
    assert "Traceback" not in err
    assert [path.name for path in data.glob("*")] == []


# node enroll


def enrolment(path: Path, **changes: str) -> Path:
    path.write_text(json.dumps({"node": "web-1", "token": "mse_x", "control": "sha256:0", **changes}))
    return path


def test_a_machine_enrols_itself_from_a_file_and_once(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    control = KeyPair.generate()
    fingerprint = control.public_keys.fingerprint
    server.says("POST", "/api/v1/nodes/enroll", 201, {"installation": "01", "control_keys": control.public()})
    file = enrolment(tmp_path / "token", control=fingerprint)
    words = ["node", "enroll", "web-1", "--url", server.url, "--token-file", str(file), "--if-needed"]
    words += ["--dir", str(tmp_path / "node")]
    assert main(words) == 0
    assert f"control keys {fingerprint}" in capsys.readouterr().out
    file.unlink()
    assert main(words) == 0
    assert "enrolled already: web-1" in capsys.readouterr().out
    assert [request[:2] for request in server.seen] == [("POST", "/api/v1/nodes/enroll")]
    assert json.loads(server.seen[0][4])["token"] == "mse_x"
    assert main([word.replace("web-1", "web-2") for word in words]) == 2
    assert "belongs to node web-1, not to web-2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [
        (None, 4, "No such file or directory"),
        ("mse_x", 2, "holds no enrolment token"),
        ("[]", 2, "holds no enrolment token"),
        ('{"node": "web-1", "token": "mse_x"}', 2, "holds no enrolment token"),
        ("\xff", 2, "holds no enrolment token"),
        ("[" * 4096, 2, "holds no enrolment token"),
        ('{"node": "web-2", "token": "mse_x", "control": ""}', 2, "a token for node web-2, not for web-1"),
    ],
)
def test_a_token_file_that_is_wrong(
    server: Server,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: str | None,
    code: int,
    said: str,
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content.encode("latin-1"))
    words = ["node", "enroll", "web-1", "--url", server.url, "--token-file", str(file)]
    assert main([*words, "--dir", str(tmp_path / "node")]) == code
    assert said in capsys.readouterr().err
    assert server.seen == []
    assert not (tmp_path / "node").exists()


def test_other_control_keys_than_the_file_names(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = KeyPair.generate().public()
    server.says("POST", "/api/v1/nodes/enroll", 201, {"installation": "01", "control_keys": keys})
    file = enrolment(tmp_path / "token")
    words = ["node", "enroll", "web-1", "--url", server.url, "--token-file", str(file)]
    assert main([*words, "--dir", str(tmp_path / "node")]) == 3
    assert "not sha256:0" in capsys.readouterr().err
    assert not (tmp_path / "node" / "identity.json").exists()


@pytest.mark.parametrize("words", [[], ["--token", "mse_x", "--token-file", "token"]])
def test_one_token_and_not_two(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["node", "enroll", "web-1", "--url", "http://x", "--dir", "x", *words]) == 2
    assert "give one of --token and --token-file" in capsys.readouterr().err
