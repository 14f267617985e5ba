"""The command line and the API, over a socket: what travels, what comes back, and what is left alone."""

from __future__ import annotations

import json
import os
import random
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from api_world import World
from file_cabinet import job_of, kept, sha256, stepped, tree
from sqlalchemy import select
from werkzeug.serving import make_server

from app.cli import bring_back, transfer
from app.cli.client import Client
from app.cli.main import main
from app.errors import MusterError
from app.files.manifest import EMPTY, Manifest
from app.files.names import Globs
from app.files.tree import scan
from app.store.tables import Blob, table

NOOP = "tasks: [{name: go, action: core.noop}]\n"


class Asked(list[tuple[str, str]]):
    """Method and path of every request; the first `lose` answers of a path are lost on their way."""

    def __init__(self) -> None:
        super().__init__()
        self.lose: dict[str, int] = {}

    def paths(self, method: str, part: str) -> int:
        return sum(1 for verb, path in self if verb == method and part in path)


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
def client(world: World, asked: Asked, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A client of the API behind a real socket."""
    monkeypatch.setattr(transfer, "_WAIT", 0.001)

    def app(environ: dict[str, Any], start: Any) -> Any:
        asked.append((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
        answer = world.app(environ, start)
        for part, left in asked.lose.items():
            if left and part in environ["PATH_INFO"]:
                asked.lose[part] -= 1
                environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        return answer

    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("MUSTER_URL", url)
    monkeypatch.setenv("MUSTER_TOKEN", world.tokens["author"])
    yield Client(url, world.tokens["author"])
    server.shutdown()
    thread.join()
    server.server_close()


def write(directory: Path, files: dict[str, bytes]) -> Path:
    for path, content in files.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(content)
        (directory / path).chmod(0o644)
    return directory


def upload(client: Client, directory: Path, **globs: Any) -> Manifest:
    return transfer.upload(client, str(directory), Globs(**globs))[0]


def stored(world: World) -> set[str]:
    with world.control.store.read() as connection:
        return set(connection.execute(select(table(Blob).c.digest)).scalars())


FILES = {
    "a.txt": b"a\n",
    "src/b.py": b"b = 1\n",
    "src/c.py": b"",
    "big.bin": random.Random(3).randbytes(9_000_000),
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return write(tmp_path / "work", FILES)


# there


def test_only_what_is_missing_travels(world: World, client: Client, asked: Asked, place: Path) -> None:
    found = upload(client, place)
    assert stored(world) == {sha256(content) for content in FILES.values()}
    assert (asked.paths("POST", "/blobs/bundle"), asked.paths("PUT", "/blobs/sha256")) == (1, 2)
    asked.clear()
    assert upload(client, place) == found
    assert asked == [("POST", "/api/v1/snapshots")]
    asked.clear()
    write(place, {"a.txt": b"other\n"})
    upload(client, place)
    assert [path for _, path in asked] == ["/api/v1/snapshots", "/api/v1/blobs/bundle"]


def test_patterns_say_what_travels(client: Client, place: Path) -> None:
    assert set(upload(client, place, include=["src/**"]).files) == {"src/b.py", "src/c.py"}
    assert set(upload(client, place, exclude=["*.bin", "src"]).files) == {"a.txt"}


def test_lost_answers_are_asked_for_again(world: World, client: Client, asked: Asked, place: Path) -> None:
    asked.lose = {"/snapshots": 2, "/blobs/bundle": 1, "/blobs/sha256": 2}
    upload(client, place)
    assert stored(world) == {sha256(content) for content in FILES.values()}
    assert set(asked.lose.values()) == {0}


def test_several_runs_at_once_upload_one_large_file(world: World, client: Client, place: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        done = [one.result() for one in [pool.submit(upload, client, place) for _ in range(2)]]
    assert done[0] == done[1]
    assert stored(world) == {sha256(content) for content in FILES.values()}


def test_a_file_that_changes_meanwhile_is_named(
    client: Client, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    post = transfer._post

    def changing(*given: Any) -> Any:
        (place / "a.txt").write_bytes(b"b\n")
        return post(*given)

    monkeypatch.setattr(transfer, "_post", changing)
    with pytest.raises(MusterError, match="changed while it was uploaded") as wrong:
        upload(client, place)
    assert wrong.value.code == "changed"


def test_a_directory_that_cannot_travel(
    client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "w.yaml").write_text(NOOP)
    for name in ("nothing", "w.yaml"):
        assert main(["run", str(tmp_path / "w.yaml"), "--workspace", str(tmp_path / name)]) == 2
    write(tmp_path / "odd", {"line\nbreak": b""})
    assert main(["run", str(tmp_path / "w.yaml"), "--workspace", str(tmp_path / "odd")]) == 2
    err = capsys.readouterr().err
    assert err.count("error:") == 3
    assert "line\\nbreak" in err


# and back


def changed(world: World, uploaded: Manifest, files: dict[str, bytes]) -> str:
    """An execution whose jobs have made this of what was uploaded."""
    execution, job = job_of(world)
    stepped(world, execution, job, uploaded, put(world, files))
    return execution


def put(world: World, files: dict[str, bytes]) -> Manifest:
    """The tree, with its blobs at the server."""
    for content in files.values():
        answer = world.ask("PUT", f"/api/v1/blobs/sha256:{sha256(content)}", "operator", data=content)
        assert answer.status_code == 201, answer.text
    return tree(files)


LARGER = random.Random(4).randbytes(9_000_000)
MADE = {"a.txt": b"A\n", "src/c.py": b"", "out/new": b"new\n", "big.bin": LARGER}


@pytest.mark.parametrize("in_memory", [transfer.IN_MEMORY, 4], ids=["in memory", "on disk"])
def test_what_changed_is_done_and_no_more(
    world: World, client: Client, place: Path, monkeypatch: pytest.MonkeyPatch, in_memory: int
) -> None:
    monkeypatch.setattr(transfer, "IN_MEMORY", in_memory)
    uploaded = upload(client, place)
    write(place, {"mine.txt": b"mine", "src/mine.py": b"mine"})
    inode = (place / "src/c.py").stat().st_ino
    brought = bring_back.bring_back(client, changed(world, uploaded, MADE), str(place), uploaded)
    assert (brought.put, brought.gone, brought.conflicts) == (3, 1, ())
    assert scan(place) == tree({**MADE, "mine.txt": b"mine", "src/mine.py": b"mine"})
    assert (place / "src/c.py").stat().st_ino == inode
    again = bring_back.bring_back(client, changed(world, uploaded, MADE), str(place), uploaded)
    assert (again.put, again.gone, again.conflicts) == (0, 0, ())


def test_what_was_changed_here_meanwhile_is_a_conflict_and_stays(
    world: World, client: Client, place: Path, tmp_path: Path
) -> None:
    uploaded = upload(client, place, exclude=["src/c.py"])
    execution = changed(
        world, uploaded, {"a.txt": b"A\n", "out/new": b"n", "src/c.py": b"theirs", "big.bin": LARGER}
    )
    (tmp_path / "outside").write_bytes(b"outside")
    write(place, {"a.txt": b"mine\n", "src/b.py": b"mine\n", "out/new": b"mine"})
    (place / "big.bin").unlink()
    (place / "big.bin").symlink_to(tmp_path / "outside")
    before = scan(place)
    brought = bring_back.bring_back(client, execution, str(place), uploaded)
    assert (brought.put, brought.gone) == (0, 0)
    assert brought.conflicts == ("a.txt", "big.bin", "out/new", "src/b.py", "src/c.py")
    assert scan(place) == before
    assert (tmp_path / "outside").read_bytes() == b"outside"


def test_a_link_in_the_way_of_a_directory_is_a_conflict(
    world: World, client: Client, place: Path, tmp_path: Path
) -> None:
    uploaded = upload(client, place)
    execution = changed(world, uploaded, {**FILES, "out/new": b"new"})
    (tmp_path / "elsewhere").mkdir()
    (place / "out").symlink_to(tmp_path / "elsewhere")
    assert bring_back.bring_back(client, execution, str(place), uploaded).conflicts == ("out/new",)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_an_execution_without_files_changes_nothing(world: World, client: Client, place: Path) -> None:
    uploaded = upload(client, place)
    execution, _ = job_of(world)
    assert bring_back.bring_back(client, execution, str(place), uploaded).conflicts == ()
    assert scan(place) == uploaded


def test_files_are_taken_out_into_a_new_directory(
    world: World, client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    execution = changed(world, put(world, {"a.txt": b"a\n"}), MADE)
    target = tmp_path / "out"
    assert main(["execution", "workspace", execution, "--to", str(target)]) == 0
    assert scan(target) == tree(MADE)
    assert capsys.readouterr().out == f"workspace={target} files=4 bytes=9000006\n"
    assert main(["execution", "workspace", execution, "--to", str(target)]) == 5
    assert [path.name for path in tmp_path.iterdir() if "part" in path.name] == []


# the verbs


def test_run_with_a_workspace(
    world: World, client: Client, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "w.yaml").write_text(NOOP)
    command = ["run", str(tmp_path / "w.yaml"), "--workspace", str(place), "--exclude", "*.bin"]
    assert main([*command, "--no-follow", "--json"]) == 0
    execution = json.loads(capsys.readouterr().out)["id"]
    state = world.get(f"/workflow-executions/{execution}/workspace")
    assert (state["files"], state["bytes"]) == (3, 8)
    assert main([*command, "--no-follow", "--bring-back"]) == 2
    assert main(["run", str(tmp_path / "w.yaml"), "--bring-back"]) == 2
    assert "--workspace DIR" in capsys.readouterr().err
    assert main([*command, "--bring-back"]) == 0
    assert f"workspace={place} put=0 removed=0 conflicts=0\n" in capsys.readouterr().out
    assert main(["execution", "workspace", execution]) == 0
    told = capsys.readouterr().out
    assert state["snapshot"] in told
    assert "files     3" in told


def test_run_says_which_files_were_left_alone(
    world: World,
    client: Client,
    place: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "w.yaml").write_text(NOOP)
    write(place, {"d/x": b"x"})
    wanted = transfer.upload

    def uploaded_and_changed(*given: Any) -> tuple[Manifest, list[str]]:
        found = wanted(*given)
        write(place, {"a.txt": b"mine\n", "d/mine": b"mine"})
        return found

    def ended(_: Client, execution: str) -> tuple[str, Manifest]:
        now = put(world, {"a.txt": b"theirs\n", "b.txt": b"b", "d": b"d"})
        stepped(world, execution, "j", EMPTY, now)
        return now.digest, now

    monkeypatch.setattr(transfer, "upload", uploaded_and_changed)
    monkeypatch.setattr(bring_back, "now_of", ended)
    command = [
        "run",
        str(tmp_path / "w.yaml"),
        "--workspace",
        str(place),
        "--include",
        "a.txt",
        "--include",
        "d/x",
        "--bring-back",
    ]
    assert main(command) == 1
    out, err = capsys.readouterr()
    assert f"workspace={place} put=1 removed=0 conflicts=3\n" in out
    assert err.startswith(
        "conflict: a.txt was changed here meanwhile, and is left alone\n"
        "conflict: d was changed here meanwhile, and is left alone\n"
        "conflict: d/x stays, for what would take its place is left alone\nhint: "
    )
    assert ((place / "a.txt").read_bytes(), (place / "b.txt").read_bytes()) == (b"mine\n", b"b")


def test_what_jobs_did_is_told(world: World, client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    execution = changed(world, tree({"a.txt": b"a\n", "old": b""}), {"a.txt": b"A\n", "out/new": b"new\n"})
    assert main(["execution", "workspace", execution, "--paths"]) == 0
    out = capsys.readouterr().out
    assert out.endswith("1 go on local\n+ out/new\n~ a.txt\n- old\n")
    assert main(["execution", "workspace", execution, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"][0]["deleted"] == 1


def test_artifacts_are_listed_and_written(
    world: World, client: Client, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    execution, job = job_of(world)
    kept(world, execution, job, {"report.bin": LARGER, "empty": b""})
    kept(world, execution, job, {"twice": b"1"})
    kept(world, execution, job, {"twice": b"2"}, "kept")
    assert main(["execution", "artifacts", execution]) == 0
    assert capsysbinary.readouterr().out.count(b"\n") == 5
    items = world.get(f"/workflow-executions/{execution}/artifacts")["items"]
    ids = {(one["path"], one["kind"]): one["id"] for one in items}
    target = tmp_path / "report"
    assert main(["execution", "artifact", execution, "report.bin", "-o", str(target)]) == 0
    assert (target.read_bytes(), os.listdir(tmp_path).count("report")) == (LARGER, 1)
    capsysbinary.readouterr()
    assert main(["execution", "artifact", execution, "empty"]) == 0
    assert main(["execution", "artifact", execution, ids["twice", "kept"]]) == 0
    assert capsysbinary.readouterr().out == b"2"
    assert main(["execution", "artifact", execution, "twice"]) == 5
    assert main(["execution", "artifact", execution, "nothing"]) == 4
    assert main(["execution", "artifact", execution, "empty", "-o", str(tmp_path / "no" / "where")]) == 3
    err = capsysbinary.readouterr().err
    assert ids["twice", "artifact"].encode() in err
