"""R1: executions tried again, some with another version of the workflow: what bars it, what runs, what is kept."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))

from world import World

from app.compiler.build import build
from app.compiler.plan import Plan
from app.engine.events import RetryAsked
from app.engine.replan import conflicts
from app.language.parameters import bind
from app.language.parse import load_or_raise

CASES = yaml.safe_load((Path(__file__).parents[1] / "cases" / "versions" / "retries.yaml").read_text())


def play(world: World, fates: dict[str, str]) -> None:
    while not world.over:
        if world.open_jobs:
            row = world.jobs[world.open_jobs[0]]
            fate = fates.get(f"{row.task}.{row.unit}", fates.get(row.task, "succeeded"))
            world.come_to(row.id, fate)
        else:
            world.fire_timer(min(world.due_timers, key=lambda key: world.timers[key]))


def plan_of(text: str) -> Plan:
    return Plan.from_json(build(load_or_raise(text)).to_json())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_another_version(case: dict[str, Any]) -> None:
    plan = plan_of(case["workflow"])
    latest = plan_of(case["latest"]) if "latest" in case else None
    world = World(plan, bind(load_or_raise(case["workflow"]).parameters, {}))
    world.submit()
    play(world, case.get("fates", {}))
    again = case.get("again", {})
    found = list(conflicts(plan, latest, world.tasks, RetryAsked(**again))) if latest is not None else []
    assert [one.task for one in found] == list(case.get("conflicts", {}))
    assert all(case["conflicts"][one.task] in one.why for one in found)
    if found:
        return
    begun = len(world.started)
    world.retry(latest, **again)
    play(world, case.get("fates_again", {}))
    assert world.execution.status == case["status"], world.execution.error_message
    if "ran" in case:
        assert [world.jobs[job].task for job in world.started[begun:]] == case["ran"]
    statuses = world.statuses()
    assert {name: statuses[name] for name in case.get("tasks", {})} == case.get("tasks", {})
    if "vars" in case:
        assert world.vars == case["vars"]
    assert case.get("degraded", False) is world.execution.degraded
    for name, given in case.get("input", {}).items():
        assert world.tasks[name].input == given
    for name, commands in case.get("given", {}).items():
        mine = sorted(
            (job for job in world.jobs.values() if job.task == name), key=lambda job: (job.attempt, job.unit)
        )
        assert [job.given["input"]["command"] for job in mine] == commands  # type: ignore[index]


def test_there_are_cases_enough() -> None:
    names = [case["name"] for case in CASES]
    assert len(names) == len(set(names)) >= 38
    assert sum(name.startswith("R1: ") for name in names) >= 10
