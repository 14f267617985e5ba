"""What a step writes does not grow with the execution: no row or blob is written whole again."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from world import World

from app.compiler.build import build
from app.engine.replay import data_of
from app.language.parse import load_or_raise

LOOP = """
tasks:
  - name: each
    action: core.shell
    concurrency: 10
    with_items: "{{ range(%d) | list }}"
    input: {command: ["true", "{{ item }}"]}
"""
SLEEPS = """
tasks:
  - name: each
    action: core.sleep
    concurrency: 10
    with_items: "{{ range(%d) | list }}"
    input: {seconds: 1}
"""


def line(tasks: int) -> str:
    written = "tasks:\n"
    for number in range(tasks):
        follows = f", on_success: t{number + 1}" if number + 1 < tasks else ""
        publish = f"publish: [{{seen: '{{{{ task.t{number}.result.stdout }}}}'}}]"
        written += (
            f"  - {{name: t{number}, action: core.shell, input: {{command: ['true']}}, {publish}{follows}}}\n"
        )
    return written


def most_written(text: str) -> int:
    """The most bytes that one step writes, but for the first, which bears the units, and the last, which gathers."""
    world = World(build(load_or_raise(text)))
    world.submit()
    while not world.over:
        if world.open_jobs:
            world.come_to(
                next(id_ for id_ in world.open_jobs if world.jobs[id_].status == "dispatched"), "succeeded"
            )
        else:
            world.fire_timer(world.due_timers[0])
    sizes = []
    for _, event, step in world.events[1:-1]:
        changes = step.changes
        rows = [
            changes.execution,
            changes.tasks,
            changes.jobs,
            changes.published,
            [job.given for job in changes.new_jobs],
        ]
        sizes.append(len(json.dumps([rows, data_of(event, step, world.limits)])))
    return max(sizes)


@pytest.mark.parametrize("text", [LOOP, SLEEPS], ids=["loop on nodes", "loop in the engine"])
def test_an_item_of_a_long_loop_writes_as_little_as_one_of_a_short(text: str) -> None:
    assert most_written(text % 1000) <= most_written(text % 50) + 20


def test_a_step_of_a_long_line_writes_as_little_as_one_of_a_short() -> None:
    assert most_written(line(300)) <= most_written(line(20)) + 40
