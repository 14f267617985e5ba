"""An execution made again from its events, over the API."""

from __future__ import annotations

from typing import Any

import pytest
from api_world import FANOUT, HELLO, World
from sqlalchemy import delete, update

from app.services import replay
from app.store.tables import Event, Task, table

tasks, events = table(Task), table(Event)
LONG = b"x" * 9000


def replayed(world: World, execution: str) -> dict[str, Any]:
    found: dict[str, Any] = world.get(f"/workflow-executions/{execution}/replay", "operator")
    return found


def ended(world: World, definition: str = HELLO, stdout: bytes = b"hello\n") -> str:
    execution = world.run(definition)
    while jobs := world.open_jobs(execution):
        world.end(execution, jobs[0], stdout=stdout)
    return execution


@pytest.mark.parametrize("definition", [HELLO, FANOUT])
def test_the_events_give_what_is_stored(world: World, definition: str) -> None:
    execution = ended(world, definition)
    found = replayed(world, execution)
    count = len(world.get(f"/workflow-executions/{execution}/events")["items"])
    status = world.get(f"/workflow-executions/{execution}")["status"]
    assert found == {
        "execution": execution,
        "status": status,
        "events": count,
        "is_same": True,
        "differences": [],
    }


def test_while_it_still_goes_on(world: World) -> None:
    execution = world.run()
    (job,) = world.open_jobs(execution)
    world.hold(job)
    assert replayed(world, execution)["is_same"]


def test_a_long_result_is_in_the_job_alone_and_its_digest_in_the_event(world: World) -> None:
    execution = ended(world, stdout=LONG)
    with world.control.store.read() as connection:
        kept = [
            row.data for row in connection.execute(events.select().where(events.c.execution == execution))
        ]
    assert not any("x" * 100 in str(data.get("jobs")) for data in kept)
    assert any("result_sha256" in str(data) for data in kept)
    assert replayed(world, execution)["is_same"]


def test_a_row_that_something_else_wrote_is_named_without_its_value(world: World) -> None:
    execution = ended(world)
    with world.control.store.write() as connection:
        mine = (tasks.c.execution == execution, tasks.c.name == "greet")
        connection.execute(update(tasks).where(*mine).values(result={"stdout": "forged"}))
    found = replayed(world, execution)
    assert not found["is_same"]
    assert found["differences"] == [{"place": "task greet", "column": "result"}]
    assert "forged" not in str(found)


def test_an_event_that_is_gone_is_seen(world: World) -> None:
    execution = ended(world)
    with world.control.store.write() as connection:
        connection.execute(delete(events).where(events.c.execution == execution, events.c.seq == 2))
    assert not replayed(world, execution)["is_same"]


def test_more_events_than_are_replayed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    execution = ended(world)
    monkeypatch.setattr(replay, "MOST_EVENTS", 1)
    answer = world.ask("GET", f"/api/v1/workflow-executions/{execution}/replay", "operator")
    assert answer.status_code == 409
    assert answer.get_json()["code"] == "too-many-events"


def test_an_execution_that_is_not_there(world: World) -> None:
    answer = world.ask("GET", "/api/v1/workflow-executions/01ARZ3NDEKTSV4RRFFQ69G5FAV/replay", "operator")
    assert answer.status_code == 404
