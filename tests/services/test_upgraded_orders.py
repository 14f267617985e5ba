"""Jobs that were sent before an upgrade of control and nodes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from desk import BOTH, EPOCH, Office, jobs, office_on
from sqlalchemy import update

from app.services import presence
from app.transport.life import Heartbeat
from app.transport.sealing import sign_heartbeat

RUNS = """
tasks:
  - {name: a, action: core.script, delegate_to: web-1, input: {script: echo hi}}
"""


@pytest.fixture(params=BOTH)
def office(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Office]:
    with office_on(request.param, tmp_path, ["web-1"]) as made:
        yield made


def beat(office: Office) -> None:
    """The node is alive and holds nothing."""
    now = office.clock.now
    said = Heartbeat(office.installed.id, "web-1", EPOCH, 7, now, (), 8, 8, ("sh",), {}, now)
    presence.heartbeat(office.desk, sign_heartbeat(said, office.keys["web-1"]))


def test_a_job_whose_order_its_node_refused_is_told_in_the_form_of_today(office: Office) -> None:
    execution = office.submit(RUNS)
    job = f"{execution}.a.0.1"
    told = office.job(job).digest
    with office.store.write() as connection:
        connection.execute(update(jobs).where(jobs.c.id == job).values(digest="0" * 64))
    office.clock.now += 30
    beat(office)
    assert len(office.sent) == 2
    assert office.job(job).digest == told
    office.take_in(office.sent[-1])
    assert office.execution(execution).status == "completed"
