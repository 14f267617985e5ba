"""Executions from the outside: started, looked at while they go, cancelled, resolved, replayed."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path

import api_world
import pytest
from api_world import FANOUT, HELLO, World
from sqlalchemy import event

EXECUTION = "/workflow-executions"
PLAIN = "tasks: [{name: greet, action: core.shell, input: {command: [uptime]}}]"


def test_an_execution_from_start_to_end(world: World) -> None:
    answer = world.post(
        EXECUTION, {"definition": HELLO, "parameters": {"name": "moon", "password": "s3cret"}}
    )
    assert answer.status_code == 201
    started = answer.get_json()
    assert answer.headers["Location"] == f"/api/v1{EXECUTION}/{started['id']}"
    assert started["status"] in ("scheduling", "running")
    assert started["current_tasks"] == ["greet"]
    assert started["parameters"] == {"name": "moon", "password": "secretref:parameter:password"}
    assert started["requester"] == "admin"
    assert world.nudged == [started["id"]]

    assert started == world.get(f"{EXECUTION}/{started['id']}")

    (job,) = world.open_jobs(started["id"])
    world.hold(job)
    world.end(started["id"], job, stdout=b"hello moon\n")

    found = world.get(f"{EXECUTION}/{started['id']}")
    assert (found["status"], found["degraded"]) == ("completed", False)
    assert found["completed_tasks"] == ["greet", "after"]
    assert found["variables"] == {"greeting": "hello moon"}
    assert found["output"] == {"said": "hello moon"}
    assert {"to": "after", "on": "on_success"} in found["task_graph"]["greet"]
    for moment in ("created_at", "started_at", "ended_at"):
        assert datetime.fromisoformat(found[moment]).utcoffset() == timedelta(0)
    assert "s3cret" not in answer.text + str(found)


def test_a_task_without_jobs_has_one_row(world: World) -> None:
    execution = world.run()
    (job,) = world.open_jobs(execution)
    world.end(execution, job, status="failed", code=3)
    rows = {row["task"]: row for row in world.get(f"{EXECUTION}/{execution}/tasks")["items"]}
    assert list(rows) == ["greet", "after", "mend"]
    greet = rows["greet"]
    assert (greet["status"], greet["exit_code"], greet["attempt"], greet["node"]) == ("failed", 3, 1, "local")
    assert greet["job"] == job
    assert greet["error"]["type"] == "exit"
    assert greet["duration"] == pytest.approx(1.5, abs=0.1)
    assert (rows["after"]["status"], rows["after"]["job"]) == ("not_reached", None)
    assert rows["mend"]["status"] == "succeeded"
    assert world.get(f"{EXECUTION}/{execution}")["degraded"] is True


def test_a_fanout_has_a_row_for_every_node(world: World) -> None:
    for name in ("web-1", "web-2", "web-3"):
        world.add_node(name)
    execution = world.run(FANOUT)
    first, second = world.open_jobs(execution)
    world.hold(first)
    rows = world.get(f"{EXECUTION}/{execution}/tasks")["items"]
    assert [(row["node"], row["unit"], row["status"]) for row in rows] == [
        ("web-1", 0, "running"),
        ("web-2", 1, "queued"),
        ("web-3", 2, "pending"),
    ]
    world.end(execution, first, status="failed", code=1)
    world.end(execution, second)
    rows = world.get(f"{EXECUTION}/{execution}/tasks")["items"]
    assert [row["status"] for row in rows] == ["failed", "succeeded", "not_reached"]


def test_the_list_pages_without_losing_or_repeating(world: World) -> None:
    made = [world.run() for _ in range(7)]
    seen: list[str] = []
    cursor = None
    while True:
        query = {"limit": 3} | ({"cursor": cursor} if cursor else {})
        page = world.get(EXECUTION, query_string=query)
        seen += [item["id"] for item in page["items"]]
        made.append(world.run())
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == sorted(made[:7], reverse=True)


def test_the_list_filters_and_links(world: World) -> None:
    running = world.run()
    over = world.run()
    world.end(over, world.open_jobs(over)[0])
    assert [one["id"] for one in world.get(f"{EXECUTION}?status=completed")["items"]] == [over]
    assert [one["id"] for one in world.get(f"{EXECUTION}?status=running,scheduling")["items"]] == [running]
    assert len(world.get(f"{EXECUTION}?workflow=demo.hello")["items"]) == 2
    assert world.get(f"{EXECUTION}?workflow=demo.other")["items"] == []
    assert len(world.get("/workflows/demo.hello/executions")["items"]) == 2
    answer = world.ask("GET", f"/api/v1{EXECUTION}?limit=1&workflow=demo.hello")
    following = answer.headers["Link"].partition(">")[0].lstrip("<")
    assert [one["id"] for one in world.ask("GET", following).get_json()["items"]] == [running]


def test_cancel(world: World) -> None:
    execution = world.run()
    first = world.post(f"{EXECUTION}/{execution}/cancel", {"reason": "wrong one"}, "operator")
    assert first.status_code == 202
    if first.get_json()["status"] != "cancelled":
        again = world.post(f"{EXECUTION}/{execution}/cancel", {}, "operator")
        assert again.status_code in (202, 409)
    over = world.run()
    world.end(over, world.open_jobs(over)[0])
    refused = world.post(f"{EXECUTION}/{over}/cancel", {}, "operator")
    assert (refused.status_code, refused.get_json()["code"]) == (409, "execution-over")


def test_resolve(world: World) -> None:
    execution = world.run(PLAIN)
    (job,) = world.open_jobs(execution)
    path = f"{EXECUTION}/{execution}/tasks/greet/resolve"
    refused = world.post(path, {"outcome": "succeeded", "reason": "I saw it"}, "operator")
    assert refused.status_code == 409
    world.set_unknown(job)
    assert world.post(path, {"outcome": "succeeded"}, "operator").status_code == 422
    done = world.post(path, {"outcome": "succeeded", "reason": "I saw it"}, "operator")
    assert done.status_code == 202
    assert world.get(f"{EXECUTION}/{execution}/tasks")["items"][0]["status"] == "succeeded"


def test_output(world: World) -> None:
    execution = world.run()
    (job,) = world.open_jobs(execution)
    world.end(execution, job, stdout=b"caf\xc3\xa9 \xff\x1b[31m\n")
    items = world.get(f"{EXECUTION}/{execution}/output?stream=stdout")["items"]
    assert [(one["job"], one["node"], one["bytes"], one["text"]) for one in items] == [
        (job, "local", 13, "café \\xff\x1b[31m\n")
    ]
    assert len(world.get(f"{EXECUTION}/{execution}/output")["items"]) == 2
    (digest,) = world.get(f"{EXECUTION}/{execution}/output?stream=stdout&text=0")["items"]
    assert digest == {**items[0], "text": None}
    assert len(digest["sha256"]) == 64
    assert world.get(f"{EXECUTION}/{execution}/output?task=after")["items"] == []
    raw = world.ask("GET", f"/api/v1{EXECUTION}/{execution}/jobs/{job}/output/stdout")
    assert raw.data == b"caf\xc3\xa9 \xff\x1b[31m\n"
    assert raw.headers["Content-Type"] == "application/octet-stream"
    assert raw.headers["Content-Disposition"].startswith("attachment")
    assert raw.headers["X-Content-Type-Options"] == "nosniff"
    assert world.ask("GET", f"/api/v1{EXECUTION}/{execution}/jobs/{job}.9/output/stdout").status_code == 404


def test_large_output_comes_in_pages(world: World) -> None:
    for name in ("web-1", "web-2", "web-3"):
        world.add_node(name)
    execution = world.run(FANOUT)
    while left := world.open_jobs(execution):
        world.end(execution, left[0], stdout=b"x" * 3_500_000)
    path = f"{EXECUTION}/{execution}/output"
    first = world.get(path)
    second = world.get(path, query_string={"cursor": first["next_cursor"]})
    streams = [(one["unit"], one["stream"]) for one in first["items"] + second["items"]]
    assert streams == [(unit, stream) for unit in range(3) for stream in ("stderr", "stdout")]
    assert sum(len(one["text"]) for one in first["items"]) == 7_000_000
    assert second["next_cursor"] is None


def test_reads_take_a_bounded_number_of_statements(world: World) -> None:
    for name in ("web-1", "web-2", "web-3"):
        world.add_node(name)
    execution = world.run(FANOUT)
    while left := world.open_jobs(execution):
        world.end(execution, left[0], stdout=b"x")
    statements: list[str] = []

    @event.listens_for(world.control.store.engine, "before_cursor_execute")
    def _count(connection: object, cursor: object, statement: str, *rest: object) -> None:
        statements.append(statement)

    one = f"{EXECUTION}/{execution}"
    for path in ("/nodes", one, f"{one}/tasks", f"{one}/output", f"{one}/events", EXECUTION, "/packs"):
        statements.clear()
        world.get(path)
        assert len([text for text in statements if "SELECT" in text]) <= 6, (path, statements)


def test_an_idempotency_key_makes_one_execution(world: World) -> None:
    body = {"definition": HELLO, "parameters": {}}
    headers = {"Idempotency-Key": "k-1"}
    first = world.post(EXECUTION, body, headers=headers)
    second = world.post(EXECUTION, dict(reversed(body.items())), headers=headers)
    assert (first.status_code, second.status_code) == (201, 200)
    assert "Idempotent-Replay" not in first.headers
    assert second.headers["Idempotent-Replay"] == "true"
    assert first.get_json()["id"] == second.get_json()["id"]
    other = world.post(EXECUTION, {**body, "parameters": {"name": "mars"}}, headers=headers)
    assert other.status_code == 409
    assert world.post(EXECUTION, body, "author", headers=headers).status_code == 201
    assert world.counts()["executions"] == 2


def test_100_threads_with_one_key_make_one_execution(world: World) -> None:
    world.ask("POST", "/api/v1/packs/demo/workflows", data=HELLO, content_type="application/yaml")
    start = threading.Barrier(100)
    answers: list[tuple[int, str]] = []

    def post() -> None:
        start.wait()
        answer = world.post(
            "/workflows/demo.hello/execute", {"parameters": {"name": "x"}}, headers={"Idempotency-Key": "one"}
        )
        answers.append((answer.status_code, answer.get_json().get("id", answer.text)))

    threads = [threading.Thread(target=post) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(status for status, _ in answers) == {201: 1, 200: 99}
    assert len({id_ for _, id_ in answers}) == 1
    counts = world.counts()
    assert (counts["executions"], counts["idempotency_keys"], counts["jobs"]) == (1, 1, 1)


def test_waiting_for_the_end(world: World) -> None:
    execution: list[str] = []

    def end_it() -> None:
        while not world.nudged:
            threading.Event().wait(0.01)
        execution.extend(world.nudged)
        world.end(execution[0], world.open_jobs(execution[0])[0], stdout=b"hi\n")

    ender = threading.Thread(target=end_it)
    ender.start()
    answer = world.post(f"{EXECUTION}?wait=30", {"definition": HELLO})
    ender.join()
    assert answer.status_code == 201
    assert answer.get_json()["status"] == "completed"
    late = world.post(f"{EXECUTION}?wait=0.05", {"definition": HELLO})
    assert late.status_code == 202
    assert late.headers["Location"].endswith(late.get_json()["id"])


def test_where_all_seats_are_taken_waiting_is_not_held(database_url: str, tmp_path: Path) -> None:
    world = api_world.build(database_url, tmp_path, api_threads=1)
    seats = world.app.extensions["muster"].seats
    assert seats.take()
    answer = world.post(f"{EXECUTION}?wait=60", {"definition": HELLO})
    assert answer.status_code == 202
    busy = world.ask(
        "GET",
        f"/api/v1{EXECUTION}/{answer.get_json()['id']}/events",
        headers={"Accept": "text/event-stream"},
    )
    assert (busy.status_code, busy.get_json()["code"]) == (503, "busy")
    world.control.store.close()


LOOP = """
tasks:
  - {name: each, action: core.shell, with_items: [a, b], retry: {count: 1}, input: {command: [echo, "{{ item }}"]}}
"""


def test_a_loop_has_a_row_for_each_unit_with_its_last_attempt(world: World) -> None:
    execution = world.run(LOOP)
    first, second = world.open_jobs(execution)
    world.end(execution, first, stdout=b"a\n")
    world.end(execution, second, status="failed", code=1)
    rows = world.get(f"{EXECUTION}/{execution}/tasks")["items"]
    assert [(row["unit"], row["attempt"], row["status"]) for row in rows] == [
        (0, 1, "succeeded"), (1, 2, "queued"),
    ]  # fmt: skip
