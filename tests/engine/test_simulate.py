"""The real engine against random workflows, orders, duplicates, losses, cancels. A failing seed is printed."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from random import Random

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from random_workflows import workflow
from world import World

from app.compiler.build import build
from app.compiler.plan import Plan
from app.engine.again import BROKEN
from app.engine.events import JobResolved
from app.engine.status import UNKNOWN

SEEDS = int(os.environ.get("MUSTER_TEST_SEEDS", "3000"))
STEPS = 2000


def run(seed: int, *, order: int, disturb: bool) -> World:
    """One schedule: `seed` gives the workflow and what each job comes to, `order` what happens when."""
    plan = Plan.from_json(build(workflow(Random(seed))).to_json())
    world = World(plan, {"flag": Random(seed).random() < 0.6})
    when = Random(seed * 1000 + order)
    world.submit()
    retries = when.choice([0, 0, 1, 2]) if disturb else 0
    for _ in range(STEPS):
        if world.over and retries:
            retries -= 1
            _again(world, when)
        elif world.over:
            return world
        else:
            _something(world, seed, when, disturb=disturb)
    raise AssertionError("it never ended")


def _something(world: World, seed: int, when: Random, *, disturb: bool) -> None:
    if disturb and when.random() < 0.03:
        world.cancel(forced=when.random() < 0.3)
        return
    on_nodes = sorted(id_ for id_, job in world.jobs.items() if job.node)
    if disturb and when.random() < 0.1 and on_nodes:
        world.come_to(when.choice(on_nodes), "succeeded") if when.random() < 0.3 else _repeat(world, when)
        return
    paused = world.execution.intent == "pause"
    if disturb and when.random() < (0.2 if paused else 0.04):
        world.resume() if paused else world.pause()
        return
    jobs = [id_ for id_ in world.open_jobs if world.jobs[id_].status != "queued"]
    choices = [("job", id_) for id_ in jobs] + [("timer", key) for key in world.due_timers]
    choices += [("ask", id_) for id_ in world.asks] + [("child", id_) for id_ in world.children]
    if not choices and paused:
        world.resume()
        return
    kind, what = when.choice(choices)
    if kind == "timer":
        world.fire_timer(what)
    elif kind == "ask":
        world.decide(what, "rejected" if _fate(world, seed, what) == "failed" else "approved")
    elif kind == "child":
        world.end_child(what, "failed" if _fate(world, seed, what) == "failed" else "completed", {"n": 1})
    elif world.jobs[what].status == UNKNOWN:
        outcome = when.choice(["succeeded", "failed", "again"])
        world.deliver(JobResolved(what, outcome, "seen", "ada"))
    elif disturb and when.random() < 0.1:
        world.lose(what)
    else:
        world.come_to(what, _fate(world, seed, what))


def _again(world: World, when: Random) -> None:
    """R1: kept tasks keep their results, reset ones run again, and it ends like any other execution."""
    top = [name for name, task in world.plan.tasks.items() if task.parent is None and not task.is_finally]
    from_ = tuple(when.sample(top, 1)) if when.random() < 0.5 else ()
    failed = [name for name in top if world.tasks[name].status in BROKEN]
    mark_ok = {when.choice(failed): {"marked": True}} if failed and when.random() < 0.3 else {}
    world.stopped.clear()
    world.retry(from_=from_, mark_ok=mark_ok, reset=when.random() < 0.3)
    assert all(world.tasks[name].status == "succeeded" for name in mark_ok)


def _repeat(world: World, when: Random) -> None:
    """A message that comes again after its job is over."""
    over = [id_ for id_, job in world.jobs.items() if job.settled]
    if over:
        world.come_to(when.choice(over), "failed")


def _fate(world: World, seed: int, job: str) -> str:
    """What a job comes to: the same in every order; a job that was told to stop is cancelled."""
    if job in world.stopped:
        return "cancelled"
    return Random(f"{seed}{job}").choices(["succeeded", "failed", "timed_out"], [6, 3, 1])[0]


@pytest.mark.parametrize("part", range(6))
def test_every_execution_ends_and_keeps_the_invariants(part: int) -> None:
    for seed in range(part, SEEDS, 6):
        try:
            run(seed, order=1, disturb=True)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error}") from error


def test_the_order_of_completion_changes_nothing() -> None:
    """Without cancels, losses or a halt: the same tasks run and end alike, whatever ends first."""
    for seed in range(SEEDS // 3):
        plan = build(workflow(Random(seed)))
        if plan.fail_fast or any(task.fail_fast or task.join == "any" for task in plan.tasks.values()):
            continue
        if any(
            isinstance(task.join, int)
            or task.timeout
            or task.input.get("batch")
            or task.input.get("expires_in")
            for task in plan.tasks.values()
        ):
            continue
        worlds = [run(seed, order=order, disturb=False) for order in range(3)]
        assert len({str(sorted(world.statuses().items())) for world in worlds}) == 1, f"seed {seed}"
        assert len({world.execution.status for world in worlds}) == 1, f"seed {seed}"


def test_a_slice_is_enough() -> None:
    """The engine asks for what it needs, and never for the whole execution."""
    world = run(7, order=1, disturb=False)
    assert world.needs > 0
