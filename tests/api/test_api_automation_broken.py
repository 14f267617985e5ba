"""Ways around what saved scripts promise, each of which was open once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import script_shop
from api_world import World
from schedule_shop import fire
from script_shop import EXECUTE, GOOD

from app.api import create_app
from app.services.control import Control

PASTED: dict[str, Any] = {
    "name": "pasted",
    "shell": "sh",
    "body": "ls ${where}\n",
    "parameters": [{"name": "where", "type": "string", "pattern": "[a-z; ]*"}],
    "substitution": "text",
    "requires_approval": True,
}
BOUND = {**PASTED, "body": 'ls "${where}"\n', "substitution": "bound", "requires_approval": False}


@pytest.fixture
def fleet(world: World) -> World:
    return script_shop.stock(world)


def test_an_old_version_that_is_pasted_together_is_still_approved_first(fleet: World) -> None:
    for form in (PASTED, BOUND):
        assert fleet.post("/automation/scripts", form, "author").status_code in (200, 201)
    path = "/automation/scripts/pasted/execute"
    given = {"host_ids": ["web-1"], "parameter_values": {"where": "; reboot"}}
    newest = fleet.post(path, given, "operator").get_json()
    assert (newest["status"], newest["requires_approval"]) == ("queued", False)
    old = fleet.post(path, {**given, "version": 1}, "operator").get_json()
    assert (old["body"], old["status"]) == ("ls ; reboot\n", "pending_approval")


def test_a_key_that_comes_again_finds_what_it_made_whatever_became_of_the_script(fleet: World) -> None:
    key = {"headers": {"Idempotency-Key": "once"}}
    made = fleet.post(EXECUTE, GOOD, "operator", **key)
    assert made.status_code == 201
    assert fleet.ask("DELETE", "/api/v1/automation/scripts/deploy", "author").status_code == 204
    again = fleet.post(EXECUTE, GOOD, "operator", **key)
    assert (again.status_code, again.get_json().get("id")) == (200, made.get_json()["id"])
    other = fleet.post(EXECUTE, {**GOOD, "max_failures": 1}, "operator", **key)
    assert other.get_json()["code"] in ("idempotency-key-reused", "unknown-script")


def test_who_writes_into_a_schedule_of_another_does_not_approve_what_it_starts(fleet: World) -> None:
    gated = {"name": "gated", "shell": "sh", "body": 'echo "${a}"\n', "requires_approval": True}
    form = {**gated, "parameters": [{"name": "a", "type": "string"}]}
    assert fleet.post("/automation/scripts", form, "author").status_code == 201
    mine = {
        "name": "x",
        "script": "gated",
        "host_ids": ["web-1"],
        "cron": "0 3 * * *",
        "parameters": {"a": "b"},
    }
    assert fleet.post("/automation/schedules", mine, "operator").status_code == 201
    changed = {**mine, "parameters": {"a": "c"}}
    assert fleet.ask("PUT", "/api/v1/automation/schedules/x", json=changed).status_code == 200
    execution = fire(fleet, "x")["last_execution"]
    # What was asked stays asked, though the schedule is not there to tell any more.
    assert fleet.ask("DELETE", "/api/v1/automation/schedules/x").status_code == 204
    (asked,) = fleet.get("/automation/approvals?status=pending")["items"]
    assert (asked["execution"], asked["requester"]) == (execution, "admin")
    for person, status in (("admin", 403), ("approver", 200)):
        answer = fleet.post(f"/automation/approvals/{asked['id']}/approve", {}, person)
        assert answer.status_code == status, (person, answer.text)


def test_nobody_is_asked_anew_where_approvals_are_switched_off(fleet: World) -> None:
    form = {"name": "gated", "shell": "sh", "body": "true\n", "requires_approval": True}
    assert fleet.post("/automation/scripts", form, "author").status_code == 201
    execution = fleet.post(
        "/automation/scripts/gated/execute", {"host_ids": ["web-1"]}, "operator"
    ).get_json()["id"]
    (asked,) = fleet.get("/automation/approvals?status=pending")["items"]
    assert fleet.post(f"/automation/approvals/{asked['id']}/reject", {}, "approver").status_code == 200
    settings = replace(fleet.control.settings, automation_script_approval=False)
    control = Control(settings, fleet.control.store, fleet.nudged.extend)
    off = World(control, create_app(control=control), fleet.tokens)
    before = off.counts()
    for path in ("/automation/executions", "/workflow-executions"):
        answer = off.post(f"{path}/{execution}/retry", {}, "operator")
        assert (answer.status_code, answer.get_json()["code"]) == (402, "automation_script_approval"), path
    assert off.counts() == before
    assert fleet.post(f"/automation/executions/{execution}/retry", {}, "operator").status_code == 202


def test_what_no_order_could_carry_is_refused_before_anything_is_stored(fleet: World) -> None:
    names = [f"p{number}" for number in range(15)]
    form = {"name": "big", "shell": "sh", "body": f"# {'x' * 300_000}\n"}
    declared = [{"name": name, "type": "string"} for name in names]
    assert fleet.post("/automation/scripts", {**form, "parameters": declared}, "author").status_code == 201
    before = fleet.counts()
    given = {"host_ids": ["web-1"], "parameter_values": dict.fromkeys(names, "y" * 65_000)}
    answer = fleet.post("/automation/scripts/big/execute", given, "operator")
    (error,) = answer.get_json()["errors"]
    assert (answer.status_code, error["pointer"]) == (413, "/parameter_values")
    assert fleet.counts() == before
