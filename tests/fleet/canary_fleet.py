"""A fleet with secrets, and everything where others could find them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import secrets as random
import socket
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml
from fleet import Fleet
from fleet_api import Api
from fleet_processes import Part
from sqlalchemy import select
from waiting import wait_until

from app.store.tables import Base

WORKFLOWS: dict[str, str] = yaml.safe_load((Path(__file__).parent / "canary.yaml").read_text())
NODES = ("local", "web-1", "web-2")


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


@contextmanager
def running() -> Iterator[Mine]:
    """The fleet with an API, Flower and a server that says back what it hears."""
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
        wait_until(lambda: _flower(found, "/api/tasks") is not None, lambda: fleet.log("flower"))
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
