"""Probes straight from the seeds (semantics.md) on real workers; the others of them are in cases.yaml."""

from __future__ import annotations

from itertools import pairwise

import pytest
from fleet import Fleet
from sqlalchemy import select
from waiting import wait_until

from app.engine.status import COMPLETED, FAILED
from app.services import approvals, library
from app.store.tables import Approval, table

pytestmark = pytest.mark.fleet
questions = table(Approval)

ASKS = """
parameters: {effects: {type: string, required: true}}
tasks:
  - name: require_approval
    action: core.inquiry
    input:
      prompt: Approve the deployment?
      schema: {type: object, required: [approved], properties: {approved: {type: boolean}}}
    on_success: deploy_app
    decision:
      - {when: "{{ task.require_approval.result.approved == true }}", next: deploy_app}
      - {default: cancel_deployment}
  - {name: deploy_app, action: core.shell, delegate_to: web-1,
     input: {command: 'echo $MUSTER_JOB >> {{ parameters.effects }}'}}
  - {name: cancel_deployment, action: core.shell, delegate_to: web-2,
     input: {command: 'echo $MUSTER_JOB >> {{ parameters.effects }}'}}
"""


@pytest.mark.parametrize(("approved", "ran"), [(False, ["cancel_deployment"]), (True, ["deploy_app"])])
def test_a_decision_after_an_answer(fleet: Fleet, approved: bool, ran: list[str]) -> None:
    """Probe a: both `on_success` and `decision` stand there, and the decision alone counts."""
    execution = fleet.submit(ASKS)
    query = select(questions.c.id).where(questions.c.execution == execution)

    def asked() -> str | None:
        with fleet.store.read() as connection:
            return connection.execute(query).scalar()

    question = wait_until(asked, "the question")
    approvals.decide(
        fleet.control, question, approvals.Word("grace", "answer", answer={"approved": approved})
    )
    assert fleet.wait_for(execution).status == COMPLETED, fleet.story(execution)
    assert fleet.ran_tasks(execution) == ran


def test_a_timeout_under_input_is_an_argument(fleet: Fleet) -> None:
    """Probe c: half a second of work with `timeout: 0.2` in its input is not timed out."""
    child = """
ref: probes.wait_for_ready
parameters: {deployment: {type: string}, timeout: {type: number}}
tasks:
  - {name: work, action: core.shell, delegate_to: web-1,
     input: {command: 'sleep 0.5; echo {{ parameters.deployment }} {{ parameters.timeout }}'}}
output_map: {said: "{{ task.work.result.stdout }}"}
"""
    library.store_workflow(fleet.control, "probes", child, "ada")
    execution = fleet.submit(
        "tasks:\n"
        "  - {name: wait_for_ready, type: workflow, action: probes.wait_for_ready,"
        " input: {deployment: web, timeout: 0.2}}\n"
        'output_map: {said: "{{ task.wait_for_ready.result.said }}"}'
    )
    row = fleet.wait_for(execution)
    assert (row.status, row.output) == (COMPLETED, {"said": "web 0.2"}), fleet.story(execution)


def test_250_items_in_batches_of_100(fleet: Fleet) -> None:
    """Probe d: three units of 100, 100 and 50 items, index 0 to 2."""
    execution = fleet.submit("""
tasks:
  - name: each
    action: core.shell
    with_items: "{{ range(250) }}"
    batch_size: 100
    concurrency: 5
    delegate_to: "{{ 'web-1' if index == 1 else 'web-2' }}"
    input: {command: 'echo {{ index }} {{ item | length }} {{ item | first }} {{ item | last }} $MUSTER_NODE'}
output_map:
  said: "{{ task.each.result | map(attribute='stdout') | list }}"
  total: "{{ task.each.total_count }}"
""")
    row = fleet.wait_for(execution)
    assert row.status == COMPLETED, fleet.story(execution)
    said = ["0 100 0 99 web-2", "1 100 100 199 web-1", "2 50 200 249 web-2"]
    assert row.output == {"said": said, "total": 250}


def test_waits_grow_up_to_their_ceiling(fleet: Fleet) -> None:
    """Probe e, a hundred times as fast: 0.1, 0.2, 0.4, 0.6 and 0.6 s, and only while on_error is true."""
    text = """
parameters: {effects: {type: string, required: true}, again: {type: boolean, default: true}}
tasks:
  - name: a
    action: core.shell
    delegate_to: web-1
    input: {command: 'echo $MUSTER_JOB >> {{ parameters.effects }}; exit 3'}
    retry:
      count: 5
      delay: 0.1
      backoff: exponential
      max_delay: 0.6
      on_error: "{{ parameters.again and task.a.result.exit_code == 3 }}"
"""
    execution = fleet.submit(text)
    assert fleet.wait_for(execution).status == FAILED
    jobs = fleet.jobs(execution, "a")
    assert [job.attempt for job in jobs] == [1, 2, 3, 4, 5, 6]
    waits = [after.dispatched_at - before.recorded_at for before, after in pairwise(jobs)]
    assert all(waited >= least for waited, least in zip(waits, (0.1, 0.2, 0.4, 0.6, 0.6), strict=True)), waits
    assert fleet.ran_tasks(execution) == ["a"] * 6
    execution = fleet.submit(text, again=False)
    assert fleet.wait_for(execution).status == FAILED
    assert len(fleet.jobs(execution, "a")) == 1
