"""Each request has an id, and its trace goes over to the execution that it starts."""

from __future__ import annotations

import logging

import pytest
from api_world import HELLO, World

from app.ids import trace_of

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
CANARY = "canary-5ecret"


def test_a_request_keeps_its_id(world: World) -> None:
    for path, role in (("/healthz", ""), ("/version", ""), ("/nowhere", "viewer")):
        answer = world.ask("GET", path, role, headers={"X-Request-ID": "build-7.a_b"})
        assert answer.headers["X-Request-ID"] == "build-7.a_b"


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, "é", "a;b", "<script>"])
def test_an_id_that_is_none_is_replaced(world: World, given: str) -> None:
    made = {
        world.ask("GET", "/healthz", "", headers={"X-Request-ID": given}).headers["X-Request-ID"]
        for _ in "12"
    }
    assert len(made) == 2
    assert all(len(one) == 26 for one in made)


def test_an_execution_belongs_to_the_trace_of_its_request(world: World) -> None:
    made = world.post("/workflow-executions", {"definition": HELLO}, headers={"traceparent": PARENT})
    assert made.get_json()["trace_id"] == TRACE
    assert world.get(f"/workflow-executions/{made.get_json()['id']}")["trace_id"] == TRACE


@pytest.mark.parametrize("parent", ["", PARENT[:-3], PARENT.replace("00-", "ff-", 1)])
def test_without_one_it_has_its_own(world: World, parent: str) -> None:
    made = world.post(
        "/workflow-executions", {"definition": HELLO}, headers={"traceparent": parent}
    ).get_json()
    assert made["trace_id"] == trace_of(made["id"])


def test_one_line_for_each_request_that_changes_something_and_no_value_in_it(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    execution = world.run(name=CANARY, password=CANARY)
    world.ask("GET", f"/api/v1/workflow-executions?workflow={CANARY}", "viewer")
    world.ask("GET", "/api/v1/workflow-executions", "viewer")
    world.ask("POST", f"/api/v1/{CANARY}", "viewer")
    lines = {
        (one.levelname, one.muster["method"], one.muster["route"], one.muster["status"])  # type: ignore[attr-defined]
        for one in caplog.records
        if one.getMessage() == "request"
    }
    assert lines == {
        ("INFO", "POST", "/api/v1/workflow-executions", 201),
        ("INFO", "GET", "/api/v1/workflow-executions", 422),
        ("DEBUG", "GET", "/api/v1/workflow-executions", 200),
        ("INFO", "", "", 404),
    }
    assert "execution accepted" in caplog.messages
    assert execution
    assert not [one for one in caplog.records if CANARY in f"{one.getMessage()} {one.__dict__}"]
