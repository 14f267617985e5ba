"""Graphs and explanations against random executions: what is told of edges is what the engine counted."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from schedule import Schedule
from world import World

from app.compiler.graph import FAIL, edges
from app.compiler.plan import Plan
from app.engine.edges import FIRED, OPEN, states
from app.engine.events import Event
from app.engine.state import Step
from app.engine.status import NOT_REACHED, PENDING, SKIPPED, TASK_OVER
from app.engine.why import DID_NOT_RUN, NEVER, RAN, Story, explain

SEEDS = 400


def counted(world: World) -> dict[str, tuple[int, int]]:
    """(open, fired) of each task's incoming edges as the graph shows them, those of one task as one."""
    lines = edges(world.plan)
    found: dict[tuple[str, str], set[str]] = {}
    for edge, state in zip(lines, states(world.plan.tasks, world.tasks, lines), strict=True):
        if edge.target != FAIL:
            found.setdefault((edge.target, edge.source), set()).add(state)
    counts = dict.fromkeys(world.plan.tasks, (0, 0))
    for (target, _), seen in found.items():
        open_, fired = counts[target]
        counts[target] = (open_ + (OPEN in seen), fired + (FIRED in seen))
    return counts


def check_edges(world: World) -> None:
    for name, (open_, fired) in counted(world).items():
        row = world.tasks[name]
        # A sweep at the end counts no edges, and a retry lets kept tasks lead on to what is over already.
        if row.status == PENDING or (row.status != NOT_REACHED and not world.retried):
            assert (row.open, row.fired) == (open_, fired), (name, row)


def check_words(world: World, was: dict[str, str]) -> None:
    """Every task has an explanation; one that is told to be lost never runs, unless somebody tries again."""
    story = Story(world.plan, world.execution, world.tasks, str)
    for name, state in world.tasks.items():
        told = explain(story, name)
        assert told.sentences, name
        assert all(told.sentences)
        assert not (was.get(name) == NEVER and told.verdict != NEVER), name
        if state.status in TASK_OVER:
            expected = {NOT_REACHED: NEVER, SKIPPED: DID_NOT_RUN}.get(state.status, RAN)
            assert told.verdict == expected, name
        was[name] = told.verdict
        for cause in told.because:
            row = world.tasks[cause["task"]]
            assert row.status != NOT_REACHED or row.went is None or world.plan.tasks[name].parent, name


@pytest.mark.parametrize("disturb", [False, True])
def test_what_is_told_is_what_happened(monkeypatch: pytest.MonkeyPatch, disturb: bool) -> None:
    plain, again = World.deliver, World.retry

    def deliver(world: World, event: Event, plan: Plan | None = None) -> Step:
        step = plain(world, event, plan)
        check_edges(world)
        # Nobody could know that its node had begun it.
        world.verdicts.pop(world.watch.gone, None)
        check_words(world, world.verdicts)
        return step

    def retry(world: World, plan: Plan | None = None, **what: object) -> None:
        world.retried = True
        world.verdicts = {}
        again(world, plan, **what)
        world.verdicts = {}

    monkeypatch.setattr(World, "retried", False, raising=False)
    monkeypatch.setattr(World, "deliver", deliver)
    monkeypatch.setattr(World, "retry", retry)
    for seed in range(SEEDS):
        monkeypatch.setattr(World, "verdicts", {}, raising=False)
        try:
            Schedule(seed, seed, fates=seed, is_stormy=disturb).play()
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error!r}") from error
