"""Children of remote blocks in the plan: one job each that stands for all of a child, or the child itself."""

from __future__ import annotations

import json

import pytest

from app.compiler import explain
from app.compiler.build import build
from app.compiler.plan import Plan
from app.engine.rehearsal import Rehearsal
from app.language.parse import load_or_raise

HEAD = """
settings:
  parallel:
    strategy: remote
    timeout: 30
    retry: {count: 2, delay: 1}
    remote: {hosts: [ada@web-1, ada@web-2]}
"""
TASKS = """
tasks:
  - name: many
    type: parallel
    on_failure: mend
    on_success: [noop, after]
    tasks:
      - name: a
        action: core.shell
        when: "{{ true }}"
        delay: 5
        timeout: 7
        queue_timeout: 60
        retry: {count: 9}
        with_items: [1, 2]
        input: {command: "echo {{ item }}"}
      - {name: b, action: core.sleep, input: {seconds: 1}}
      - {name: c, action: core.shell, input: {command: "echo x"}, idempotent: true}
  - {name: after, action: core.noop}
  - {name: mend, action: core.noop}
"""


def plan(head: str = HEAD, tasks: str = TASKS, *, flows: bool = True) -> Plan:
    made = build(load_or_raise(head + tasks), flows=flows)
    return Plan.from_json(json.loads(made.dump()))


def test_a_flow_stands_for_all_of_its_child() -> None:
    task = plan().tasks["a"]
    assert (task.kind, task.is_call, task.runs_on_nodes, task.when, task.delay, task.loop) == (
        "job",
        True,
        False,
        None,
        None,
        None,
    )
    assert (task.timeout, task.queue_timeout, (task.retry or {})["count"]) == (30, 60, 2)
    inner = task.inner
    assert (inner.kind, inner.timeout, inner.delay, (inner.retry or {})["count"]) == ("loop", 7, 5, 9)
    assert plan().tasks["b"].kind == "job", "what the engine would do here it does there"


def test_where_flows_run_and_end() -> None:
    found = [plan().tasks[name].flow or {} for name in "abc"]
    assert [one["host"] for one in found] == ["ada@web-1", "ada@web-2", "ada@web-1"]
    assert {one["exit_point"] for one in found} == {"after"}
    last = plan(tasks=TASKS.replace("    on_failure: mend\n    on_success: [noop, after]\n", ""))
    assert (last.tasks["a"].flow or {})["exit_point"] == ""


def test_the_text_is_part_of_what_a_plan_is() -> None:
    assert plan().digest != plan(tasks=TASKS + "# a word more\n").digest
    local = HEAD.replace("remote\n", "thread\n")
    assert plan(local).digest == plan(local, TASKS + "# a word more\n").digest


@pytest.mark.parametrize("head", [HEAD.replace("strategy: remote", "strategy: process"), ""])
def test_other_strategies_are_ordinary_blocks(head: str) -> None:
    found = plan(head)
    assert (found.remote, found.tasks["a"].kind, found.tasks["a"].flow) == (None, "loop", None)


def test_where_a_flow_itself_runs_its_child_is_a_child() -> None:
    found = plan(flows=False)
    assert (found.remote, found.tasks["a"].kind, found.tasks["a"].timeout) == (None, "loop", 7)


def test_another_child_is_another_flow() -> None:
    """A retry of an execution with a newer version sees the difference."""
    changed = plan(tasks=TASKS.replace("delay: 5", "delay: 6"))
    assert changed.tasks["a"].essence != plan().tasks["a"].essence
    assert changed.tasks["b"].essence == plan().tasks["b"].essence


def test_flows_in_the_canvas_that_is_shown() -> None:
    text = explain.render(plan())
    assert "group  many  parallel\n  flow  a  on ada@web-1, a call@io\n  flow  b  on ada@web-2" in text


def test_a_failure_of_a_flow_may_have_any_form() -> None:
    """It comes from a host: what asks whether another try is of use must get along with it."""
    world = Rehearsal(plan(), {})
    world.submit()
    first = world.started[0]
    world.end(first, "failed", {}, {"type": [], "message": {}})
    assert ("a", 0, "retry.1") in world.timers
