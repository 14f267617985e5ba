"""Workflows that call workflows, on a real fleet."""

from __future__ import annotations

from typing import Any

import pytest
from fleet import Fleet
from sqlalchemy import select
from waiting import wait_until

from app.engine.status import CANCELLED, COMPLETED, FAILED, PAUSED
from app.ids import span_of, traceparent
from app.logs import scope
from app.services import again, hold, library
from app.store.tables import Execution, table

pytestmark = pytest.mark.fleet
executions = table(Execution)

CHILD = """
ref: calls.child
parameters:
  effects: {type: string, required: true}
  word: {type: string, required: true}
  gate: {type: string, default: ""}
tasks:
  - name: work
    action: core.shell
    delegate_to: web-1
    input:
      command: |
        echo $MUSTER_JOB >> {{ parameters.effects }}
        case {{ parameters.gate }} in "") ;; *) while [ ! -e {{ parameters.gate }} ]; do sleep 0.02; done;; esac
        test {{ parameters.word }} != bad || exit 3
        echo did {{ parameters.word }}
    on_success: last
  - {name: last, action: core.noop}
output_map: {said: "{{ task.work.result.stdout }}"}
"""
PARENT = """
parameters:
  effects: {type: string, required: true}
  word: {type: string, default: it}
  gate: {type: string, default: ""}
tasks:
  - name: call
    type: workflow
    action: calls.child
    input: {effects: "{{ parameters.effects }}", word: "{{ parameters.word }}", gate: "{{ parameters.gate }}"}
    on_success: after
  - {name: after, action: core.echo, input: {message: "{{ task.call.result.said }}"}}
output_map: {said: "{{ task.after.result.message }}", error: "{{ task.call.error.type }}"}
"""


@pytest.fixture(scope="module", autouse=True)
def child(fleet: Fleet) -> None:
    library.store_workflow(fleet.control, "calls", CHILD, "ada")


def children(fleet: Fleet, execution: str) -> list[Any]:
    with fleet.store.read() as connection:
        return list(connection.execute(select(executions).where(executions.c.parent == execution)))


def test_a_call_gives_the_output_of_the_workflow(fleet: Fleet) -> None:
    execution = fleet.submit(PARENT)
    row = fleet.wait_for(execution)
    assert (row.status, row.output) == (COMPLETED, {"said": "did it", "error": None}), fleet.story(execution)
    (called,) = children(fleet, execution)
    assert (called.status, called.requester, called.trace_id, called.depth) == (
        COMPLETED, row.requester, row.trace_id, 1,
    )  # fmt: skip


def test_a_loop_of_calls(fleet: Fleet) -> None:
    text = PARENT.replace("    action: calls.child\n", "    action: calls.child\n    with_items: [a, b, c]\n")
    text = text.replace("{{ parameters.word }}", "{{ item }}").replace(
        "task.call.result.said", "task.call.result"
    )
    execution = fleet.submit(text)
    row = fleet.wait_for(execution)
    assert row.status == COMPLETED, fleet.story(execution)
    assert [one["said"] for one in row.output["said"]] == ["did a", "did b", "did c"]
    assert len(children(fleet, execution)) == 3


def test_a_call_that_fails_is_tried_again_in_its_place(fleet: Fleet) -> None:
    execution = fleet.submit(PARENT, word="bad")
    assert fleet.wait_for(execution).status == FAILED
    (called,) = children(fleet, execution)
    assert called.status == FAILED
    again.retry(fleet.control, execution, "ada", again.Wanted())
    assert fleet.wait_for(execution).status == FAILED
    assert [one.id for one in children(fleet, execution)] == [called.id]
    assert [job.attempt for job in fleet.jobs(called.id, "work")] == [1, 2]


def test_what_cannot_be_called_fails_the_task(fleet: Fleet) -> None:
    execution = fleet.submit("tasks: [{name: a, type: workflow, action: calls.nothing}]")
    assert fleet.wait_for(execution).status == FAILED
    assert "there is no workflow calls.nothing" in fleet.tasks(execution)["a"].error["message"]
    execution = fleet.submit("tasks: [{name: a, type: workflow, action: calls.child, input: {word: x}}]")
    assert fleet.wait_for(execution).status == FAILED
    assert fleet.tasks(execution)["a"].error["type"] == "child"


def test_children_of_children_end_at_the_depth_that_is_allowed(fleet: Fleet) -> None:
    for depth in range(1, 13):
        task = f"type: workflow, action: calls.deep{depth + 1}" if depth < 12 else "action: core.noop"
        text = f"ref: calls.deep{depth}\ntasks: [{{name: a, {task}}}]"
        library.store_workflow(fleet.control, "calls", text, "ada")
    execution = fleet.submit("tasks: [{name: a, type: workflow, action: calls.deep1}]")
    assert fleet.wait_for(execution).status == FAILED
    deep = executions.c.workflow_ref.startswith("calls.deep")
    with fleet.store.read() as connection:
        found = list(connection.execute(select(executions.c.id, executions.c.depth).where(deep)))
    by_depth = {row.depth: row.id for row in found}
    assert sorted(row.depth for row in found) == list(range(1, 11))
    assert "11 deep, 10 is allowed" in fleet.tasks(by_depth[10])["a"].error["message"]


def test_pause_resume_and_cancel_reach_the_child(fleet: Fleet) -> None:
    gate = fleet.directory / "gate-of-the-child"
    execution = fleet.submit(PARENT, gate=str(gate))
    (called,) = wait_until(lambda: children(fleet, execution), "the child")
    fleet.job_is(called.id, "work", "running")
    hold.pause(fleet.control, execution, "ada")
    wait_until(lambda: fleet.execution(called.id).intent == "pause", "the child hears of it")
    gate.touch()
    wait_until(lambda: fleet.execution(called.id).status == PAUSED, "the child pauses")
    hold.resume(fleet.control, execution, "ada")
    assert fleet.wait_for(execution).status == COMPLETED

    gate.unlink()
    execution = fleet.submit(PARENT, gate=str(gate))
    (called,) = wait_until(lambda: children(fleet, execution), "the child")
    fleet.job_is(called.id, "work", "running")
    fleet.cancel(execution)
    assert fleet.wait_for(execution).status == CANCELLED
    assert fleet.wait_for(called.id).status == CANCELLED


def test_one_trace_from_the_request_to_the_script_of_a_child(fleet: Fleet) -> None:
    text = """
ref: calls.traced
tasks:
  - name: work
    action: core.shell
    delegate_to: web-1
    input: {command: 'echo "$MUSTER_TRACE_ID $TRACEPARENT $MUSTER_JOB"'}
output_map: {said: "{{ task.work.result.stdout }}"}
"""
    library.store_workflow(fleet.control, "calls", text, "ada")
    trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    scope.begin(trace_id=trace, parent_span=span)
    try:
        execution = fleet.submit(
            "tasks: [{name: a, type: workflow, action: calls.traced}]\n"
            'output_map: {said: "{{ task.a.result.said }}"}'
        )
    finally:
        scope.begin()
    row = fleet.wait_for(execution)
    assert (row.trace_id, row.parent_span) == (trace, span)
    (called,) = children(fleet, execution)
    assert (called.trace_id, called.parent_span) == (trace, span_of(f"{execution}.a.0.1"))
    said, header, job = row.output["said"].split()
    assert (said, header) == (trace, traceparent(trace, job))
