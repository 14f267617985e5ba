"""Schedules of people whose role is for some packs or nodes only."""

from __future__ import annotations

from typing import Any

import pytest
from api_world import World
from schedule_shop import NIGHTLY, SCRIPT, fire, furnish, made
from sqlalchemy import select
from test_api_scope import person, told

from app.store.tables import AuditEntry, table

entries = table(AuditEntry)


@pytest.fixture
def shop(world: World) -> World:
    """With a schedule of each kind, by people who have no bounds."""
    furnish(world)
    world.add_node("db-1", labels={"role": "db"})
    made(world, NIGHTLY)
    made(world, SCRIPT)
    person(world, "demo-op", {"role": "operator", "packs": ["demo"]})
    person(world, "web-op", {"role": "operator", "labels": {"role": "web"}})
    person(world, "other-op", {"role": "operator", "packs": ["other"]})
    return world


def on(*hosts: str, **more: Any) -> dict[str, Any]:
    named = {name: value for name, value in SCRIPT.items() if name != "labels"}
    return {**named, "name": "mine", "host_ids": list(hosts), **more}


@pytest.mark.parametrize(
    ("login", "names"),
    [("demo-op", ["nightly"]), ("web-op", ["nightly", "restarts"]), ("other-op", [])],
)
def test_they_see_those_of_their_packs(shop: World, login: str, names: list[str]) -> None:
    found = shop.get("/automation/schedules", login)["items"]
    assert [one["name"] for one in found] == names
    for name in ("nightly", "restarts"):
        for path in ("", "/next", "/history"):
            answer = shop.ask("GET", f"/api/v1/automation/schedules/{name}{path}", login)
            assert answer.status_code == (200 if name in names else 404), (name, path)
        answer = shop.ask("DELETE", f"/api/v1/automation/schedules/{name}", login)
        assert told(answer) == ((403, "not-owner") if name in names else (404, "unknown-schedule"))


@pytest.mark.parametrize(
    ("login", "body", "expected"),
    [
        ("demo-op", {**NIGHTLY, "name": "mine"}, None),
        ("web-op", on("web-1", "web-2"), None),
        ("demo-op", on("web-1"), (403, "out-of-scope")),
        ("web-op", on("db-1"), (403, "out-of-scope")),
        ("web-op", on("no-such-node"), (403, "out-of-scope")),
        ("other-op", {**NIGHTLY, "name": "mine"}, (403, "out-of-scope")),
        ("other-op", {**NIGHTLY, "name": "mine", "workflow": "demo.nothing"}, (403, "out-of-scope")),
    ],
)
def test_they_schedule_what_they_may_run(
    shop: World, login: str, body: dict[str, Any], expected: tuple[int, str] | None
) -> None:
    before = shop.counts()
    answer = shop.post("/automation/schedules", body, login)
    if expected is None:
        assert answer.status_code == 201, answer.text
        found = fire(shop, "mine")
        assert found["owner"] == login
        assert found["last_execution"], found
        return
    assert told(answer) == expected
    assert shop.counts() == before
    with shop.control.store.read() as connection:
        mine = select(entries).where(entries.c.person == login, entries.c.action == "schedule.create")
        kept = [row.outcome for row in connection.execute(mine)]
    assert kept == ["refused"]


def test_what_their_bounds_are_by_then_counts(shop: World) -> None:
    assert shop.post("/automation/schedules", on("web-1"), "web-op").status_code == 201
    narrowed = {"grants": [{"role": "operator", "labels": {"role": "db"}}]}
    assert shop.ask("PATCH", "/api/v1/users/web-op", json=narrowed).status_code == 200
    found = fire(shop, "mine")
    assert (found["last_status"], found["last_reason"]) == ("skipped", "out-of-scope")
