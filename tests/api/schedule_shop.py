"""What tests of schedules over HTTP begin with: something to schedule, two schedules, and a time that comes."""

from __future__ import annotations

from typing import Any

import api_world
import script_shop
from api_world import World
from sqlalchemy import update

from app.services import schedules_due
from app.store.tables import Schedule, table

schedules = table(Schedule)

NIGHTLY: dict[str, Any] = {
    "name": "nightly",
    "workflow": "demo.hello",
    "cron": "0 3 * * *",
    "zone": "Europe/Berlin",
}
SCRIPT: dict[str, Any] = {
    "name": "restarts",
    "script": "restart",
    "labels": {"role": "web"},
    "parameters": {"service": "nginx"},
    "cron": "*/10 * * * *",
}


def furnish(world: World) -> World:
    """With a stored workflow, two web nodes and a script."""
    answer = world.post("/packs/demo/workflows", {"definition": api_world.HELLO}, "author")
    assert answer.status_code == 201
    for name in ("web-1", "web-2"):
        world.add_node(name, labels={"role": "web"})
    script_shop.put(
        world,
        "restart",
        "echo restart ${service}",
        [
            {"name": "service", "type": "string", "required": True},
            {"name": "password", "type": "secret", "required": False, "min": 8, "pattern": "[a-z]+"},
        ],
    )
    return world


def made(world: World, body: Any = NIGHTLY, role: str = "operator") -> dict[str, Any]:
    answer = world.post("/automation/schedules", body, role)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.get_json()
    assert answer.headers["Location"].endswith(found["id"])
    return found


def fire(world: World, name: str) -> Any:
    """The schedule is due now: what its tick makes of it."""

    class Desk:
        control = world.control

    with world.control.store.write() as connection:
        now = world.control.clock() // 60 * 60
        connection.execute(update(schedules).where(schedules.c.name == name).values(next_run=now, due_at=now))
    schedules_due.look(Desk())  # type: ignore[arg-type]
    return world.get(f"/automation/schedules/{name}")
