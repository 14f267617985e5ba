"""Pause, resume and retry of executions on a real fleet."""

from __future__ import annotations

import pytest
from fleet import Fleet
from waiting import wait_until

from app.engine.status import COMPLETED, FAILED, PAUSED
from app.errors import Conflict
from app.services import again, hold, library

pytestmark = pytest.mark.fleet

GATED = """
parameters: {effects: {type: string, required: true}, gate: {type: string, required: true}}
tasks:
  - name: each
    action: core.shell
    delegate_to: web-1
    with_items: [1, 2, 3, 4]
    concurrency: 1
    input:
      command: |
        echo $MUSTER_JOB >> {{ parameters.effects }}
        while [ ! -e {{ parameters.gate }} ]; do sleep 0.02; done
    on_success: last
  - {name: last, action: core.shell, input: {command: 'echo $MUSTER_JOB >> {{ parameters.effects }}'}}
"""


def test_a_pause_in_mid_loop_holds_the_rest_until_the_resume(fleet: Fleet) -> None:
    gate = fleet.directory / "gate-of-the-pause"
    execution = fleet.submit(GATED, gate=str(gate))
    wait_until(lambda: len(fleet.ran_tasks(execution)) == 1, "the first unit")
    hold.pause(fleet.control, execution, "ada")
    assert fleet.execution(execution).status == "pausing"
    gate.touch()
    wait_until(lambda: fleet.execution(execution).status == PAUSED, "it pauses")
    assert fleet.ran_tasks(execution) == ["each"]
    assert hold.pause(fleet.control, execution, "ada") == PAUSED
    hold.resume(fleet.control, execution, "ada")
    assert fleet.wait_for(execution).status == COMPLETED
    assert fleet.ran_tasks(execution) == ["each", "each", "each", "each", "last"]
    with pytest.raises(Conflict, match="is over"):
        hold.pause(fleet.control, execution, "ada")


BROKEN = """
parameters: {effects: {type: string, required: true}, mended: {type: string, required: true}}
tasks:
  - name: first
    action: core.shell
    input: {command: 'echo $MUSTER_JOB >> {{ parameters.effects }}; echo one'}
    publish: [{seen: "{{ task.first.result.stdout }}"}]
    on_success: each
  - name: each
    action: core.shell
    with_items: [a, b, c]
    delegate_to: web-2
    input:
      command: |
        echo $MUSTER_JOB >> {{ parameters.effects }}
        test {{ item }} != b || test -e {{ parameters.mended }}
    publish: [{units: "{{ task.each.items | map(attribute='status') | list }}"}]
    on_success: last
  - name: last
    action: core.shell
    input: {command: 'echo $MUSTER_JOB >> {{ parameters.effects }}; echo {{ vars.seen }}'}
output_map: {units: "{{ vars.units }}", last: "{{ task.last.result.stdout }}"}
"""


def test_a_retry_runs_only_what_failed_and_what_follows(fleet: Fleet) -> None:
    mended = fleet.directory / "mended"
    execution = fleet.submit(BROKEN, mended=str(mended))
    assert fleet.wait_for(execution).status == FAILED
    assert fleet.ran_tasks(execution) == ["first", "each", "each", "each"]
    mended.touch()
    again.retry(fleet.control, execution, "ada", again.Wanted(reason="mended"))
    row = fleet.wait_for(execution)
    assert (row.status, row.output) == (COMPLETED, {"units": ["succeeded"] * 3, "last": "one"})
    assert fleet.ran_tasks(execution) == ["first", "each", "each", "each", "each", "last"]
    assert sorted((job.unit, job.attempt) for job in fleet.jobs(execution, "each")) == [
        (0, 1),
        (1, 1),
        (1, 2),
        (2, 1),
    ]
    with pytest.raises(Conflict, match="nothing of execution"):
        again.retry(fleet.control, execution, "ada", again.Wanted())
    assert max(fleet.ran().values()) == 1


def test_a_task_marked_as_succeeded_is_not_run_again(fleet: Fleet) -> None:
    execution = fleet.submit(BROKEN, mended="/nowhere")
    assert fleet.wait_for(execution).status == FAILED
    again.retry(fleet.control, execution, "ada", again.Wanted(mark_ok={"each": []}, reason="done by hand"))
    assert fleet.wait_for(execution).status == COMPLETED, fleet.story(execution)
    assert fleet.ran_tasks(execution)[-1] == "last"
    assert len(fleet.jobs(execution, "each")) == 3


def test_a_retry_by_the_newest_version_runs_what_was_mended(fleet: Fleet) -> None:
    broken = BROKEN.lstrip().replace("test -e {{ parameters.mended }}", "exit 4")
    first = f"ref: control.mended\n{broken}"
    library.store_workflow(fleet.control, "control", first, "ada")
    execution = fleet.submit(first, mended="")
    assert fleet.wait_for(execution).status == FAILED
    library.store_workflow(fleet.control, "control", first.replace("exit 4", "exit 0"), "ada")
    again.retry(fleet.control, execution, "ada", again.Wanted(version="latest"))
    row = fleet.wait_for(execution)
    assert (row.status, row.output) == (COMPLETED, {"units": ["succeeded"] * 3, "last": "one"}), fleet.story(
        execution
    )
    assert fleet.ran_tasks(execution) == ["first", "each", "each", "each", "each", "last"]
