"""Executions whose first jobs a control worker gives birth to: at the nudge, else at the tick, and once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from desk import BOTH, Office, jobs, office_on

from app.compiler.build import build
from app.language.parse import load_or_raise
from app.services import cancel, collect, replay, tick
from app.services.submit import Submission, submit

SPREAD = """
tasks:
  - {name: a, type: distributed_shell, input: {command: ['true'], nodes: [web-1, web-2]}}
"""


@pytest.fixture(params=BOTH)
def office(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Office]:
    with office_on(request.param, tmp_path, ["web-1", "web-2"]) as made:
        yield made


def put_off(office: Office) -> str:
    plan = build(load_or_raise(SPREAD, "test.yaml"))
    return submit(office.control, Submission(plan, SPREAD, "ada", {}, is_put_off=True)).execution


def replays_the_same(office: Office, execution: str) -> bool:
    with office.store.read() as connection:
        return not replay.replayed(connection, execution).differences


def test_the_request_leaves_the_jobs_to_the_nudge(office: Office) -> None:
    execution = put_off(office)
    assert (office.execution(execution).status, office.statuses(jobs, execution)) == ("scheduling", {})
    for _ in range(3):
        collect.settle(office.desk, execution)
    assert office.statuses(jobs, execution) == {"a.0": "dispatched", "a.1": "dispatched"}
    assert len(office.sent) == 2
    for sent in list(office.sent):
        office.take_in(sent)
    collect.settle(office.desk, execution)
    assert office.execution(execution).status == "completed"
    assert replays_the_same(office, execution)


def test_a_nudge_that_was_lost_is_made_up_for_by_the_tick(office: Office) -> None:
    put_off(office)
    assert tick.tick(office.desk, "control-1")
    assert office.sent == []  # its nudge may still be on its way
    office.clock.now += 5
    assert tick.tick(office.desk, "control-1")
    assert len(office.sent) == 2
    assert tick.tick(office.desk, "control-1")
    assert len(office.sent) == 2


def test_a_cancel_that_comes_first_leaves_nothing_to_send(office: Office) -> None:
    execution = put_off(office)
    cancel.cancel(office.control, execution, "ada")
    collect.settle(office.desk, execution)
    office.clock.now += 5
    assert tick.tick(office.desk, "control-1")
    assert office.sent == []
    assert office.execution(execution).status == "cancelled"
    assert replays_the_same(office, execution)
