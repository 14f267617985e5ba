"""Following an execution over server-sent events: rows, live output, the end, and coming back."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from api_world import World
from waiting import PATIENCE, wait_until
from werkzeug.test import TestResponse

from app.api import live as live_output
from app.transport.output import OutputWriter, connect

SLEEP = "tasks: [{name: greet, action: core.shell, input: {command: [uptime]}}]"


@pytest.fixture
def live(world: World, redis_url: str) -> Iterator[World]:
    """The world with Redis."""
    client = connect(redis_url)
    client.flushall()
    world.app.extensions["muster"].redis = client
    yield world
    client.close()


class Following:
    """An open stream, read in a thread."""

    def __init__(self, world: World, execution: str, query: str = "", **headers: str) -> None:
        self.messages: list[dict[str, Any]] = []
        self.comments: list[str] = []
        self.answer: TestResponse = world.ask(
            "GET",
            f"/api/v1/workflow-executions/{execution}/events{query}",
            "viewer",
            headers={"Accept": "text/event-stream", **headers},
            buffered=False,
        )
        assert self.answer.status_code == 200, self.answer.text
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        text = ""
        for part in self.answer.response:
            text += part.decode() if isinstance(part, bytes) else part
            *blocks, text = text.split("\n\n")
            for block in blocks:
                self._take(block)

    def _take(self, block: str) -> None:
        if block.startswith(":"):
            self.comments.append(block)
            return
        fields = dict(line.split(": ", 1) for line in block.splitlines())
        fields["data"] = json.loads(fields["data"])
        self.messages.append(fields)

    def until(self, condition: Any) -> None:
        wait_until(lambda: condition(self), lambda: self.messages)

    def end(self) -> list[dict[str, Any]]:
        """Every message, once the last one is there."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), self.messages
        self.answer.close()
        assert self.messages[-1]["event"] == "end"
        return self.messages

    def text(self, stream: str = "stdout") -> str:
        """The output, put together by its offsets."""
        pieces = [one["data"] for one in self.messages if one["event"] == "output"]
        return "".join(one["text"] for one in pieces if one["stream"] == stream)


def test_rows_as_they_come_and_the_end(world: World) -> None:
    execution = world.run(SLEEP)
    (job,) = world.open_jobs(execution)
    following = Following(world, execution)
    following.until(lambda one: one.messages)
    assert following.answer.headers["Content-Type"].startswith("text/event-stream")
    assert following.comments
    world.end(execution, job)
    messages = following.end()
    rows = world.get(f"/workflow-executions/{execution}/events")["items"]
    assert [one["data"] for one in messages[:-1]] == rows
    assert [int(one["id"]) for one in messages[:-1]] == [row["seq"] for row in rows] == [1, 2]
    assert rows[0].keys() == {"seq", "kind", "at", "log"}
    assert messages[-1]["data"] == {"status": "completed", "degraded": False}


def test_coming_back(world: World) -> None:
    execution = world.run(SLEEP)
    world.end(execution, world.open_jobs(execution)[0])
    for headers, query in (
        ({"Last-Event-ID": "1"}, ""),
        ({}, "?after=1"),
        ({"Last-Event-ID": "1"}, "?after=0"),
    ):
        messages = Following(world, execution, query, **headers).end()
        assert [one.get("id") for one in messages] == ["2", None]
    assert len(Following(world, execution, "?after=2").end()) == 1
    assert [row["seq"] for row in world.get(f"/workflow-executions/{execution}/events?after=1")["items"]] == [
        2
    ]
    assert len(world.get(f"/workflow-executions/{execution}/events?limit=1")["items"]) == 1


def test_output_comes_live_and_before_the_end_of_its_job(live: World, redis_url: str) -> None:
    execution = live.run(SLEEP)
    (job,) = live.open_jobs(execution)
    live.hold(job)
    following = Following(live, execution, "?output=1")
    content = "grüße\n".encode()
    chunks = [("stdout", 0, content[:3]), ("stdout", 3, content[3:]), ("stderr", 0, b"\xff!\n")]
    client = connect(redis_url)
    writer = OutputWriter(client, "local")
    writer.follow(job, lambda size: [chunks.pop(0)] if chunks else [])
    following.until(lambda one: one.text() == "grüße\n" and one.text("stderr"))
    assert not [
        one for one in following.messages if one["event"] == "event" and one["data"]["kind"] == "job.ended"
    ]
    writer.finish(job)
    assert writer.close()
    client.close()
    live.end(execution, job, stdout=content)
    kinds = [one["event"] for one in following.end()]
    assert kinds[-2:] == ["event", "end"]
    assert following.text() == "grüße\n"
    assert following.text("stderr") == "\ufffd!\n"
    offsets = [one["data"]["offset"] for one in following.messages if one["event"] == "output"]
    assert offsets[0] == 0
    assert following.messages[1]["data"].keys() == {"job", "task", "node", "unit", "stream", "offset", "text"}


def test_a_latecomer_gets_all_of_it_from_redis_or_from_what_was_kept(live: World, redis_url: str) -> None:
    execution = live.run(SLEEP)
    (job,) = live.open_jobs(execution)
    chunks = [("stdout", 0, b"one\n"), ("stdout", 4, b"two\n")]
    client = connect(redis_url)
    writer = OutputWriter(client, "local")
    writer.follow(job, lambda size: [chunks.pop(0)] if chunks else [])
    writer.finish(job)
    assert writer.close()
    client.close()
    live.end(execution, job, stdout=b"one\ntwo\n")
    late = Following(live, execution, "?output=1")
    late.end()
    assert late.text() == "one\ntwo\n"
    live.app.extensions["muster"].redis.flushall()
    later = Following(live, execution, "?output=1")
    later.end()
    assert later.text() == "one\ntwo\n"
    behind = Following(live, execution, "?output=1&after=2")
    behind.end()
    assert behind.text() == ""


def test_without_redis_what_was_kept_comes_at_the_end(world: World) -> None:
    execution = world.run(SLEEP)
    (job,) = world.open_jobs(execution)
    world.hold(job)
    following = Following(world, execution, "?output=1")
    following.until(lambda one: one.messages)
    world.end(execution, job, stdout=b"kept\n")
    following.end()
    assert following.text() == "kept\n"


def test_a_client_that_leaves_gives_its_seat_back(world: World) -> None:
    execution = world.run(SLEEP)
    seats = world.app.extensions["muster"].seats
    path = f"/api/v1/workflow-executions/{execution}/events"
    for _ in range(2 * world.control.settings.api_threads):
        answer = world.ask("GET", path, headers={"Accept": "text/event-stream"}, buffered=False)
        assert answer.status_code == 200
        answer.close()
    free = 0
    while seats.take():
        free += 1
    assert free == world.control.settings.api_threads - 4


def test_json_is_what_a_client_gets_that_does_not_ask_for_a_stream(world: World) -> None:
    execution = world.run(SLEEP)
    for accept in ("*/*", "application/json", "application/json, text/event-stream"):
        answer = world.ask(
            "GET", f"/api/v1/workflow-executions/{execution}/events", headers={"Accept": accept}
        )
        assert answer.mimetype == "application/json"


def test_a_job_is_listened_to_before_its_node_has_said_that_it_holds_it(live: World, redis_url: str) -> None:
    execution = live.run(SLEEP)
    (job,) = live.open_jobs(execution)
    following = Following(live, execution, "?output=1")
    following.until(lambda one: one.messages)
    chunks = [("stdout", 0, b"early\n")]
    client = connect(redis_url)
    writer = OutputWriter(client, "local")
    writer.follow(job, lambda size: [chunks.pop(0)] if chunks else [])
    following.until(lambda one: one.text() == "early\n")
    assert live.get(f"/workflow-executions/{execution}/tasks")["items"][0]["status"] == "queued"
    assert writer.close()
    client.close()
    live.end(execution, job, stdout=b"early\n")
    following.end()
    assert following.text() == "early\n"


def test_a_job_that_wrote_nothing_keeps_nobody_waiting(live: World) -> None:
    execution = live.run(SLEEP)
    (job,) = live.open_jobs(execution)
    live.hold(job)
    following = Following(live, execution, "?output=1")
    following.until(lambda one: one.messages)
    live.end(execution, job, stdout=None)
    began = time.monotonic()
    following.end()
    assert time.monotonic() - began < live_output.PATIENCE
