"""Every case of `cases.yaml` on real workers: how it ends, what it gives, and what ran outside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from fleet import Fleet

pytestmark = pytest.mark.fleet

CASES: list[dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "cases.yaml").read_text())
LINK = "  - {name: t%d, action: core.shell, %sinput: {command: 'echo $MUSTER_JOB >> {{ parameters.effects }}'}}\n"


def text_of(case: dict[str, Any]) -> str:
    count = case.get("generate", 0)
    more = [LINK % (n, f"on_success: t{n + 1}, " if n + 1 < count else "") for n in range(count)]
    return str(case["text"]) + "".join(more)


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_a_workflow_on_a_real_fleet(fleet: Fleet, case: dict[str, Any]) -> None:
    check(fleet, case)


@pytest.mark.postgres
@pytest.mark.parametrize("case", CASES[:12], ids=[case["name"] for case in CASES[:12]])
def test_a_workflow_with_its_rows_in_postgresql(fleet_on_postgres: Fleet, case: dict[str, Any]) -> None:
    check(fleet_on_postgres, case)


def check(fleet: Fleet, case: dict[str, Any]) -> None:
    """One case, by its rows and by what its scripts wrote outside."""
    expected = case["expect"]
    execution = fleet.submit(text_of(case), **case.get("parameters", {}))
    row = fleet.wait_for(execution)
    story = fleet.story(execution)
    assert (row.status, row.degraded) == (
        expected.get("status", "completed"),
        expected.get("degraded", False),
    ), story
    statuses = {name: task.status for name, task in fleet.tasks(execution).items()}
    assert statuses == {**dict.fromkeys(statuses, "succeeded"), **expected.get("tasks", {})}, story
    if "output" in expected:
        assert row.output == expected["output"], story
    for task, attempts in expected.get("attempts", {}).items():
        assert [job.attempt for job in fleet.jobs(execution, task)] == list(range(1, attempts + 1)), story
    ran, wanted = fleet.ran_tasks(execution), expected.get("ran", [])
    if "ran_count" in expected:
        wanted = [f"t{n}" for n in range(expected["ran_count"])]
    if expected.get("any_order"):
        ran, wanted = sorted(ran), sorted(wanted)
    assert ran == wanted, story
    assert max(fleet.ran().values(), default=1) == 1
    assert all(job.settled for job in fleet.jobs(execution)), story
