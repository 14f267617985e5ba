"""Trying an execution again by the newest version of its workflow."""

from __future__ import annotations

from typing import Any

import pytest
from api_world import World
from sqlalchemy import select, update

from app.services import retention
from app.store.tables import AuditEntry, Event, Execution, Pin, StoredPlan, Task, table

audit = table(AuditEntry)

WORKFLOW = """
ref: shop.deploy
version: "1"
parameters: {where: {type: string, default: here}}
tasks:
  - {name: a, action: core.shell, input: {command: [one]}, on_success: b,
     publish: [{said: "{{ task.a.result.stdout }}"}]}
  - {name: b, action: core.shell, input: {command: [two]}, on_success: c}
  - {name: c, action: core.noop}
output_map: {said: "{{ vars.said }}"}
"""
MENDED = WORKFLOW.replace('"1"', '"2"').replace("command: [two]", "command: [mended]")
events, executions, pins, plans, tasks = (
    table(Event),
    table(Execution),
    table(Pin),
    table(StoredPlan),
    table(Task),
)


def stored(world: World, text: str) -> None:
    assert world.post("/packs/shop/workflows", {"definition": text}).status_code in (200, 201)


def failed(world: World, role: str = "operator") -> str:
    """An execution of which `a` succeeded and `b` failed, asked for by who has this role."""
    stored(world, WORKFLOW)
    execution = str(world.post("/workflows/shop.deploy/execute", {"parameters": {}}, role).get_json()["id"])
    (job,) = world.open_jobs(execution)
    world.end(execution, job, stdout=b"first\n")
    (job,) = world.open_jobs(execution)
    world.end(execution, job, status="failed", stdout=b"oops\n", code=1)
    assert world.get(f"/workflow-executions/{execution}")["status"] == "failed"
    return execution


def again(world: World, execution: str, role: str = "operator", **body: Any) -> Any:
    return world.post(f"/workflow-executions/{execution}/retry", {"version": "latest", **body}, role)


def rows(world: World, query: Any) -> list[Any]:
    with world.control.store.read() as connection:
        return list(connection.execute(query))


def test_a_mended_version_takes_the_place_of_the_pinned_one(world: World) -> None:
    execution = failed(world)
    newer = MENDED.replace(
        ", on_success: c}\n  - {name: c, action: core.noop}",
        ", on_success: e}\n  - {name: e, action: core.noop}",
    )
    stored(
        world,
        newer.replace("tasks:", "  n: {type: integer, default: 3}\ntasks:").replace(
            "parameters: {where: {type: string, default: here}}",
            "parameters:\n  where: {type: string, default: there}",
        ),
    )
    answer = again(world, execution, reason="mended")
    assert (answer.status_code, answer.get_json()["status"]) == (202, "running"), answer.text
    found = world.get(f"/workflow-executions/{execution}")
    assert (found["revision"], found["parameters"]) == (2, {"where": "here", "n": 3})
    assert set(found["task_graph"]) == {"a", "b", "e"}
    (job,) = world.open_jobs(execution)
    world.end(execution, job)
    found = world.get(f"/workflow-executions/{execution}")
    assert (found["status"], found["output"]) == ("completed", {"said": "first"})
    order = select(tasks.c.name).where(tasks.c.execution == execution).order_by(tasks.c.task_index)
    assert [row.name for row in rows(world, order)] == ["a", "b", "e"]
    assert [
        row.job
        for row in rows(world, select(events.c.seq.label("job")).where(events.c.execution == execution))
    ]


def test_events_say_which_plan_holds(world: World) -> None:
    execution = failed(world)
    (before,) = rows(world, select(executions.c.plan_digest).where(executions.c.id == execution))
    stored(world, MENDED)
    assert again(world, execution).status_code == 202
    (now,) = rows(world, select(executions.c.plan_digest).where(executions.c.id == execution))
    asked = select(events.c.seq, events.c.data).where(
        events.c.execution == execution, events.c.kind == "retry.asked"
    )
    (event,) = rows(world, asked)
    assert event.data["input"]["plan"] == now.plan_digest != before.plan_digest
    held = select(pins.c.seq, pins.c.plan_digest).where(pins.c.execution == execution).order_by(pins.c.seq)
    assert [tuple(row) for row in rows(world, held)] == [
        (1, before.plan_digest),
        (event.seq, now.plan_digest),
    ]
    with world.control.store.write() as connection:
        connection.execute(update(StoredPlan).values(used_at=0.0))
    assert world.ask("DELETE", "/api/v1/workflows/shop.deploy").status_code == 409
    retention.prune(world.control)
    kept = {row.digest for row in rows(world, select(plans.c.digest))}
    assert {before.plan_digest, now.plan_digest} <= kept


def test_output_of_a_task_that_is_gone_is_still_there(world: World) -> None:
    execution = failed(world)
    stored(
        world,
        WORKFLOW.replace("name: b, ", "name: b, when: '{{ true }}', "),
    )
    assert again(world, execution).status_code == 202
    (job,) = world.open_jobs(execution)
    world.end(execution, job, status="failed", stdout=b"again\n", code=1)
    stored(world, WORKFLOW.replace("on_success: b,", "on_success: z,").replace("name: b, ", "name: z, "))
    assert again(world, execution, **{"from": ["a"]}).status_code == 202
    told = world.get(f"/workflow-executions/{execution}/output")["items"]
    assert [(one["task"], one["text"]) for one in told if one["stream"] == "stdout"] == [
        ("a", "first\n"), ("b", "oops\n"), ("b", "again\n"),
    ]  # fmt: skip


@pytest.mark.parametrize("role", ["operator", "author"])
def test_without_a_newer_version_it_is_the_pinned_one(world: World, role: str) -> None:
    execution = failed(world)
    assert again(world, execution, role).status_code == 202
    assert not rows(world, select(pins.c.seq))


def test_nobody_has_a_newer_text_run_with_the_rights_of_another(world: World) -> None:
    execution = failed(world)
    stored(world, MENDED)
    before = world.counts()
    answer = again(world, execution, "author", **{"from": ["a"]})
    assert (answer.status_code, answer.get_json()["code"]) == (403, "not-requester"), answer.text
    assert "execute it anew" in answer.get_json()["hint"]
    assert world.counts() == before
    assert world.get(f"/workflow-executions/{execution}")["status"] == "failed"
    refused = select(audit.c.person, audit.c.action, audit.c.detail).where(audit.c.outcome == "refused")
    ((person, action, detail),) = rows(world, refused.where(audit.c.subject == execution))
    assert (person, action, detail["code"]) == ("author", "execution.retry", "not-requester")


def test_an_administrator_may_have_a_newer_text_run_for_another(world: World) -> None:
    execution = failed(world)
    stored(world, MENDED)
    assert again(world, execution, "admin").status_code == 202
    assert world.get(f"/workflow-executions/{execution}")["revision"] == 2


@pytest.mark.parametrize(
    ("newer", "code", "words"),
    [
        (WORKFLOW.replace("[one]", "[other]"), "kept-tasks-changed", "a: it succeeded and is changed"),
        (
            WORKFLOW.replace("here}", "here}, more: {required: true}"),
            "parameters-changed",
            "`more` is required",
        ),
        (
            WORKFLOW.replace("here}", "here}, more: {type: secret, default: hunter2}"),
            "parameters-changed",
            "more, a secret",
        ),
        (
            WORKFLOW.replace("type: string", "type: integer").replace("default: here", "default: 1"),
            "parameters-changed",
            "whole number",
        ),
        (
            WORKFLOW.replace("tasks:", 'vars: {x: "{{ parameters.where | int }}"}\ntasks:'),
            "parameters-changed",
            "vars.x: text that is no number",
        ),
    ],
)
def test_what_bars_the_way_changes_nothing(world: World, newer: str, code: str, words: str) -> None:
    execution = failed(world)
    stored(world, newer)
    before = world.counts()
    answer = again(world, execution)
    assert (answer.status_code, answer.get_json()["code"]) == (409, code), answer.text
    assert words in answer.get_json()["detail"]
    assert world.counts() == before
    assert world.get(f"/workflow-executions/{execution}")["status"] == "failed"


def test_what_is_not_stored_has_no_newer_version(world: World) -> None:
    execution = world.run(WORKFLOW)
    (job,) = world.open_jobs(execution)
    world.end(execution, job, status="failed", code=1)
    answer = again(world, execution)
    assert (answer.status_code, answer.get_json()["code"]) == (409, "not-stored")


def test_a_workflow_that_is_no_longer_there(world: World) -> None:
    execution = failed(world)
    assert world.ask("DELETE", "/api/v1/workflows/shop.deploy").status_code == 204
    answer = again(world, execution)
    assert (answer.status_code, answer.get_json()["code"]) == (404, "unknown-workflow")


@pytest.mark.parametrize("version", ["2", 2, "newest", ""])
def test_only_the_latest_can_be_asked_for(world: World, version: Any) -> None:
    execution = failed(world)
    answer = again(world, execution, version=version)
    assert (answer.status_code, answer.get_json()["errors"][0]["pointer"]) == (422, "/version")


def test_a_workflow_that_would_start_itself_is_not_stored(world: World) -> None:
    task = "ref: shop.{0}\ntasks: [{{name: a, type: workflow, action: shop.{1}}}]\n"
    stored(world, task.format("one", "two"))
    stored(world, task.format("two", "three"))
    before = world.counts()
    answer = world.post("/packs/shop/workflows", {"definition": task.format("three", "one")})
    assert (answer.status_code, answer.get_json()["code"]) == (422, "self-call")
    assert "shop.three → shop.one → shop.two → shop.three" in answer.get_json()["detail"]
    assert world.counts() == before
    stored(world, task.format("three", "four"))
    answer = world.post("/packs/shop/workflows", {"definition": task.format("three", "three")})
    assert answer.get_json()["errors"][0]["code"] == "self-call"
