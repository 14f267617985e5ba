"""Seed 002, approvals, row by row: S2.12 to S2.16. Real control worker and nodes; people ask and decide as they do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from begun import over
from gated import Saved
from running import Running
from sqlalchemy import select, update
from waiting import wait_until

from app.services.control import Control
from app.settings import Settings
from app.store.db import Store
from app.store.tables import Script, Task, table

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(180)]

INBOX = "/automation/approvals"
scripts, tasks = table(Script), table(Task)


class Guarded:
    """A saved script that needs an approval and writes down where it ran: the author asks, an administrator decides."""

    def __init__(self, running: Running, control: Control) -> None:
        self.running = running
        self.control = control
        self.ran = running.effects / "guarded"
        self.saved = Saved.save(control, f'echo "$MUSTER_NODE" >> {self.ran}\n')
        self.needs()

    def needs(self, **approval: Any) -> None:
        with self.control.store.write() as connection:
            mine = update(Script).where(scripts.c.id == self.saved.id)
            connection.execute(mine.values(requires_approval=True, approval=approval))

    def ask(self, *nodes: str) -> tuple[str, dict[str, Any]]:
        """The execution, and its question as the inbox lists it."""
        body = {"host_ids": list(nodes)}
        asked = self.running.post(f"/automation/scripts/{self.saved.id}/execute", body, "author")
        assert asked.status == 201, asked.data
        id = str(asked.data["id"])
        (found,) = [one for one in self.inbox() if one["execution"] == id]
        return id, found

    def inbox(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.running.get(f"{INBOX}?status=pending").data["items"]
        return found

    def decide(self, question: dict[str, Any], verb: str, role: str = "admin") -> Any:
        return self.running.post(f"{INBOX}/{question['id']}/{verb}", {}, role)

    def word(self, id: str) -> str:
        return str(self.running.get(f"/automation/executions/{id}").data["status"])

    def becomes(self, id: str, word: str) -> None:
        wait_until(
            lambda: self.word(id) == word, lambda: self.running.get(f"/automation/executions/{id}").data
        )

    def ran_on(self) -> list[str]:
        """The nodes where it ran, each time, since the last look."""
        found = sorted(self.ran.read_text().split()) if self.ran.exists() else []
        self.ran.unlink(missing_ok=True)
        return found


@pytest.fixture(scope="module")
def guarded(running: Running) -> Iterator[Guarded]:
    environment = running.environment(**running._urls)
    settings = Settings(data_dir=str(running.data), database_url=environment.get("DATABASE_URL", ""))
    store = Store(settings.database)
    yield Guarded(running, Control(settings, store))
    store.close()


def test_S2_12_a_script_that_needs_an_approval_waits_beside_its_request(guarded: Guarded) -> None:
    id, question = guarded.ask("web-1", "web-2")
    assert guarded.word(id) == "pending_approval"
    found = guarded.running.execution(id)
    assert (found["status"], found["started_at"]) == ("waiting", None)
    assert (question["execution"], question["requester"], question["kind"]) == (id, "author", "approval")
    assert guarded.running.units(id)[0]["job"] is None
    assert guarded.ran_on() == []
    assert guarded.decide(question, "reject").status == 200


def test_S2_13_the_inbox_lists_what_is_pending_and_shows_what_would_run_where(guarded: Guarded) -> None:
    id, question = guarded.ask("web-1", "web-3")
    about = guarded.running.get(f"{INBOX}/{question['id']}").data["about"]
    (run,) = about["runs"]
    assert (run["nodes"], run["shell"], run["body"]) == (["web-1", "web-3"], "bash", guarded.saved.body)
    listed = guarded.running.muster("approval", "list", "--json", role="viewer")
    assert question["id"] in {one["id"] for one in json.loads(listed.stdout)["items"]}
    shown = guarded.running.muster("approval", "show", question["id"], role="viewer").stdout
    assert "nodes    web-1,web-3" in shown
    assert f"    {guarded.saved.body}" in shown
    done = guarded.running.muster("approval", "reject", question["id"], "--reason", "seen", role="admin")
    assert done.stdout == f"approval={question['id']} status=rejected\n"
    assert question["id"] not in {one["id"] for one in guarded.inbox()}
    assert over(guarded.running, id)["status"] == "rejected"


def test_S2_14_an_approval_lets_the_linked_execution_be_queued_and_dispatched(guarded: Guarded) -> None:
    id, question = guarded.ask("web-1", "web-2")
    answer = guarded.decide(question, "approve")
    assert (answer.status, answer.data["status"]) == (200, "approved")
    assert guarded.word(id) in ("queued", "running", "succeeded")
    guarded.becomes(id, "succeeded")
    assert guarded.ran_on() == ["web-1", "web-2"]
    hosts = guarded.running.get(f"/automation/executions/{id}").data["hosts"]
    assert [(host["host_id"], host["status"]) for host in hosts] == [
        ("web-1", "succeeded"),
        ("web-2", "succeeded"),
    ]
    assert guarded.running.ask("GET", f"/api/v1/workflow-executions/{id}/replay").data["is_same"] is True


def test_S2_15_a_rejection_with_a_reason_ends_the_linked_execution(guarded: Guarded) -> None:
    id, question = guarded.ask("web-1")
    answer = guarded.running.post(f"{INBOX}/{question['id']}/reject?reason=not%20today", {}, "admin")
    assert (answer.status, answer.data["decisions"][0]["reason"]) == (200, "not today")
    assert guarded.word(id) == "rejected"
    found = guarded.running.execution(id)
    assert (found["status"], found["error_message"]) == ("rejected", "rejected by admin: not today")
    assert {one["status"] for one in guarded.running.units(id)} == {"not_reached"}
    (entry,) = guarded.running.audit(subject=question["id"])
    assert (entry["action"], entry["person"], entry["outcome"]) == ("approval.reject", "admin", "accepted")


def test_S2_15_nobody_decided_in_time(guarded: Guarded) -> None:
    guarded.needs(expires_in=1)
    id, question = guarded.ask("web-1")
    guarded.becomes(id, "rejected")
    guarded.needs()
    assert guarded.running.get(f"{INBOX}/{question['id']}").data["status"] == "expired"
    assert guarded.decide(question, "approve").status == 409


def test_S2_16_an_approval_is_for_one_execution_and_is_given_once(guarded: Guarded) -> None:
    first, question = guarded.ask("web-1")
    own = guarded.decide(question, "approve", "author")
    assert own.status == 403
    assert guarded.decide(question, "approve").status == 200
    again = guarded.decide(question, "approve")
    assert (again.status, again.data["code"]) == (409, "already-decided")
    second, other = guarded.ask("web-1")
    assert (other["id"] != question["id"], guarded.word(second)) == (True, "pending_approval")
    assert guarded.decide(other, "reject").status == 200
    guarded.becomes(first, "succeeded")
    assert guarded.ran_on() == ["web-1"]


def test_S2_16_a_script_that_changed_after_it_was_asked_for_is_not_approved(guarded: Guarded) -> None:
    id, question = guarded.ask("web-1")
    before = guarded.saved.body
    guarded.saved.edit("reboot\n")
    refused = guarded.decide(question, "approve")
    assert (refused.status, refused.data["code"]) == (409, "subject-changed")
    assert guarded.word(id) == "pending_approval"
    assert guarded.running.post(f"/automation/executions/{id}/cancel", {}, "author").status == 202
    assert guarded.running.get(f"{INBOX}/{question['id']}").data["status"] == "closed"
    guarded.saved.edit(before)
    assert guarded.ran_on() == []


def test_S2_16_a_change_in_the_database_behind_the_approval_does_not_run(
    guarded: Guarded, tmp_path: Path
) -> None:
    """The control worker signs what was approved, and nothing else."""
    running = guarded.running
    assert running.post("/nodes/web-1/drain", {"drain": True}).status == 200
    id, question = guarded.ask("web-1")
    assert guarded.decide(question, "approve").status == 200
    wait_until(lambda: running.units(id)[0]["status"] == "queued", lambda: running.units(id))
    with guarded.control.store.write() as connection:
        mine = tasks.c.execution == id
        given = connection.execute(select(tasks.c.input).where(mine)).scalar_one()
        hostile = {**given, "script": f"touch {tmp_path}/x"}
        connection.execute(update(tasks).where(mine).values(input=hostile))
    assert running.post("/nodes/web-1/drain", {"drain": False}).status == 200
    assert over(running, id)["status"] == "failed"
    (unit,) = running.units(id)
    assert (unit["status"], unit["error"]["type"]) == ("failed", "not_approved")
    assert guarded.ran_on() == []
    assert not list(tmp_path.iterdir())
