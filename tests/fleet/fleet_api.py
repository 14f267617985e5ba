"""The HTTP API of a test's fleet: gunicorn as in production, and a person of every role."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fleet import Fleet, free_port
from fleet_processes import BIN, Part
from waiting import wait_until

from app.services import people

ROLES = ("viewer", "operator", "approver", "author")


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    data: Any


@dataclass(frozen=True)
class Message:
    """One server-sent event, and when it came (monotonic)."""

    event: str
    id: str
    data: Any
    at: float


class Caller:
    """Asks an API that answers at `url`. `tokens` has one for each role that asks."""

    def __init__(self, url: str, tokens: dict[str, str]) -> None:
        self.url = url
        self.tokens = tokens

    def ask(self, method: str, path: str, body: Any = None, role: str = "operator", **headers: str) -> Answer:
        """One request; paths are below /api/v1 but for those of the root."""
        try:
            with self._open(method, path, body, role, headers) as answer:
                return Answer(answer.status, dict(answer.headers), json.loads(answer.read() or b"null"))
        except urllib.error.HTTPError as error:
            return Answer(error.code, dict(error.headers), json.loads(error.read()))

    def post(self, path: str, body: Any, role: str = "operator", **headers: str) -> Answer:
        return self.ask("POST", f"/api/v1{path}", body, role, **headers)

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", f"/api/v1{path}", None, "viewer", **headers)

    def _open(self, method: str, path: str, body: Any, role: str, headers: dict[str, str]) -> Any:
        data = None if body is None else json.dumps(body).encode()
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(
            self.url + path,
            data=data,
            method=method,
            headers={
                "Authorization": f"Bearer {self.tokens[role]}",
                **({"Content-Type": "application/json"} if data is not None else {}),
                **given,
            },
        )
        return urllib.request.urlopen(request, timeout=60)

    def stream(self, method: str, path: str, body: Any = None, **headers: str) -> Iterator[Message]:
        """The events of a stream as they come; closing the generator closes the connection."""
        answer = self._open(method, path, body, "operator", headers)
        with answer:
            assert answer.headers["Content-Type"].startswith("text/event-stream"), answer.headers
            fields: dict[str, str] = {}
            for line in answer:
                text = line.decode().rstrip("\n")
                if text and not text.startswith(":"):
                    name, _, value = text.partition(": ")
                    fields[name] = value
                elif not text and "event" in fields:
                    data = json.loads(fields["data"])
                    yield Message(fields["event"], fields.get("id", ""), data, time.monotonic())
                    fields = {}


class Api(Caller):
    """`Api(fleet)` starts it, on a port of the kernel's choosing if none is said; the fleet's keeper ends it."""

    def __init__(self, fleet: Fleet, port: int = 0) -> None:
        self.fleet = fleet
        admin = people.bootstrap_admin(fleet.store, time.time())
        assert admin is not None
        tokens = {"admin": admin}
        for role in ROLES:
            people.create_user(fleet.control, role, role, "admin")
            tokens[role] = people.create_token(fleet.control, role, "", None, "admin").token
        port = port or free_port()
        super().__init__(f"http://127.0.0.1:{port}", tokens)
        command = [str(BIN / "gunicorn"), "app.api:create_app()", "--bind", f"127.0.0.1:{port}"]
        command += ["--worker-class", "gthread", "--threads", "16", "--timeout", "60", "--no-control-socket"]
        log = fleet.directory / "api.log"
        fleet.keeper.add(Part("api", command, fleet.environment(), log))
        wait_until(self._answers, lambda: fleet.log("api"))

    def _answers(self) -> bool:
        try:
            return self.ask("GET", "/version", role="viewer").status == 200
        except OSError:
            return False
