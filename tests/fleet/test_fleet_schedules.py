"""A schedule every minute on a running fleet, through beat, which is killed in between."""

from __future__ import annotations

import time
from typing import Any

import pytest
from fleet import Fleet
from sqlalchemy import insert, select
from waiting import wait_until

from app.services import library, roles, schedules
from app.services.people import Person
from app.services.schedule_targets import WORKFLOW, Target
from app.services.schedules import Wanted
from app.store.tables import ScheduleTick, User, table

pytestmark = [pytest.mark.fleet, pytest.mark.chaos, pytest.mark.timeout(400)]

ticks, users = table(ScheduleTick), table(User)

MINUTELY = """\
ref: demo.minutely
parameters: {effects: {type: string, required: true}}
tasks:
  - {name: a, action: core.shell, delegate_to: web-1, input: {command: 'echo $MUSTER_JOB >> {{ parameters.effects }}'}}
"""


def fired(fleet: Fleet, schedule: str) -> list[Any]:
    query = select(ticks).where(ticks.c.schedule == schedule).order_by(ticks.c.fire_time)
    with fleet.store.read() as connection:
        return list(connection.execute(query))


def test_every_minute_fires_twice_though_beat_is_killed_in_between(rough: Fleet) -> None:
    fleet = rough
    with fleet.store.write() as connection:
        values = {"login": "cora", "role": "operator", "enabled": True, "created_at": time.time()}
        connection.execute(insert(users).values(values))
    library.store_workflow(fleet.control, "demo", MINUTELY, "cora")
    target = Target(WORKFLOW, "demo.minutely", parameters={"effects": str(fleet.effects)})
    cora = Person("cora", "operator", "", roles.EVERYWHERE["operator"])
    schedule = schedules.create(fleet.control, Wanted("minutely", target, "* * * * *", "UTC"), cora)
    fleet.second_control()

    wait_until(lambda: len(fired(fleet, schedule)) == 1, lambda: fleet.log("control"))
    fleet.kill("beat")
    fleet.wait_for(fired(fleet, schedule)[0].execution)
    wait_until(lambda: len(fired(fleet, schedule)) == 2, lambda: fleet.log("beat"))
    first, second = fired(fleet, schedule)
    fleet.wait_for(second.execution)

    assert [first.status, second.status] == ["fired", "fired"]
    assert (first.fire_time % 60, second.fire_time - first.fire_time) == (0, 60)
    assert all(0 <= one.at - one.fire_time < 10 for one in (first, second))
    ran = {
        job: count
        for job, count in fleet.ran().items()
        if job.startswith((first.execution, second.execution))
    }
    assert sorted(ran.values()) == [1, 1]

    def told() -> Any:
        with fleet.store.read() as connection:
            row = schedules.get(connection, "minutely", cora)
        return row if row["last_status"] == "completed" else None

    assert wait_until(told, "its status")["last_execution"] == second.execution
    schedules.remove(fleet.control, schedule, cora)
