"""Workflows with the outcomes of their jobs given: what runs, in which order, and what it all comes to."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))

from world import World

from app.compiler.build import build
from app.engine.events import JobResolved
from app.engine.state import Limits
from app.language.parameters import bind
from app.language.parse import load_or_raise

CASES = [
    case
    for path in sorted((Path(__file__).parents[1] / "cases" / "engine").glob("*.yaml"))
    for case in yaml.safe_load(path.read_text())
]


def rehearse(case: dict[str, Any]) -> tuple[World, list[str], list[float]]:
    """The world at the end, the tasks in the order in which jobs were born, and the waits between attempts."""
    workflow = load_or_raise(case["workflow"])
    world = World(
        build(workflow),
        bind(workflow.parameters, case.get("parameters", {})),
        Limits(**case.get("limits", {})),
    )
    world.submit()
    waits: list[float] = []
    cancelled = paused = False
    while not world.over:
        job = world.open_jobs[0] if world.open_jobs else None
        if job and not paused and f"{world.jobs[job].task}.{world.jobs[job].unit}" == case.get("pause_at"):
            paused = True
            world.pause()
        if world.execution.status == "paused" and not world.due_timers:
            assert world.statuses() == case["held"]
            world.resume()
        elif (
            world.open_jobs and not cancelled and world.jobs[world.open_jobs[0]].task == case.get("cancel_at")
        ):
            cancelled = True
            world.cancel(forced=bool(case.get("forced")))
        elif world.open_jobs and world.jobs[world.open_jobs[0]].status == "unknown":
            resolved = case["resolved"]
            world.deliver(JobResolved(world.open_jobs[0], resolved, "looked", "ada"))
            case = {**case, "fates": {}}
        elif world.open_jobs and fate(case, world, world.open_jobs[0]) == "lost":
            vanish(world, world.open_jobs[0])
        elif world.asks:
            world.decide(next(iter(world.asks)), case.get("decided", "approved"))
        elif world.children:
            ended = case.get("child", "completed")
            world.end_child(
                next(iter(world.children)), ended, {"n": 1}, "" if ended == "completed" else "so it was"
            )
        elif world.open_jobs:
            job = world.open_jobs[0]
            world.come_to(job, "cancelled" if job in world.stopped else fate(case, world, job))
        else:
            key = min(world.due_timers, key=lambda key: world.timers[key])
            if key[2].startswith("retry"):
                waits.append(world.timers[key] - world.now)
            world.fire_timer(key)
    return world, [world.jobs[job].task for job in world.started], waits


def vanish(world: World, job: str) -> None:
    """As the services do: what may be run again has failed, for the rest nobody can say."""
    if world.plan.tasks[world.jobs[job].task].is_repeatable:
        world.end(job, "failed", {}, {"type": "lost", "message": "its node vanished"})
    else:
        world.lose(job)


def fate(case: dict[str, Any], world: World, job: str) -> str:
    row = world.jobs[job]
    fates = case.get("fates", {})
    found = fates.get(f"{row.task}.{row.unit}", fates.get(row.task, "succeeded"))
    return str(found if isinstance(found, str) else found[row.attempt - 1])


RULES = (
    *(f"E{n}" for n in range(1, 9)),
    *(f"P{n}" for n in range(1, 5)),
    *(f"I{n}" for n in range(1, 6)),
    *("C1", "C2"),
    *(f"trap {n}" for n in (*range(1, 12), *range(13, 17))),
    *(f"probe {letter}" for letter in "abcdefh"),
)
"""Trap 12 (circles) is the loader's, R1 has `cases/versions`, probe g is about another API."""


def test_every_rule_and_trap_has_a_case() -> None:
    names = [case["name"] for case in CASES]
    tags = {tag for name in names for tag in re.findall(r"\b(?:[EPIC]\d|trap \d+|probe [a-h])\b", name)}
    assert set(RULES) <= tags
    assert len(names) == len(set(names)) >= 150


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_rehearsal(case: dict[str, Any]) -> None:
    world, ran, waits = rehearse(case)
    assert world.execution.status == case["status"], world.execution.error_message
    if "message" in case:
        assert case["message"] in world.execution.error_message
    for name in ("degraded", "ended_badly", "error_message", "output"):
        if name in case:
            assert getattr(world.execution, name) == case[name]
    statuses = world.statuses()
    assert {name: statuses[name] for name in case.get("tasks", {})} == case.get("tasks", {})
    if "ran" in case:
        assert ran == case["ran"]
    if "waits" in case:
        assert waits == case["waits"]
    if "vars" in case:
        assert world.vars == case["vars"]
    for name, kind in case.get("error", {}).items():
        assert world.tasks[name].error["type"] == kind  # type: ignore[index]
    for name, given in case.get("input", {}).items():
        assert world.tasks[name].input == given
    for name, given in case.get("given", {}).items():
        units = sorted((job for job in world.jobs.values() if job.task == name), key=lambda job: job.unit)
        assert [job.given["input"] for job in units] == given  # type: ignore[index]
    for name, expected in case.get("units", {}).items():
        assert [item["status"] for item in world.tasks[name].items] == expected
    if "took" in case:
        assert world.now - 1000.0 == case["took"]
    if "rows" in case:
        rows = {row["node_id"]: row["status"] for row in world.tasks["all"].result["results"]}
        assert rows == case["rows"]
