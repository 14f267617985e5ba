"""The API over a real database, and a stand-in for the nodes: jobs end when a test says so."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import func, insert, select, update
from werkzeug.test import TestResponse

from app.api import create_app
from app.engine.status import JOB_OVER
from app.services import installation, people, rotation
from app.services.control import Control
from app.services.run import Run
from app.settings import Settings
from app.store.db import Store
from app.store.tables import Base, Job, Node, Output, table

jobs, outputs = table(Job), table(Output)

ROLES = ("viewer", "operator", "approver", "author", "admin")

HELLO = """\
ref: demo.hello
label: Hello
version: "1.0"
parameters:
  name: {type: string, default: world}
  password: {type: secret}
tasks:
  - name: greet
    action: core.shell
    input: {command: "echo hello {{ parameters.name }}"}
    publish:
      - greeting: "{{ task.greet.result.stdout }}"
    on_success: [after]
    on_failure: [mend]
  - name: after
    action: core.noop
  - name: mend
    action: core.noop
output_map:
  said: "{{ vars.greeting }}"
"""

FANOUT = """\
ref: demo.fanout
tasks:
  - name: spread
    type: distributed_shell
    input:
      command: [uptime]
      nodes: [web-1, web-2, web-3]
      batch: 2
"""


@dataclass
class World:
    """One installation with a person of every role."""

    control: Control
    app: Flask
    tokens: dict[str, str]
    nudged: list[str] = field(default_factory=list)

    @property
    def client(self) -> FlaskClient:
        return self.app.test_client()

    def ask(self, method: str, path: str, role: str = "admin", **options: Any) -> TestResponse:
        """A request by a person of this role; "" for nobody."""
        headers = dict(options.pop("headers", {}))
        if role:
            headers.setdefault("Authorization", f"Bearer {self.tokens[role]}")
        return self.client.open(path, method=method, headers=headers, **options)

    def get(self, path: str, role: str = "viewer", **options: Any) -> Any:
        """The JSON at a path under /api/v1, which must be there."""
        answer = self.ask("GET", f"/api/v1{path}", role, **options)
        assert answer.status_code == 200, answer.text
        return answer.get_json()

    def post(self, path: str, body: Any, role: str = "admin", **options: Any) -> TestResponse:
        return self.ask("POST", f"/api/v1{path}", role, json=body, **options)

    def run(self, definition: str = HELLO, **parameters: Any) -> str:
        """The id of a new execution."""
        answer = self.post("/workflow-executions", {"definition": definition, "parameters": parameters})
        assert answer.status_code == 201, answer.text
        return str(answer.get_json()["id"])

    def counts(self) -> dict[str, int]:
        """Rows of every table but the audit trail's, which also keeps refusals."""
        with self.control.store.read() as connection:
            return {
                name: connection.execute(select(func.count()).select_from(one)).scalar_one()
                for name, one in Base.metadata.tables.items()
                if name != "audit_entries"
            }

    def open_jobs(self, execution: str) -> list[str]:
        query = select(jobs.c.id).where(jobs.c.execution == execution, jobs.c.status.not_in(JOB_OVER))
        with self.control.store.read() as connection:
            return list(connection.execute(query.order_by(jobs.c.id)).scalars())

    def hold(self, job: str) -> None:
        """As if a node had said that it runs the job."""
        self._set(job, status="running", dispatched_at=time.time(), started_at=time.time())

    def set_unknown(self, job: str) -> None:
        self._set(job, status="unknown")

    def end(
        self,
        execution: str,
        job: str,
        *,
        status: str = "succeeded",
        stdout: bytes | None = b"",
        code: int = 0,
    ) -> None:
        """As if the job's outcome had been collected, and settled; with None it wrote nothing at all."""
        now = time.time()
        text = (stdout or b"").decode("utf-8", "replace").rstrip("\n")
        result = {"exit_code": code, "stdout": text, "stderr": ""}
        error = None if status == "succeeded" else {"type": "exit", "message": f"exit code {code}"}
        self._set(
            job,
            status=status,
            exit_code=code,
            result=result,
            error=error,
            dispatched_at=now - 2,
            started_at=now - 1.5,
            ended_at=now,
        )
        with self.control.store.write() as connection:
            for stream, content in () if stdout is None else (("stdout", stdout), ("stderr", b"")):
                connection.execute(insert(Output), _kept(execution, job, stream, content))
            Run.lock(self.control, connection, execution).settle()

    def _set(self, job: str, **columns: Any) -> None:
        with self.control.store.write() as connection:
            connection.execute(update(Job).where(jobs.c.id == job).values(columns))

    def add_node(self, name: str, **columns: Any) -> None:
        values = {
            "name": name,
            "public_keys": {},
            "sign_kid": name,
            "shells": ["sh", "bash"],
            "slots": 4,
            "free": 4,
            "enrolled_at": time.time(),
            "last_seen": time.time(),
        }
        with self.control.store.write() as connection:
            connection.execute(insert(Node), {**values, **columns})


def _kept(execution: str, job: str, stream: str, content: bytes) -> Mapping[str, Any]:
    return {
        "job": job,
        "stream": stream,
        "execution": execution,
        "bytes": len(content),
        "kept": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "content": content,
    }


def build(url: str, directory: Path, **settings: Any) -> World:
    """A world over a migrated, empty database."""
    given = Settings(
        data_dir=str(directory),
        database_url=url,
        redis_url="redis://127.0.0.1:1/0",
        api_threads=8,
        allowlist_mode="off",
    )
    nudged: list[str] = []
    control = Control(replace(given, **settings), Store(url), nudged.extend)
    installation.ensure(control.store, str(directory), time.time())
    rotation.ensure(control)
    admin = people.bootstrap_admin(control.store, time.time())
    assert admin is not None
    tokens = {"admin": admin}
    for role in ROLES[:-1]:
        people.create_user(control, role, role, "admin")
        tokens[role] = people.create_token(control, role, "", None, "admin").token
    world = World(control, create_app(control=control), tokens, nudged)
    world.add_node("local")
    return world
