"""Seed 004, the language of workflows, row by row: S4.1 to S4.13, S4.17, S4.18, S4.30."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
import yaml
from begun import Begun, descendants, each, log, of, over, question, statuses
from running import Running

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def begun(running: Running) -> Begun:
    return Begun(running)


# S4.1

WHOLE = """\
ref: acceptance.whole
label: Every key
description: What a workflow may say of itself.
version: "1.10"
tags: [nightly, database]
parameters:
  app_name: {type: string, required: true, description: What to deploy.}
  environment: {type: string, enum: [dev, production], default: dev}
output:
  type: object
  properties: {deployed: {type: string}}
vars: {greeting: "to {{ parameters.environment }}", count: 0}
tasks:
  - name: deploy
    action: core.shell
    delegate_to: web-1
    input: {command: "echo {{ parameters.app_name }} {{ vars.greeting }}"}
    publish: [{count: "{{ vars.count + 1 }}"}]
output_map: {deployed: "{{ task.deploy.result.stdout }}", count: "{{ vars.count }}"}
"""


def test_S4_01_a_workflow_says_all_that_the_top_level_has(running: Running) -> None:
    assert running.post("/packs/acceptance/workflows", {"definition": WHOLE}, "author").status == 201
    shown = running.get("/workflows/acceptance.whole").data
    given = yaml.safe_load(WHOLE)
    for key in ("ref", "label", "description", "version", "tags", "output"):
        assert shown[key] == given[key]
    assert [one["name"] for one in shown["parameters"]] == ["app_name", "environment"]
    assert shown["source"] == WHOLE
    asked = {"parameters": {"app_name": "shop", "environment": "production"}}
    found = running.post("/workflows/acceptance.whole/execute?wait=60", asked).data
    assert (found["workflow"], found["status"]) == ("acceptance.whole", "completed")
    assert found["variables"] == {"greeting": "to production", "count": 1}
    assert found["output"] == {"deployed": "shop to production", "count": 1}


# S4.2


@each("bindings")
def test_S4_02_parameters_are_bound_or_refused_with_their_place(begun: Begun, case: dict[str, Any]) -> None:
    running = begun.running
    answer = running.post("/workflows/acceptance.typed/execute?wait=60", {"parameters": case["given"]})
    if "bound" in case:
        assert (answer.status, answer.data["parameters"]) == (201, case["bound"])
        assert {name: type(value) for name, value in answer.data["parameters"].items()} == {
            name: type(value) for name, value in case["bound"].items()
        }
    else:
        assert (answer.status, [one["pointer"] for one in answer.data["errors"]]) == (422, [case["pointer"]])


def test_S4_02_a_parameter_is_declared_with_all_that_it_is(begun: Begun) -> None:
    listed = begun.running.get("/workflows/acceptance.typed").data["parameters"]
    shown = {one["name"]: one for one in listed}
    assert {key: shown["where"][key] for key in ("type", "enum", "default", "required")} == {
        "type": "string",
        "enum": ["dev", "staging", "production"],
        "default": "dev",
        "required": False,
    }
    assert (shown["text"]["required"], shown["text"]["description"]) == (True, "Any text.")


# S4.3 to S4.10, S4.12, S4.13: what the file of cases says


@of("S4.3")
def test_S4_03_a_task_may_have_all_of_its_keys(begun: Begun, case: dict[str, Any]) -> None:
    begun.check(case)


@of("S4.4")
def test_S4_04_a_workflow_is_an_action(begun: Begun, case: dict[str, Any]) -> None:
    begun.check(case)


def test_S4_04_called_by_the_api_and_by_the_command_line_too(begun: Begun) -> None:
    """And what it calls is linked to it, whoever called it."""
    running = begun.running
    found = running.post("/workflows/acceptance.deeper/execute?wait=60", {"parameters": {"word": "you"}}).data
    assert found["output"] == {"said": "hello YOU"}
    (child,) = descendants(running, found["id"])
    called = running.execution(child)
    assert (called["workflow"], called["parent"]) == ("acceptance.greet", found["id"])
    assert (called["requester"], called["trace_id"]) == ("operator", found["trace_id"])
    assert called["parameters"] == {"word": "YOU"}
    done = running.muster("run", "acceptance.greet", "-p", "word=shell", "--json", role="operator")
    assert done.returncode == 0, done.stderr
    assert '"said": "hello shell"' in done.stdout


@of("S4.5")
def test_S4_05_a_block_is_over_when_all_of_its_children_are(begun: Begun, case: dict[str, Any]) -> None:
    begun.check(case)


@of("S4.6")
def test_S4_06_a_loop_runs_once_for_each_item(begun: Begun, case: dict[str, Any]) -> None:
    begun.check(case)


@of("S4.7")
def test_S4_07_a_batch_is_a_list_and_counts_as_one(begun: Begun, case: dict[str, Any]) -> None:
    begun.check(case)


@of("S4.8")
def test_S4_08_total_count_is_of_items(begun: Begun, case: dict[str, Any]) -> None:
    begun.check(case)


@of("S4.9")
def test_S4_09_when(begun: Begun, case: dict[str, Any]) -> None:
    begun.check(case)


@of("S4.10")
def test_S4_10_decision(begun: Begun, case: dict[str, Any]) -> None:
    begun.check(case)


# S4.11

INQUIRY = """\
ref: acceptance.inquiry
parameters: {app_name: {type: string, default: shop}, effects: {type: string, required: true}}
tasks:
  - name: require_approval
    action: core.inquiry
    input:
      prompt: "Approve production deployment of {{ parameters.app_name }}?"
      schema: {type: object, required: [approved], properties: {approved: {type: boolean}, why: {type: string}}}
    on_success: deploy_app
    decision:
      - {when: "{{ task.require_approval.result.approved == true }}", next: deploy_app}
      - default: cancel_deployment
  - {name: deploy_app, action: core.shell, input: {command: 'echo $MUSTER_TASK >> {{ parameters.effects }}'}}
  - {name: cancel_deployment, action: core.shell, input: {command: 'echo $MUSTER_TASK >> {{ parameters.effects }}'}}
output_map: {why: "{{ task.require_approval.result.why }}"}
"""


@pytest.mark.parametrize(("approved", "task"), [(False, "cancel_deployment"), (True, "deploy_app")])
def test_S4_11_an_inquiry_waits_for_an_answer_and_the_answer_is_its_result(
    running: Running, approved: bool, task: str
) -> None:
    """Probe (a): seed 2.3, whose task has `on_success` and `decision` both."""
    effects = running.effects / f"inquiry-{approved}"
    body = {"definition": INQUIRY, "parameters": {"effects": str(effects)}}
    id = running.post("/workflow-executions", body, "author").data["id"]
    (asked,) = question(running, id)
    assert asked["prompt"] == "Approve production deployment of shop?"
    (row,) = [row for row in running.units(id) if row["task"] == "require_approval"]
    assert (running.execution(id)["status"], row["status"], row["wait_reason"]) == (
        "waiting",
        "waiting",
        "person",
    )
    path = f"/automation/approvals/{asked['id']}/answer"
    wrong = running.post(path, {"answer": {"approved": "certainly"}})
    assert (wrong.status, [one["pointer"] for one in wrong.data["errors"]]) == (422, ["/answer/approved"])
    assert running.post(path, {"answer": {"approved": approved, "why": "friday"}}).status == 200
    found = over(running, id)
    assert (found["status"], found["output"]) == ("completed", {"why": "friday"})
    assert effects.read_text().split() == [task]
    other = {"cancel_deployment": "deploy_app", "deploy_app": "cancel_deployment"}[task]
    assert statuses(running, id) == {"require_approval": "succeeded", task: "succeeded", other: "not_reached"}
    assert running.post(path, {"answer": {"approved": approved}}).data["code"] == "already-decided"


@of("S4.12")
def test_S4_12_retry(begun: Begun, case: dict[str, Any]) -> None:
    begun.check(case)


PROBE_E = """\
workflow:
  ref: acceptance.waits
  tasks:
    - name: flaky_api_call
      action: core.shell
      timeout: 30
      input: {command: call}
      retry:
        count: 5
        delay: 10
        backoff: exponential
        max_delay: 60
        on_error: "{{ task.flaky_api_call.error.type == 'timeout' }}"
      on_failure: noop
tests:
  - name: probe e
    outcomes: {flaky_api_call: timed_out}
    expect: {waits: [10, 20, 40, 60, 60], tasks: {flaky_api_call: timed_out}}
  - name: only while on_error is true
    outcomes: {flaky_api_call: [timed_out, timed_out, failed]}
    expect: {waits: [10, 20], tasks: {flaky_api_call: failed}}
"""


def test_S4_12_the_waits_of_the_seed_in_virtual_time(running: Running) -> None:
    """Probe (e): 190 seconds of waits that nobody has to wait for."""
    file = running.directory / "waits.test.yaml"
    file.write_text(PROBE_E)
    done = running.muster("test", str(file))
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "2 tests: 2 passed, 0 failed"), done.stdout


@of("S4.13")
def test_S4_13_timeout_and_on_timeout(begun: Begun, case: dict[str, Any]) -> None:
    begun.check(case)


# S4.17, S4.18


@of("S4.17")
def test_S4_17_scopes(begun: Begun, case: dict[str, Any]) -> None:
    begun.check(case)


def test_S4_17_the_scope_of_the_system(running: Running) -> None:
    names = ("execution_id", "timestamp")
    task = {
        "name": "a",
        "action": "core.echo",
        "input": {"message": {n: f"{{{{ system.{n} }}}}" for n in names}},
    }
    found = running.run(task)
    told = found["output"]["a"]["message"]
    assert told["execution_id"] == found["id"]
    assert told["timestamp"] == pytest.approx(
        datetime.fromisoformat(found["created_at"]).timestamp(), abs=0.001
    )


@of("S4.18")
def test_S4_18_filters(begun: Begun, case: dict[str, Any]) -> None:
    begun.check(case)


# What semantics.md adds


@of("joins", "ends", "publishing", "tolerance")
def test_what_is_more_than_the_seed(begun: Begun, case: dict[str, Any]) -> None:
    begun.check(case)


# S4.30


@of("S4.30")
def test_S4_30_workflows_are_kept_apart_and_within_bounds(begun: Begun, case: dict[str, Any]) -> None:
    begun.check(case)


def test_S4_30_workflows_do_not_call_each_other_in_a_circle(running: Running) -> None:
    def store(name: str, action: str) -> Any:
        text = f"ref: acceptance.{name}\ntasks: [{{name: a, {action}}}]\n"
        return running.post("/packs/acceptance/workflows", {"definition": text}, "author")

    assert store("right", "action: core.noop").status == 201
    assert store("left", "type: workflow, action: acceptance.right").status == 201
    answer = store("right", "type: workflow, action: acceptance.left")
    assert (answer.status, answer.data["code"]) == (422, "self-call")
    assert "acceptance.right → acceptance.left → acceptance.right" in answer.data["detail"]
    assert running.get("/workflows/acceptance.right").data["revision"] == 1


@each("refused")
def test_S4_30_what_could_do_harm_is_refused_and_not_stored(running: Running, case: dict[str, Any]) -> None:
    text = case["text"] + "".join(
        f"  - {{name: t{number}, action: core.noop}}\n" for number in range(case.get("tasks", 0))
    )
    if "deep" in case:
        text += f"vars: {{x: {'[' * case['deep']}{']' * case['deep']}}}\n"
    answer = running.post("/packs/acceptance/workflows", {"definition": text}, "author")
    assert (answer.status, answer.data["code"]) == (422, "invalid-workflow"), answer.data
    first = answer.data["errors"][0]
    assert first["code"] == case["code"], answer.data
    if "at" in case:
        assert [first["line"], first["column"]] == case["at"]
    assert running.get("/workflows/acceptance.bad").status == 404


def test_S4_30_every_decision_and_transition_is_told(begun: Begun) -> None:
    """In the events of the execution, and the same as in its graph."""
    running, id = begun.running, begun.id("the default where none is true")
    over(running, id)
    lines = log(running, id)
    assert [line for line in lines if line["what"] == "decision"] == [
        {"what": "decision", "task": "measure", "when": "default", "next": ["small"]}
    ]
    fired = {
        (line["task"], target) for line in lines if line["what"] == "fired" for target in line["targets"]
    }
    edges = running.get(f"/workflow-executions/{id}/graph").data["edges"]
    assert fired == {(edge["from"], edge["to"]) for edge in edges if edge["state"] == "fired"}
    assert fired == {("measure", "small")}
    every = [(line["task"], line["status"]) for line in lines if line["what"] == "task"]
    assert sorted(every) == sorted(
        [
            *(("measure", status) for status in ("running", "succeeded")),
            *(("small", status) for status in ("running", "succeeded")),
            *((name, "not_reached") for name in ("large", "medium", "also")),
        ]
    )
