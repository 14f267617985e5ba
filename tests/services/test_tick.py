"""Time passes for every execution, whatever has become of the rows of one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from desk import Office, jobs, tasks
from sqlalchemy import insert, update

from app.services import tick
from app.store.tables import Timer, table

timers = table(Timer)

NAP = """
tasks:
  - {name: nap, action: core.sleep, input: {seconds: 5}}
"""
RUNS = """
tasks:
  - {name: a, action: core.shell, delegate_to: web-1, input: {command: ['true']}}
"""


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    made = Office(tmp_path, ["web-1"])
    yield made
    made.store.close()


def test_an_execution_that_cannot_go_on_stops_time_for_no_other(
    office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    broken, sound, silent = office.submit(NAP), office.submit(NAP), office.submit(RUNS)
    with office.store.write() as connection:
        connection.execute(
            insert(timers).values(
                execution=broken, task="gone", unit=0, kind="delay", due_at=office.clock.now
            )
        )
        connection.execute(update(jobs).where(jobs.c.execution == silent).values(status="running"))
    office.clock.now += 60
    assert tick.tick(office.desk, "control-1")
    assert office.statuses(tasks, sound) == {"nap": "succeeded"}
    assert office.execution(sound).status == "completed"
    # A later part of the tick: its node is away for long enough.
    assert office.job(f"{silent}.a.0.1").status == "suspect"
    assert broken in caplog.text
    assert office.execution(broken).status not in ("completed", "failed")


def test_a_second_worker_does_not_tick(office: Office) -> None:
    assert tick.tick(office.desk, "control-1")
    assert not tick.tick(office.desk, "control-2")
