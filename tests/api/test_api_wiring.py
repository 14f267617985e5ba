"""The API as it is started: from settings alone, with a real broker or with none."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from api_world import HELLO, World
from waiting import wait_until

from app.api import create_app
from app.transport.output import connect


@contextmanager
def started(world: World, **settings: Any) -> Iterator[World]:
    """The API of the same installation, made as a process makes it."""
    app = create_app(replace(world.control.settings, **settings))
    yield World(world.control, app, world.tokens)
    control = app.extensions["muster"].control
    control.nudge.close(20)
    control.store.close()


def test_a_submit_nudges_control_over_the_broker(world: World, redis_url: str) -> None:
    client = connect(redis_url)
    client.flushall()
    with started(world, redis_url=redis_url) as api:
        execution = api.run()
        wait_until(lambda: client.llen("control"), "a nudge")
        headers = json.loads(client.lindex("control", 0))["headers"]
        assert headers["task"] == "control.settle"
        assert execution not in str(headers)
        ready = api.ask("GET", "/readyz", "viewer")
        assert (ready.status_code, ready.get_json()["checks"]) == (
            200,
            {"database": "ok", "redis": "ok", "allowlist": "ok"},
        )
    client.close()


def test_nudges_that_come_close_together_all_arrive(world: World, redis_url: str) -> None:
    client = connect(redis_url)
    client.flushall()
    with started(world, redis_url=redis_url) as api:
        made = {api.run() for _ in range(30)}
        wait_until(lambda: client.llen("control") == len(made), "every nudge")
        bodies = [
            json.loads(base64.b64decode(json.loads(one)["body"])) for one in client.lrange("control", 0, -1)
        ]
        assert {body[0][0] for body in bodies} == made
    client.close()


def test_without_a_broker_an_execution_is_kept_all_the_same(world: World) -> None:
    with started(world, redis_url="redis://127.0.0.1:1/0") as api:
        begun = time.monotonic()
        made = [api.run(HELLO) for _ in range(20)]
        assert time.monotonic() - begun < 60
    assert world.counts()["executions"] == len(set(made)) == 20


def test_the_routes_are_shown_as_typed(tmp_path: Path) -> None:
    given = {name: value for name, value in os.environ.items() if not name.startswith("MUSTER_")}
    done = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "app.api", "routes"],
        env={**given, "MUSTER_DATA_DIR": str(tmp_path)},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "/api/v1/workflow-executions" in done.stdout
