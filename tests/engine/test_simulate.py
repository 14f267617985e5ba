"""The real engine against random workflows and all that goes wrong with them; `simulate.py` runs it alone."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import schedule
import simulate
from schedule import plan_of, run_in_peace
from world import World

PARTS = 10
EACH = 1_500
IN_ORDER = 1500
HERE = Path(__file__).parent


@pytest.mark.parametrize("part", range(PARTS))
def test_every_execution_ends_and_keeps_the_invariants(part: int) -> None:
    tally = simulate.simulate(range(part * EACH, (part + 1) * EACH), most=1)
    assert not tally.violations, tally.violations[0]
    assert tally.schedules == EACH


def test_the_order_of_completion_changes_nothing() -> None:
    """Without cancels, losses or a halt: the same tasks run and end alike, whatever ends first."""
    compared = 0
    for seed in range(IN_ORDER):
        plan, _ = plan_of(seed)
        if plan.fail_fast or any(task.fail_fast or task.join == "any" for task in plan.tasks.values()):
            continue
        if (plan.gate or {}).get("expires_in") or any(
            isinstance(task.join, int)
            or task.timeout
            or task.input.get("batch")
            or task.input.get("expires_in")
            for task in plan.tasks.values()
        ):
            continue
        worlds = [run_in_peace(seed, order) for order in range(3)]
        assert len({str(sorted(world.statuses().items())) for world in worlds}) == 1, f"workflow {seed}"
        assert len({world.execution.status for world in worlds}) == 1, f"workflow {seed}"
        compared += 1
    assert compared > 100


def test_a_slice_is_enough() -> None:
    """The engine asks for what it needs, and never for the whole execution."""
    worlds = [run_in_peace(seed, order=0) for seed in range(20)]
    assert all(world.is_narrow for world in worlds)
    assert sum(world.needs for world in worlds) > 0


def test_the_events_alone_say_what_became_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what the steps read from elsewhere, the replay comes to something else, and that is seen."""
    monkeypatch.setattr(schedule, "data_of", _without_facts)
    numbers = range(0, 50 * schedule.REPLAYED, schedule.REPLAYED)
    worlds = [
        schedule.Schedule(number // schedule.SCHEDULES, number, fates=number).play() for number in numbers
    ]
    seen = 0
    for world in worlds:
        try:
            schedule.check_replay(world)
        except (AssertionError, ValueError):
            seen += 1
    assert seen > 25


def _without_facts(*given: object) -> dict[str, object]:
    data = DATA_OF(*given)  # type: ignore[arg-type]
    return {name: data[name] for name in ("input", "log")}


DATA_OF = schedule.data_of


def test_a_violation_says_how_to_play_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """And it is played exactly as it was."""
    monkeypatch.setattr(World, "fire_timer", _broken)
    tally = simulate.simulate(range(1000), most=1)
    found = re.search(r"python (tests/engine/simulate.py) --replay ([0-9]+)", tally.violations[0])
    assert found
    monkeypatch.undo()
    command = [sys.executable, str(HERE / "simulate.py"), "--replay", found[2]]
    first, second = (subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(2))
    assert first.stdout == second.stdout
    assert f"schedule {found[2]} keeps every invariant" in first.stdout


def _broken(world: World, key: object) -> None:
    raise AssertionError(f"{key} came")


def test_the_last_line_of_a_run_by_the_clock() -> None:
    ran = subprocess.run(
        [sys.executable, str(HERE / "simulate.py"), "--seconds", "1", "--first", "100000"],
        capture_output=True,
        text=True,
        check=True,
    )
    line = ran.stdout.splitlines()[-1]
    assert re.fullmatch(r"simulate: schedules=[1-9][0-9]* per_second=[1-9][0-9]* violations=0", line)
