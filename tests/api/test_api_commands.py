"""One command on a node or on many, where the nodes are played: what is made of it, waited for and streamed."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from api_world import World
from sqlalchemy import Connection, select, update
from waiting import PATIENCE, wait_until
from werkzeug.test import TestResponse

from app.engine.status import JOB_OVER
from app.services import history
from app.store.tables import Job, Output, StoredPlan, table
from app.transport.ends import Ends
from app.transport.output import OutputWriter, connect

jobs, outputs, plans = table(Job), table(Output), table(StoredPlan)
EXECUTE = "/nodes/web-1/execute"
FIELDS = {
    "node_id",
    "execution",
    "status",
    "exit_code",
    "stdout",
    "stderr",
    "truncated",
    "error",
    "started_at",
    "completed_at",
}


@pytest.fixture
def live(world: World, redis_url: str) -> Iterator[World]:
    """The world with Redis and two more nodes."""
    client = connect(redis_url)
    client.flushall()
    world.app.extensions["muster"].redis = client
    for name in ("web-1", "web-2"):
        world.add_node(name, labels={"role": "web"}, shells=["sh", "bash", "python"])
    yield world
    client.close()


def start(world: World, body: dict[str, Any], path: str = f"{EXECUTE}?wait=0", **options: Any) -> str:
    """The id of a command's execution."""
    answer = world.post(path, body, "operator", **options)
    assert answer.status_code in (201, 202), answer.text
    found = answer.get_json()
    return str(found.get("execution") or found["id"])


def task_of(world: World, execution: str) -> dict[str, Any]:
    """The task of the plan that an execution pins."""
    with world.control.store.read() as connection:
        body = connection.execute(select(plans.c.body).order_by(plans.c.used_at.desc())).scalars().first()
    found: dict[str, Any] = json.loads(str(body))["tasks"][0]
    assert world.get(f"/workflow-executions/{execution}")["workflow"] == "adhoc.command"
    return found


BRACES = "docker ps --format '{{.Names}} {{ task.x.result }} {% raw %}' # {{"


@pytest.mark.parametrize(
    ("body", "action", "given"),
    [
        ({"command": ["echo", BRACES]}, "core.shell", {"command": ["echo", BRACES]}),
        ({"command": BRACES}, "core.script", {"script": BRACES, "shell": "sh"}),
        ({"script": BRACES, "language": "python"}, "core.script", {"script": BRACES, "shell": "python"}),
        (
            {"command": ["cat"], "cwd": "/tmp", "stdin": "{{ x }}"},
            "core.shell",
            {"command": ["cat"], "cwd": "/tmp", "stdin": "{{ x }}"},
        ),
    ],
    ids=["argv", "text", "script", "more"],
)
def test_what_is_run_is_what_was_sent_whatever_braces_it_has(
    live: World, body: dict[str, Any], action: str, given: dict[str, Any]
) -> None:
    task = task_of(live, start(live, {**body, "timeout": 7}))
    assert (task["action"], task["input"], task["timeout"]) == (action, given, 7)
    assert sorted(task["literal"]) == sorted(given)
    assert task["delegate_to"] == "web-1"


def test_the_time_that_a_command_may_take_has_a_default(live: World) -> None:
    assert task_of(live, start(live, {"command": ["id"]}))["timeout"] == 300


def test_an_answer_that_waits_has_the_result_with_every_byte(live: World, redis_url: str) -> None:
    content = b"first\nlast\n\n"
    answers: list[TestResponse] = []
    asking = threading.Thread(
        target=lambda: answers.append(live.post(EXECUTE, {"command": ["id"]}, "operator"))
    )
    asking.start()
    execution, job = wait_for_job(live)
    live.end(execution, job, status="failed", stdout=content, code=3)
    set_verified(live, job)
    client = connect(redis_url)
    Ends(client).tell(execution)
    client.close()
    asking.join(PATIENCE)
    answer = answers[0]
    found = answer.get_json()
    assert (answer.status_code, found.keys()) == (200, FIELDS)
    assert found["node_id"] == "web-1"
    assert (found["status"], found["exit_code"], found["truncated"]) == ("failed", 3, False)
    assert (found["stdout"], found["stderr"]) == (content.decode(), "")
    assert answer.headers["Location"] == f"/api/v1/workflow-executions/{execution}"


def wait_for_job(world: World) -> tuple[str, str]:
    """The execution and id of the only job that is open, once there is one."""

    def one() -> Any:
        with world.control.store.read() as connection:
            return connection.execute(select(jobs).where(jobs.c.status.not_in(JOB_OVER))).first()

    row = wait_until(one, "an open job")
    return row.execution, row.id


def set_verified(world: World, job: str, *, verified: bool = True) -> None:
    with world.control.store.write() as connection:
        connection.execute(update(Output).where(outputs.c.job == job).values(verified=verified))


def test_what_a_timeout_ended_has_no_exit_code(live: World) -> None:
    execution = start(live, {"command": ["sleep", "9"]})
    live.end(execution, live.open_jobs(execution)[0], status="timed_out", code=143)
    found = live.get(f"{EXECUTE}/{execution}")
    assert (found["status"], found["exit_code"]) == ("timed_out", None)


@pytest.mark.parametrize(
    ("query", "headers"),
    [("?wait=0.2", {}), ("", {"Prefer": "respond-async, wait=0"}), ("?wait=0.1", {"Prefer": "wait=60"})],
    ids=["query", "preference", "both"],
)
def test_a_wait_that_is_over_answers_with_202_and_where_to_look(
    live: World, query: str, headers: dict[str, str]
) -> None:
    began = time.monotonic()
    answer = live.post(f"{EXECUTE}{query}", {"command": ["sleep", "9"]}, "operator", headers=headers)
    assert time.monotonic() - began < 45
    found = answer.get_json()
    assert answer.status_code == 202
    assert answer.headers["Location"].endswith(f"/workflow-executions/{found['execution']}")
    assert (found["status"], found["exit_code"], found["completed_at"]) == ("queued", None, None)
    later = live.ask("GET", f"/api/v1{EXECUTE}/{found['execution']}", "viewer")
    assert later.status_code == 202
    live.end(found["execution"], live.open_jobs(found["execution"])[0])
    assert live.get(f"{EXECUTE}/{found['execution']}")["status"] == "succeeded"


def test_without_a_seat_the_answer_does_not_wait_and_a_stream_leaves_nothing_behind(live: World) -> None:
    seats = live.app.extensions["muster"].seats
    taken = 0
    while seats.take():
        taken += 1
    before = live.counts()
    refused = live.post(EXECUTE, {"command": ["id"], "stream_output": True}, "operator")
    assert (refused.status_code, refused.get_json()["code"]) == (503, "busy")
    assert live.counts() == before
    assert live.post(EXECUTE, {"command": ["id"]}, "operator").status_code == 202
    for _ in range(taken):
        seats.give_back()


def test_a_refused_command_gives_its_seat_back(live: World) -> None:
    body = {"command": ["id"], "stream_output": True}
    key = {"Idempotency-Key": "k"}
    live.post(EXECUTE, {"command": ["id"]}, "operator", headers=key, query_string={"wait": 0})
    for _ in range(2 * live.control.settings.api_threads):
        assert live.post(EXECUTE, body, "operator", headers=key).status_code == 409
    assert live.app.extensions["muster"].seats.take()


def test_one_key_makes_one_command(live: World) -> None:
    headers = {"Idempotency-Key": "k1"}
    execution = start(live, {"command": ["id"]}, headers=headers)
    again = live.post(f"{EXECUTE}?wait=0", {"command": ["id"]}, "operator", headers=headers)
    assert again.get_json()["execution"] == execution
    assert again.headers["Idempotent-Replay"] == "true"
    other = live.post("/nodes/web-2/execute?wait=0", {"command": ["id"]}, "operator", headers=headers)
    assert (other.status_code, other.get_json()["code"]) == (409, "idempotency-key-reused")


def test_a_result_is_found_only_at_its_own_node_and_only_of_commands(live: World) -> None:
    execution = start(live, {"command": ["id"]})
    workflow = live.run()
    for path in (f"/nodes/web-2/execute/{execution}", f"/nodes/local/execute/{workflow}"):
        answer = live.ask("GET", f"/api/v1{path}", "viewer")
        assert (answer.status_code, answer.get_json()["code"]) == (404, "unknown-execution")


def test_on_many_nodes_unknown_ones_are_rows_where_that_is_allowed(live: World) -> None:
    body = {"nodes": ["web-1", "nope", "web-2"], "command": ["id"], "allow_unknown": True, "batch": [2]}
    execution = start(live, body, "/nodes/execute")
    rows = live.get(f"/workflow-executions/{execution}/tasks")["items"]
    assert [(row["node"], row["status"]) for row in rows][:2] == [("web-1", "queued"), ("nope", "failed")]
    assert rows[1]["error"]["type"] == "unknown_node"
    task = task_of(live, execution)
    assert (task["kind"], task["input"]["batch"], task["input"]["timeout"]) == ("fanout", [2], 300)


def test_a_thousand_nodes_of_which_half_do_not_exist_hide_nothing(live: World) -> None:
    for number in range(500):
        live.add_node(f"n-{number}")
    names = [f"n-{number}" for number in range(1000)]
    execution = start(
        live,
        {"nodes": names, "command": ["id"], "allow_unknown": True, "max_failures": 500},
        "/nodes/execute",
    )
    rows = live.get(f"/workflow-executions/{execution}/tasks")["items"]
    assert [row["node"] for row in rows] == names
    assert [row["status"] for row in rows] == ["queued"] * 500 + ["failed"] * 500


def test_by_labels(live: World) -> None:
    body = {"labels": {"role": "web"}, "script": "id", "language": "bash"}
    execution = start(live, body, "/nodes/execute")
    rows = live.get(f"/workflow-executions/{execution}/tasks")["items"]
    assert [row["node"] for row in rows] == ["web-1", "web-2"]


class Streaming:
    """An open stream of a command, read in a thread."""

    def __init__(self, answer: TestResponse) -> None:
        assert answer.status_code == 200, answer.text
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        self.messages: list[tuple[str, str, dict[str, Any]]] = []
        self._answer = answer
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        text = ""
        for part in self._answer.response:
            text += part.decode() if isinstance(part, bytes) else part
            *blocks, text = text.split("\n\n")
            for block in blocks:
                if not block.startswith(":"):
                    fields = dict(line.split(": ", 1) for line in block.splitlines())
                    self.messages.append((fields["event"], fields.get("id", ""), json.loads(fields["data"])))

    def until(self, count: int) -> None:
        wait_until(lambda: len(self.messages) >= count, lambda: self.messages)

    def end(self) -> list[tuple[str, str, dict[str, Any]]]:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), self.messages
        self._answer.close()
        assert self.messages[-1][0] == "end"
        return self.messages


def streaming(world: World, **body: Any) -> Streaming:
    body = {"command": ["id"], "stream_output": True, **body}
    return Streaming(world.post(EXECUTE, body, "operator", buffered=False))


def coming_back(world: World, path: str, last: str) -> Streaming:
    headers = {"Accept": "text/event-stream", "Last-Event-ID": last}
    return Streaming(world.ask("GET", path, "viewer", headers=headers, buffered=False))


def speak(redis_url: str, job: str, *chunks: tuple[str, int, bytes], end: bool = False) -> None:
    """As the node writes live output."""
    client = connect(redis_url)
    left = list(chunks)
    writer = OutputWriter(client, "web-1")
    writer.follow(job, lambda size: [left.pop(0)] if left else [])
    if end:
        writer.finish(job)
    assert writer.close()
    client.close()


def test_a_stream_has_both_outputs_apart_with_numbers_and_the_result(live: World, redis_url: str) -> None:
    stream = streaming(live)
    stream.until(1)
    event, id_, started = stream.messages[0]
    assert (event, id_) == ("started", "1-0-0")
    assert started["resume"] == f"/api/v1{EXECUTE}/{started['execution']}"
    grumble = "grüße\n".encode()
    pieces = [("stdout", 0, grumble[:3]), ("stderr", 0, b"oh\n"), ("stdout", 3, grumble[3:])]
    speak(redis_url, started["job"], *pieces, end=True)
    stream.until(4)
    live.end(started["execution"], started["job"], stdout=grumble)
    set_verified(live, started["job"])
    messages = stream.end()
    assert [event for event, _, _ in messages] == ["started", "stdout", "stderr", "stdout", "result", "end"]
    # Half a character is not told before its rest has come.
    assert [id_ for _, id_, _ in messages[:-1]] == ["1-0-0", "2-2-0", "3-2-3", "4-8-3", "5-8-3"]
    assert [data["seq"] for _, _, data in messages[:-1]] == [1, 2, 3, 4, 5]
    assert [(data["offset"], data["text"]) for _, _, data in messages[1:4]] == [
        (0, "gr"),
        (0, "oh\n"),
        (2, "üße\n"),
    ]
    assert messages[4][2].keys() == FIELDS | {"seq"}
    assert messages[4][2]["stdout"] == "grüße\n"
    assert messages[5][2] == {"status": "completed", "degraded": False}


@pytest.mark.parametrize("is_kept_in_redis", [True, False], ids=["from redis", "from the rows"])
def test_a_client_that_comes_back_goes_on_exactly_there(
    live: World, redis_url: str, is_kept_in_redis: bool
) -> None:
    execution = start(live, {"command": ["id"]})
    (job,) = live.open_jobs(execution)
    speak(redis_url, job, ("stdout", 0, b"one\ntwo\n"), ("stdout", 8, b"three\n"), end=True)
    live.end(execution, job, stdout=b"one\ntwo\nthree\n")
    set_verified(live, job)
    if not is_kept_in_redis:
        live.app.extensions["muster"].redis.flushall()
    whole = coming_back(live, f"/api/v1{EXECUTE}/{execution}", "0-0-0").end()
    assert whole[0][0] == "started"
    assert "".join(data["text"] for event, _, data in whole if event == "stdout") == "one\ntwo\nthree\n"
    behind = coming_back(live, f"/api/v1{EXECUTE}/{execution}", "7-4-0").end()
    texts = [(id_, data["offset"], data["text"]) for event, id_, data in behind if event == "stdout"]
    assert texts[0][:2] == (f"8-{8 if is_kept_in_redis else 14}-0", 4)
    assert "".join(text for _, _, text in texts) == "two\nthree\n"
    at_the_end = coming_back(live, f"/api/v1{EXECUTE}/{execution}", "9-14-0").end()
    assert [event for event, _, _ in at_the_end] == ["result", "end"]


@pytest.mark.parametrize("last", ["7", "1-2", "a-b-c", "1-2-3-4", "-1-0-0", "9" * 40 + "-0-0"])
def test_an_id_that_is_none_is_refused(live: World, last: str) -> None:
    execution = start(live, {"command": ["id"]})
    headers = {"Accept": "text/event-stream", "Last-Event-ID": last}
    answer = live.ask("GET", f"/api/v1{EXECUTE}/{execution}", "viewer", headers=headers)
    assert (answer.status_code, answer.get_json()["code"]) == (422, "bad-event-id")


def test_output_that_is_not_stored_yet_is_waited_for(live: World, redis_url: str) -> None:
    execution = start(live, {"command": ["id"]})
    (job,) = live.open_jobs(execution)
    live.end(execution, job, stdout=b"late\n")
    set_verified(live, job, verified=False)
    assert live.get(f"{EXECUTE}/{execution}")["truncated"] is True
    stream = coming_back(live, f"/api/v1{EXECUTE}/{execution}", "0-0-0")
    stream.until(1)
    set_verified(live, job)
    messages = stream.end()
    assert [event for event, _, _ in messages] == ["started", "stdout", "result", "end"]
    assert messages[2][2]["truncated"] is False


def test_output_that_is_stored_between_two_looks_is_told_before_the_result(
    live: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution = start(live, {"command": ["id"]})
    (job,) = live.open_jobs(execution)
    live.end(execution, job, stdout=b"late\n")
    set_verified(live, job, verified=False)
    look = history.kept_output

    def overtaken(connection: Connection, of: str) -> history.Kept:
        found = look(connection, of)
        set_verified(live, job)
        return found

    monkeypatch.setattr(history, "kept_output", overtaken)
    messages = coming_back(live, f"/api/v1{EXECUTE}/{execution}", "0-0-0").end()
    assert [event for event, _, _ in messages] == ["started", "stdout", "result", "end"]


def test_a_client_that_leaves_cancels_nothing_and_gives_its_seat_back(live: World) -> None:
    for _ in range(2 * live.control.settings.api_threads):
        answer = live.post(EXECUTE, {"command": ["id"], "stream_output": True}, "operator", buffered=False)
        assert answer.status_code == 200
        answer.close()
    executions = live.get("/workflow-executions")["items"]
    assert {row["intent"] for row in executions} == {"run"}


def test_without_redis_the_result_still_comes(world: World) -> None:
    world.add_node("web-1")
    stream = streaming(world)
    stream.until(1)
    started = stream.messages[0][2]
    world.end(started["execution"], started["job"], stdout=b"kept\n")
    set_verified(world, started["job"])
    assert [event for event, _, _ in stream.end()] == ["started", "stdout", "result", "end"]
