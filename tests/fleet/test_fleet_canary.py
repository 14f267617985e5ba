"""Secrets through every feature that may hold one, on a real fleet; then they are looked for everywhere."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import secrets as random
import socket
import sqlite3
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from fleet import Fleet
from fleet_api import Api
from fleet_processes import Part, wait_until
from sqlalchemy import select

from app.services import keyring, rotation
from app.services.control import Control
from app.settings import Settings
from app.store.tables import Base

pytestmark = pytest.mark.fleet

WORKFLOWS: dict[str, str] = yaml.safe_load((Path(__file__).parent / "canary.yaml").read_text())
NODES = ("local", "web-1", "web-2")
SOON = 90.0
"""Seconds, on a machine that is busy with other tests."""


def needles(value: str) -> list[bytes]:
    """The value and its base64, whatever stands before it."""
    raw = value.encode()
    found = [raw]
    for before in range(3):
        encoded = binascii.b2a_base64(b"\0" * before + raw, newline=False)
        found.append(encoded[-(-8 * before // 6) : 8 * (before + len(raw)) // 6])
    return found


class Echo(ThreadingHTTPServer):
    """Answers with what it was asked; `got` keeps digests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: list[tuple[str, str]] = []


class _Handler(BaseHTTPRequestHandler):
    server: Echo

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        token = self.headers["X-Token"]
        self.server.got.append(
            (digest(token.removeprefix("Bearer ")), digest(json.loads(body)["deep"][0]["one"]))
        )
        answer = json.dumps({"token": token, "body": json.loads(body), "again": body.decode()}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("X-Back", token)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Nothing is written to standard error."""


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass
class Mine:
    """The fleet with its values. `seen` is what was looked through, by where it came from."""

    fleet: Fleet
    api: Api
    server: Echo
    one: str
    token: str
    executions: list[str] = field(default_factory=list)

    def start(self, name: str, **parameters: Any) -> str:
        answer = self.api.post(
            f"/workflows/canary.{name}/execute",
            {"parameters": parameters},
            Idempotency_Key=random.token_hex(8),
        )
        assert answer.status == 201, answer.data
        self.executions.append(answer.data["id"])
        return str(answer.data["id"])

    def stdout(self, execution: str, task: str) -> str:
        items = self.api.get(f"/workflow-executions/{execution}/output?task={task}&stream=stdout").data[
            "items"
        ]
        return "".join(one["text"] for one in items)

    def stdout_live(self, execution: str) -> str:
        """What scripts have written so far, as those see it who follow."""
        client = self.fleet.broker.client
        found = b""
        for key in client.scan_iter(match="muster:log:*"):
            if client.type(key) == b"stream":
                found += b"".join(value for _, entry in client.xrange(key) for value in entry.values())
        return found.decode("utf-8", "replace")


@pytest.fixture(scope="module")
def mine() -> Iterator[Mine]:
    server = Echo()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with Fleet(NODES, tcp=True, MUSTER_HTTP_ALLOW="127.0.0.1/32", MUSTER_TASK_EVENTS="1") as fleet:
        api = Api(fleet)
        fleet.worker_of_calls()
        command = [sys.executable, "-m", "workers.flower"]
        environment = fleet.environment(MUSTER_FLOWER_BIND=f"127.0.0.1:{_free_port()}")
        fleet.keeper.add(Part("flower", command, environment, fleet.directory / "flower.log"))
        found = Mine(fleet, api, server, f"CANARY-{random.token_hex(16)}", f"CANARY-{random.token_hex(16)}")
        _prepare(found)
        wait_until(lambda: _flower(found, "/api/tasks") is not None, 60, lambda: fleet.log("flower"))
        yield found
    server.shutdown()
    server.server_close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _prepare(mine: Mine) -> None:
    for name in ("child", "main", "again", "long", "plain", "wrong"):
        answer = mine.api.post("/packs/canary/workflows", {"definition": WORKFLOWS[name]}, role="author")
        assert answer.status == 201, answer.data
    body = {"value": mine.one, "users": ["operator"]}
    answer = mine.api.ask("PUT", "/api/v1/secrets/canary/one", body, "author")
    assert answer.status == 200, answer.data
    answer = mine.api.ask("PUT", "/api/v1/kv/canary/who", {"value": "ada"}, "author")
    assert answer.status == 201, answer.data


def _flower(mine: Mine, path: str) -> bytes | None:
    part = mine.fleet.keeper.parts["flower"]
    auth = mine.fleet.directory / "flower.auth"
    if not auth.exists():
        return None
    request = urllib.request.Request(f"http://{part.environment['MUSTER_FLOWER_BIND']}{path}")
    request.add_header("Authorization", f"Basic {base64.b64encode(auth.read_bytes().strip()).decode()}")
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return bytes(answer.read())
    except OSError:
        return None


# where they could be


def places(mine: Mine) -> Iterator[tuple[str, bytes]]:
    """Everything that others may look into, with its name."""
    yield from database(mine.fleet)
    yield from broker(mine.fleet)
    for path in mine.fleet.directory.glob("*.log"):
        yield path.name, path.read_bytes()
    for execution in mine.executions:
        base = f"/workflow-executions/{execution}"
        for path in ("", "/tasks", "/events?limit=1000", "/output", "/explain", "/graph"):
            yield f"{base}{path}", json.dumps(mine.api.get(base + path).data).encode()
    for path in ("/audit?limit=200", "/secrets", "/kv"):
        yield path, json.dumps(mine.api.ask("GET", f"/api/v1{path}", None, "admin").data).encode()
    yield "flower", _flower(mine, "/api/tasks") or b""
    yield from command_lines()


def database(fleet: Fleet) -> Iterator[tuple[str, bytes]]:
    with fleet.store.read() as connection:
        for rows in Base.metadata.sorted_tables:
            for row in connection.execute(select(rows)):
                yield (
                    f"row of {rows.name}",
                    repr(tuple(row)).encode() + b"".join(value for value in row if isinstance(value, bytes)),
                )
    for path in fleet.directory.glob("muster.db*"):
        yield path.name, path.read_bytes()


def broker(fleet: Fleet) -> Iterator[tuple[str, bytes]]:
    client = fleet.broker.client
    read = {
        b"list": lambda key: client.lrange(key, 0, -1),
        b"hash": lambda key: client.hgetall(key),
        b"stream": lambda key: client.xrange(key),
        b"zset": lambda key: client.zrange(key, 0, -1),
        b"set": lambda key: client.smembers(key),
        b"string": lambda key: client.get(key),
    }
    for key in client.scan_iter():
        kind = client.type(key)
        if kind in read:
            yield f"redis {key!r}", repr(read[kind](key)).encode()
    for path in fleet.directory.glob("appendonlydir/*"):
        yield path.name, path.read_bytes()


def command_lines() -> Iterator[tuple[str, bytes]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                yield f"/proc/{entry.name}", (entry / "cmdline").read_bytes()
            except OSError:
                continue


def node_files(fleet: Fleet) -> Iterator[tuple[str, bytes]]:
    for path in (fleet.directory / "nodes").rglob("*"):
        if path.is_file():
            yield str(path), path.read_bytes()


def found_in(mine: Mine, where: Iterator[tuple[str, bytes]]) -> tuple[list[str], int]:
    wanted = [*needles(mine.one), *needles(mine.token)]
    hits, looked = [], 0
    for name, content in where:
        looked += 1
        hits += [f"{name}: {needle!r}" for needle in wanted if needle in content]
    return hits, looked


# the tests


def test_no_value_is_anywhere_but_where_it_is_used(mine: Mine) -> None:
    hold, flag = mine.fleet.directory / "hold", mine.fleet.directory / "flag"
    url = f"http://127.0.0.1:{mine.server.server_address[1]}/"
    main = mine.start("main", token=mine.token, url=url, hold=str(hold))
    wait_until(lambda: "***" in mine.stdout_live(main), SOON, lambda: mine.fleet.story(main))
    hits, looked = found_in(mine, places(mine))
    assert (hits, looked > 100) == ([], True)
    # While it runs there are the files that the script reads and writes, and no others: the search finds what there is.
    hits, _ = found_in(mine, node_files(mine.fleet))
    assert {Path(hit.partition(": ")[0]).name for hit in hits} == {"input.json", "output.json"}
    hold.touch()
    row = mine.fleet.wait_for(main, SOON)
    assert row.status == "completed", mine.fleet.story(main)
    _check_main(mine, main, row.output)

    again = mine.start("again", token=mine.token, flag=str(flag))
    assert mine.fleet.wait_for(again, SOON).status == "failed"
    flag.touch()
    assert mine.api.post(f"/workflow-executions/{again}/retry", {}).status == 202
    assert mine.fleet.wait_for(again, SOON).status == "completed", mine.fleet.story(again)
    assert mine.stdout(again, "work").count(digest(mine.token)) == 2

    long = mine.start("long")
    mine.fleet.job_is(long, "work", "running", seconds=SOON)
    wait_until(lambda: "***" in mine.stdout_live(long), SOON, lambda: mine.fleet.story(long))
    mine.fleet.cancel(long)
    assert mine.fleet.wait_for(long, SOON).status == "cancelled"

    words = "{{ kv.get_secret('canary/one') }}"
    answer = mine.api.post("/nodes/web-1/execute", {"command": ["echo", words]})
    assert answer.data["stdout"] == f"{words}\n"

    hits, looked = found_in(mine, places(mine))
    assert (hits, looked > 100) == ([], True)
    hits, looked = found_in(mine, node_files(mine.fleet))
    assert (hits, looked > 20) == ([], True)


def _check_main(mine: Mine, main: str, output: Any) -> None:
    """Every script had the values: it says their digests."""
    one, token = digest(mine.one), digest(mine.token)
    lines = mine.stdout(main, "process").splitlines()
    assert [line.split()[0] for line in lines[:5]] == [one, one, one, token, one]
    assert lines[5:] == ["<***|***>", "***"]
    assert output["got"] == "***"
    assert output["who"] == "ada"
    assert mine.stdout(main, "fan").count(one) == 2
    assert mine.stdout(main, "loop").count(token) == 2
    assert mine.stdout(main, "pieces") == f"{one}  -\n***\n" * 2
    assert mine.server.got == [(token, one)]
    assert output["http"]["token"] == "Bearer ***"
    (child,) = mine.api.get(f"/workflow-executions/{main}").data["children"]
    mine.executions.append(child)
    assert output["child"]["said"].split() == [token, "-", one, "-", "******"]


def test_a_journal_forgets_the_orders_of_jobs_with_secrets(mine: Mine) -> None:
    kept = {}
    for node in NODES:
        with closing(sqlite3.connect(mine.fleet.directory / "nodes" / node / "journal.db")) as journal:
            for job, status, canvas in journal.execute("SELECT job, status, canvas FROM jobs"):
                assert status == "ended"
                kept[job.split(".")[1]] = bool(json.loads(canvas)["token"])
    assert kept["process"] is kept["loop"] is kept["work"] is False
    assert kept["run"] is True


def test_each_use_is_in_the_audit_trail(mine: Mine) -> None:
    entries = mine.api.ask("GET", "/api/v1/audit?action=secret.use&limit=200", None, "admin").data["items"]
    used = [entry for entry in entries if entry["outcome"] == "accepted"]
    assert {entry["subject"] for entry in used} == {"canary/one"}
    assert {entry["person"] for entry in used} == {"operator"}
    tasks = {entry["detail"]["task"] for entry in used}
    assert tasks == {"process", "fan", "pieces", "http", "work"}
    assert {entry["detail"]["version"] for entry in used} == {1}


@pytest.mark.parametrize(
    ("users", "says"),
    [(["author"], "operator may not use the secret canary/two"), (None, "there is no secret canary/two")],
)
def test_a_secret_that_cannot_be_had_fails_the_job_before_anything_is_sent(
    mine: Mine, users: list[str] | None, says: str
) -> None:
    path = "/api/v1/secrets/canary/two"
    if users is None:
        assert mine.api.ask("DELETE", path, None, "author").status == 204
    else:
        assert mine.api.ask("PUT", path, {"value": "precious", "users": users}, "author").status == 200
    text = WORKFLOWS["long"].replace("canary/one", "canary/two").replace("canary.long", "canary.two")
    mine.api.post("/packs/canary/workflows", {"definition": text}, role="author")
    execution = mine.start("two")
    assert mine.fleet.wait_for(execution, SOON).status == "failed"
    (job,) = mine.fleet.jobs(execution)
    assert job.error == {"type": "secret", "message": says}
    assert job.dispatched_at is None


def test_a_secret_is_given_on_to_a_secret_parameter_only(mine: Mine) -> None:
    execution = mine.start("wrong")
    assert mine.fleet.wait_for(execution, SOON).status == "failed"
    error = mine.fleet.tasks(execution)["call"].error
    assert error["type"] == "child"
    assert "canary.plain may not have a secret in `one`" in error["message"]
    assert mine.api.get(f"/workflow-executions/{execution}").data["children"] == []


def test_rotation_under_a_running_fleet(mine: Mine) -> None:
    control = Control(Settings(data_dir=str(mine.fleet.directory)), mine.fleet.store)
    path = control.settings.secret_keys_path
    before = keyring.read(control.settings)

    # As an earlier rotation leaves it that was killed right after it had added its key.
    keyring.add(path)
    done = rotation.rotate(control, "admin")
    keys = keyring.read(control.settings)
    assert (done.added, done.unreadable, done.idle) == (False, 0, before.ids)
    assert keys.texts[1:] == before.texts
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text(keys.texts[0] + "\n")
    flag = mine.fleet.directory / "flag"
    flag.touch()
    execution = mine.start("again", token=mine.token, flag=str(flag))
    assert mine.fleet.wait_for(execution, SOON).status == "completed"
    assert mine.stdout(execution, "work").startswith(digest(mine.token))


def test_a_retry_after_a_rotation_has_the_value_of_before(mine: Mine) -> None:
    control = Control(Settings(data_dir=str(mine.fleet.directory)), mine.fleet.store)
    flag = mine.fleet.directory / "flag-2"
    execution = mine.start("again", token=mine.token, flag=str(flag))
    assert mine.fleet.wait_for(execution, SOON).status == "failed"
    done = rotation.rotate(control, "admin")
    assert done.added
    control.settings.secret_keys_path.write_text(keyring.read(control.settings).texts[0] + "\n")
    flag.touch()
    assert mine.api.post(f"/workflow-executions/{execution}/retry", {}).status == 202
    assert mine.fleet.wait_for(execution, SOON).status == "completed", mine.fleet.story(execution)
