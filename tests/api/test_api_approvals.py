"""Questions to people: who may decide, what comes of it, and that one of many wins."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest
from api_world import World

INBOX = "/automation/approvals"

GATE = """
tasks:
  - name: go
    action: core.approval
    input: {prompt: "Deploy {{ parameters.what }}?", quorum: %d%s}
    on_success: deploy
    on_failure: say
  - {name: deploy, action: core.noop}
  - {name: say, action: core.noop}
parameters: {what: {type: string, default: shop}}
output_map: {said: "{{ task.go.result }}", error: "{{ task.go.error.type }}"}
"""
ASK = """
tasks:
  - name: ask
    action: core.inquiry
    input:
      prompt: Which version?
      schema: {type: object, required: [version], properties: {version: {type: string, maxLength: 5}}}
output_map: {version: "{{ task.ask.result.version }}"}
"""


def asked(world: World, text: str) -> tuple[str, str]:
    """The execution and its one question."""
    execution = world.run(text)
    (found,) = [one for one in world.get(f"{INBOX}?status=pending")["items"] if one["execution"] == execution]
    assert world.get(f"/workflow-executions/{execution}")["status"] == "waiting"
    return execution, found["id"]


def state(world: World, execution: str) -> dict[str, Any]:
    found: dict[str, Any] = world.get(f"/workflow-executions/{execution}")
    return found


def test_an_approval_lets_the_execution_go_on(world: World) -> None:
    execution, question = asked(world, GATE % (1, ""))
    shown = world.get(f"{INBOX}/{question}")
    assert (shown["prompt"], shown["requester"], shown["task"], len(shown["digest"])) == (
        "Deploy shop?", "admin", "go", 64,
    )  # fmt: skip
    answer = world.post(f"{INBOX}/{question}/approve", {"reason": "looks fine"}, "approver")
    assert (answer.status_code, answer.get_json()["status"]) == (200, "approved")
    found = state(world, execution)
    assert (found["status"], found["degraded"]) == ("completed", False)
    assert found["output"]["said"] == {
        "outcome": "approved", "decided_by": ["approver"], "reason": "looks fine",
    }  # fmt: skip
    again = world.post(f"{INBOX}/{question}/reject", {}, "approver")
    assert (again.status_code, again.get_json()["code"]) == (409, "already-decided")
    assert world.get(f"{INBOX}?status=pending")["items"] == []


def test_a_rejection_is_a_failure_with_a_reason(world: World) -> None:
    execution, question = asked(world, GATE % (2, ""))
    assert world.post(f"{INBOX}/{question}/reject?reason=not%20today", {}, "approver").status_code == 200
    found = state(world, execution)
    assert (found["status"], found["degraded"], found["output"]["error"]) == ("completed", True, "rejected")
    assert world.get(f"{INBOX}/{question}")["decisions"][0]["reason"] == "not today"


def test_a_quorum_counts_people_once(world: World) -> None:
    execution, question = asked(world, GATE % (2, ", approvers: [operator, author]"))
    assert world.post(f"{INBOX}/{question}/approve", {}, "operator").get_json()["status"] == "pending"
    twice = world.post(f"{INBOX}/{question}/approve", {}, "operator")
    assert (twice.status_code, twice.get_json()["code"]) == (409, "said-already")
    assert state(world, execution)["status"] == "waiting"
    assert world.post(f"{INBOX}/{question}/approve", {}, "author").get_json()["status"] == "approved"
    assert state(world, execution)["output"]["said"]["decided_by"] == ["operator", "author"]


def test_whoever_is_named_decides_whatever_their_role(world: World) -> None:
    """And nobody else does, for then it is theirs."""
    execution, question = asked(world, GATE % (1, ", approvers: [viewer]"))
    assert world.post(f"{INBOX}/{question}/approve", {}, "approver").get_json()["code"] == "not-approver"
    assert world.post(f"{INBOX}/{question}/approve", {}, "viewer").status_code == 200
    assert state(world, execution)["output"]["said"]["decided_by"] == ["viewer"]


@pytest.mark.parametrize("role", ["operator", "approver", "author"])
def test_an_inquiry_is_for_operators_and_approvers(world: World, role: str) -> None:
    execution, question = asked(world, ASK)
    said = {"answer": {"version": "1.4"}}
    assert world.post(f"{INBOX}/{question}/answer", said, role).status_code == 200
    assert state(world, execution)["status"] == "completed"


@pytest.mark.parametrize(
    ("text", "verb", "role", "status", "code"),
    [
        (GATE % (1, ""), "approve", "admin", 403, "own-request"),
        (GATE % (1, ", approvers: [author]"), "approve", "approver", 403, "not-approver"),
        (GATE % (1, ", approvers: [author]"), "approve", "operator", 403, "role-required"),
        (GATE % (1, ""), "approve", "viewer", 403, "role-required"),
        (GATE % (1, ""), "approve", "operator", 403, "role-required"),
        (GATE % (1, ""), "reject", "author", 403, "role-required"),
        (ASK, "answer", "viewer", 403, "role-required"),
        (GATE % (1, ""), "answer", "operator", 422, "wrong-kind"),
        (ASK, "approve", "approver", 422, "wrong-kind"),
    ],
)
def test_who_may_not(world: World, text: str, verb: str, role: str, status: int, code: str) -> None:
    execution, question = asked(world, text)
    before = world.counts()
    answer = world.post(f"{INBOX}/{question}/{verb}", {"answer": 1} if verb == "answer" else {}, role)
    assert (answer.status_code, answer.get_json()["code"]) == (status, code)
    assert world.counts() == before
    assert state(world, execution)["status"] == "waiting"


@pytest.mark.parametrize(
    ("answer", "pointer"), [({}, "/answer/version"), ({"version": 3}, "/answer/version"), ("x", "/answer"),
                            ({"version": "123456"}, "/answer/version")],
)  # fmt: skip
def test_an_answer_that_does_not_fit(world: World, answer: Any, pointer: str) -> None:
    _, question = asked(world, ASK)
    told = world.post(f"{INBOX}/{question}/answer", {"answer": answer}, "operator")
    assert told.status_code == 422
    assert told.get_json()["errors"][0]["pointer"] == pointer


def test_an_answer_is_the_result(world: World) -> None:
    execution, question = asked(world, ASK)
    assert (
        world.post(f"{INBOX}/{question}/answer", {"answer": {"version": "1.4"}}, "approver").status_code
        == 200
    )
    assert state(world, execution)["output"] == {"version": "1.4"}


def test_a_cancel_closes_the_question(world: World) -> None:
    execution, question = asked(world, GATE % (1, ""))
    assert world.post(f"/workflow-executions/{execution}/cancel", {}).status_code == 202
    assert world.get(f"{INBOX}/{question}")["status"] == "closed"
    assert world.post(f"{INBOX}/{question}/approve", {}, "approver").status_code == 409


def test_of_many_who_decide_at_once_one_wins(world: World) -> None:
    for _ in range(5):
        execution, question = asked(world, GATE % (1, ", approvers: [operator, author]"))
        codes: Counter[int] = Counter()

        def decide(verb: str, role: str, question: str = question, codes: Counter[int] = codes) -> None:
            codes[world.post(f"{INBOX}/{question}/{verb}", {}, role).status_code] += 1

        words = [(verb, role) for verb in ("approve", "reject") for role in ("operator", "author")] * 4
        threads = [threading.Thread(target=decide, args=word) for word in words]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert codes == {200: 1, 409: 15}
        said = world.get(f"{INBOX}/{question}")["status"]
        assert state(world, execution)["degraded"] is (said == "rejected")
