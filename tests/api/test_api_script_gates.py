"""A saved script that needs an approval, from its execution to the end, over the API: who decides, and what is told."""

from __future__ import annotations

from typing import Any

import pytest
from api_world import World
from script_shop import BODY, EXECUTE, GOOD, TARGET, put, stock
from sqlalchemy import delete, update

from app.store.tables import AuditEntry, Script, table

INBOX = "/automation/approvals"
audit = table(AuditEntry)


@pytest.fixture
def shop(world: World) -> World:
    """The script `deploy` needs an approval."""
    stock(world)
    need(world)
    return world


def need(world: World, **approval: Any) -> None:
    with world.control.store.write() as connection:
        connection.execute(update(Script).values(requires_approval=True, approval=approval))


def asked(world: World, role: str = "operator", **more: Any) -> tuple[str, str]:
    """The execution and its question."""
    answer = world.post(EXECUTE, {**GOOD, **more}, role)
    assert answer.status_code == 201, answer.text
    execution = str(answer.get_json()["id"])
    (found,) = [one for one in world.get(f"{INBOX}?status=pending")["items"] if one["execution"] == execution]
    return execution, found["id"]


def word(world: World, execution: str) -> str:
    return str(world.get(f"/automation/executions/{execution}")["status"])


def test_it_waits_in_the_inbox_and_then_runs(shop: World) -> None:
    execution, question = asked(shop)
    assert word(shop, execution) == "pending_approval"
    assert shop.open_jobs(execution) == []
    answer = shop.post(f"{INBOX}/{question}/approve?reason=seen", {}, "admin")
    assert (answer.status_code, answer.get_json()["status"]) == (200, "approved")
    assert answer.get_json()["decisions"][0]["reason"] == "seen"
    assert word(shop, execution) == "queued"
    assert len(shop.open_jobs(execution)) == 3


def test_what_would_run_where_is_shown(shop: World) -> None:
    execution, question = asked(shop)
    shown = shop.get(f"{INBOX}/{question}")
    about = shown["about"]
    (run,) = about["runs"]
    assert (shown["task"], shown["requester"], shown["prompt"]) == (
        "", "operator", "Run the script deploy, version 1, on 3 nodes?",
    )  # fmt: skip
    assert (run["nodes"], run["shell"], run["timeout"], run["body"]) == (GOOD["host_ids"], "sh", 60, BODY)
    assert about["parameters"] == {"target": "/srv"}
    assert (about["script"]["name"], about["script"]["version"], about["is_genuine"]) == ("deploy", 1, True)
    assert "subject" not in shown
    (listed,) = shop.get(f"{INBOX}?status=pending")["items"]
    assert (listed["execution"], listed["digest"]) == (execution, shown["digest"])


def test_a_secret_is_shown_by_its_name(shop: World) -> None:
    secret = {"name": "token", "type": "secret"}
    put(shop, "other", BODY, [TARGET, secret], requires_approval=True, approval={})
    given = {**GOOD["parameter_values"], "token": "own-value"}
    answer = shop.post(EXECUTE.replace("deploy", "other"), {**GOOD, "parameter_values": given}, "operator")
    assert answer.status_code == 201, answer.text
    (listed,) = shop.get(f"{INBOX}?status=pending")["items"]
    answer = shop.ask("GET", f"/api/v1{INBOX}/{listed['id']}")
    assert answer.get_json()["about"]["parameters"]["token"] == "secretref:parameter:token"
    assert "own-value" not in answer.text


def test_a_rejection_ends_it(shop: World) -> None:
    execution, question = asked(shop)
    assert shop.post(f"{INBOX}/{question}/reject?reason=not%20today", {}, "admin").status_code == 200
    assert word(shop, execution) == "rejected"
    found = shop.get(f"/workflow-executions/{execution}")
    assert (found["error_type"], found["error_message"]) == ("rejected", "rejected by admin: not today")
    again = shop.post(f"{INBOX}/{question}/approve", {}, "admin")
    assert (again.status_code, again.get_json()["code"]) == (409, "already-decided")


def test_nobody_approves_their_own_by_another_token(shop: World) -> None:
    _, question = asked(shop, "admin")
    made = shop.post("/tokens", {"login": "admin", "name": "second"}, "admin").get_json()["token"]
    headers = {"Authorization": f"Bearer {made}"}
    answer = shop.post(f"{INBOX}/{question}/approve", {}, "", headers=headers)
    assert (answer.status_code, answer.get_json()["code"]) == (403, "own-request")


@pytest.mark.parametrize("change", ["edited", "deleted"])
def test_a_script_that_changed_after_it_was_asked_for(shop: World, change: str) -> None:
    execution, question = asked(shop)
    if change == "edited":
        put(shop, "deploy", "reboot\n", [TARGET], version=2)
    else:
        with shop.control.store.write() as connection:
            connection.execute(delete(Script))
    answer = shop.post(f"{INBOX}/{question}/approve", {}, "admin")
    assert (answer.status_code, answer.get_json()["code"]) == (409, "subject-changed")
    assert shop.get(f"{INBOX}/{question}")["status"] == "pending"
    with shop.control.store.read() as connection:
        query = audit.select().where(audit.c.subject == question)
        assert [(row.action, row.outcome) for row in connection.execute(query)] == [
            ("approval.approve", "refused")
        ]
    assert shop.post(f"{INBOX}/{question}/reject", {}, "admin").status_code == 200
    assert word(shop, execution) == "rejected"


def test_an_older_version_on_purpose_may_be_approved(shop: World) -> None:
    put(shop, "deploy", "echo two\n", [TARGET], version=2)
    execution, question = asked(shop, version=1)
    put(shop, "deploy", "echo three\n", [TARGET], version=3)
    assert shop.post(f"{INBOX}/{question}/approve", {}, "admin").status_code == 200
    assert word(shop, execution) == "queued"


def test_an_expired_request_is_not_decided(shop: World) -> None:
    need(shop, expires_in=3600)
    execution, question = asked(shop)
    with shop.control.store.write() as connection:
        connection.exec_driver_sql("UPDATE approvals SET expires_at = created_at")
    for verb in ("approve", "reject"):
        answer = shop.post(f"{INBOX}/{question}/{verb}", {}, "admin")
        assert (answer.status_code, answer.get_json()["code"]) == (409, "approval-expired")
    assert word(shop, execution) == "pending_approval"


def test_an_approval_that_was_switched_off_leaves_what_was_asked(shop: World) -> None:
    execution, question = asked(shop)
    settings = shop.control.settings
    object.__setattr__(settings, "automation_script_approval", False)
    answer = shop.post(EXECUTE, GOOD, "operator")
    assert (answer.status_code, answer.get_json()["code"]) == (402, "automation_script_approval")
    assert shop.post(f"{INBOX}/{question}/approve", {}, "admin").status_code == 200
    assert word(shop, execution) == "queued"


def test_a_cancel_closes_the_request(shop: World) -> None:
    execution, question = asked(shop)
    assert shop.post(f"/automation/executions/{execution}/cancel", {}, "operator").status_code == 202
    assert (word(shop, execution), shop.get(f"{INBOX}/{question}")["status"]) == ("cancelled", "closed")


def test_a_retry_asks_anew_for_the_hosts_that_failed(shop: World) -> None:
    execution, question = asked(shop)
    shop.post(f"{INBOX}/{question}/approve", {}, "admin")
    for job in shop.open_jobs(execution):
        shop.end(execution, job, status="failed" if ".0." in job else "succeeded", code=int(".0." in job))
    assert word(shop, execution) == "failed"
    assert shop.post(f"/automation/executions/{execution}/retry", {}, "operator").status_code == 202
    assert word(shop, execution) == "pending_approval"
    (listed,) = shop.get(f"{INBOX}?status=pending")["items"]
    assert listed["id"] != question
    assert shop.get(f"{INBOX}/{listed['id']}")["about"]["asked"] == 2
    assert shop.post(f"{INBOX}/{listed['id']}/approve", {}, "admin").status_code == 200
    assert len(shop.open_jobs(execution)) == 1


def test_notifications_are_listed_for_administrators(shop: World) -> None:
    _, question = asked(shop)
    (found,) = shop.get("/automation/notifications?status=pending", "admin")["items"]
    assert (found["kind"], found["subject"], found["status"]) == ("approval.asked", question, "pending")
    assert shop.get("/automation/notifications?status=failed", "admin")["items"] == []
    assert shop.ask("GET", "/api/v1/automation/notifications?status=lost", "admin").status_code == 422


def test_a_quorum_needs_as_many_people(shop: World) -> None:
    need(shop, quorum=2)
    shop.post("/users", {"login": "second", "role": "admin"}, "admin")
    made = shop.post("/tokens", {"login": "second", "name": "x"}, "admin").get_json()["token"]
    shop.tokens["second"] = made
    execution, question = asked(shop)
    assert shop.post(f"{INBOX}/{question}/approve", {}, "admin").get_json()["status"] == "pending"
    twice = shop.post(f"{INBOX}/{question}/approve", {}, "admin")
    assert (twice.status_code, twice.get_json()["code"]) == (409, "said-already")
    assert word(shop, execution) == "pending_approval"
    assert shop.post(f"{INBOX}/{question}/approve", {}, "second").get_json()["status"] == "approved"
    assert word(shop, execution) == "queued"
