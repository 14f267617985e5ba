"""E8: what becomes of a job that nobody can account for."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from world import World

from app.compiler.build import build
from app.engine.events import JobResolved, NodeBack
from app.language.parse import load_or_raise

JOB = "01EXEC.a.0.1"


def lost(extra: str = "") -> World:
    text = f"""
tasks:
  - {{name: a, action: core.shell, input: {{command: "true"}}, on_success: b, on_failure: h{extra}}}
  - {{name: b, action: core.noop}}
  - {{name: h, action: core.noop}}
"""
    world = World(build(load_or_raise(text)))
    world.submit()
    world.lose(JOB)
    return world


def test_it_waits_and_says_so() -> None:
    world = lost()
    assert (world.tasks["a"].status, world.tasks["a"].wait_reason) == ("waiting", "unknown")
    assert world.execution.status == "waiting"
    assert world.jobs[JOB].status == "unknown"


def test_a_late_outcome_counts() -> None:
    world = lost()
    world.come_to(JOB, "succeeded")
    assert world.execution.status == "completed"


def test_its_node_is_back_and_still_runs_it() -> None:
    world = lost()
    world.deliver(NodeBack("a"))
    assert (world.tasks["a"].status, world.execution.status) == ("running", "running")


@pytest.mark.parametrize(
    ("outcome", "status", "ran"),
    [("succeeded", "completed", "b"), ("failed", "completed", "h")],
)
def test_a_person_decides(outcome: str, status: str, ran: str) -> None:
    world = lost()
    world.deliver(JobResolved(JOB, outcome, "looked at the disk", "ada"))
    assert world.execution.status == status
    assert world.tasks[ran].status == "succeeded"
    assert world.tasks["a"].status == outcome


def test_a_person_starts_it_again() -> None:
    world = lost()
    world.deliver(JobResolved(JOB, "again", "nothing was done", "ada"))
    assert world.jobs["01EXEC.a.0.2"].status == "dispatched"
    assert world.jobs[JOB].error is not None
    world.come_to("01EXEC.a.0.2", "succeeded")
    assert world.execution.status == "completed"


def test_on_unknown_fail() -> None:
    world = lost(", on_unknown: fail")
    assert world.tasks["a"].status == "failed"
    assert world.execution.degraded


def test_a_second_decision_changes_nothing() -> None:
    world = lost()
    world.deliver(JobResolved(JOB, "failed", "first", "ada"))
    world.deliver(JobResolved(JOB, "succeeded", "second", "bob"))
    assert world.tasks["a"].status == "failed"
