"""Seed 004, executions that are watched and acted on, row by row: S4.20, S4.21, S4.23 to S4.26."""

from __future__ import annotations

from pathlib import Path

import pytest
from begun import descendants, graph, log, over, question, statuses
from fleet_processes import processes_with
from gates import GATED, Gates
from waiting import wait_until

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(180)]

# S4.20, S4.21

ASKED = "  - {name: ask, action: core.approval, input: {prompt: Go on?}, on_success: first}\n"


def test_S4_20_an_execution_goes_through_its_states(gates: Gates) -> None:
    running = gates.running
    text = GATED.replace("acceptance.gated", "acceptance.asked").replace("tasks:\n", f"tasks:\n{ASKED}", 1)
    gate = running.effects / "gate-of-states"
    body = {"definition": text, "parameters": {"gate": str(gate)}}
    id = running.post("/workflow-executions", body, "author").data["id"]
    gates.becomes(id, "waiting")
    (asked,) = question(running, id)
    assert running.post(f"/automation/approvals/{asked['id']}/approve", {}, "approver").status == 200
    wait_until(lambda: gates.ran(gate), lambda: running.units(id))
    gates.becomes(id, "running")
    assert gates.ask(id, "pause").data["status"] == "pausing"
    gates.becomes(id, "pausing")
    gate.touch()
    gates.becomes(id, "paused")
    gates.ask(id, "resume")
    gates.becomes(id, "completed")
    id, gate = gates.begin(code=1)
    gate.touch()
    gates.becomes(id, "failed")
    # What is for the end holds it where it is being cancelled.
    gate = running.effects / "gate-of-the-end"
    ends = {
        "name": "z",
        "action": "core.shell",
        "input": {"command": f"until [ -e {gate} ]; do sleep 0.02; done"},
    }
    runs = {"name": "a", "action": "core.shell", "input": {"command": "sleep 60"}}
    body = {"definition": {"tasks": [runs], "finally": [ends]}}
    id = running.post("/workflow-executions", body, "author").data["id"]
    assert gates.ask(id, "cancel").data["status"] == "cancelling"
    gates.becomes(id, "cancelling")
    gate.touch()
    gates.becomes(id, "cancelled")
    for status in ("requested", "scheduling", "rejected"):
        assert running.get(f"/workflow-executions?status={status}").status == 200
    assert running.get("/workflow-executions?status=done").status == 422


@pytest.mark.parametrize(("code", "ends"), [(0, "completed"), (1, "failed")])
def test_S4_21_messages_tell_each_step_as_it_comes(gates: Gates, code: int, ends: str) -> None:
    """The stream: WorkflowStarted, TaskScheduled, TaskCompleted or TaskFailed, WorkflowCompleted or WorkflowFailed."""
    running = gates.running
    id, gate = gates.begin(code=code)
    path = f"/api/v1/workflow-executions/{id}/events"
    kinds, steps, last = [], [], None
    for message in running.stream("GET", path, Accept="text/event-stream"):
        if message.event == "event":
            kinds.append(message.data["kind"])
            steps += [
                (line.get("task", ""), line["status"])
                for line in message.data["log"]
                if line["what"] in ("task", "execution")
            ]
            if ("held", "running") in steps:
                gate.touch()
        last = message
    assert last is not None
    assert (last.event, last.data) == ("end", {"status": ends, "degraded": False})
    assert kinds[0] == "submitted"
    assert steps == [
        *(("first", status) for status in ("running", "succeeded")),
        ("held", "running"),
        *(
            [("held", "failed"), ("last", "not_reached")]
            if code
            else [("held", "succeeded"), *(("last", status) for status in ("running", "succeeded"))]
        ),
        ("", ends),
    ]


# S4.23


def test_S4_23_an_execution_its_tasks_and_its_graph_while_it_runs(gates: Gates) -> None:
    running = gates.running
    id, gate = gates.begin()
    assert running.get(f"/workflow-executions/{id}").data["workflow"] == "acceptance.gated"
    assert [row["node"] for row in running.units(id)] == ["web-1", "web-2", None]

    def drawn() -> tuple[dict[str, str], dict[tuple[str, str], str]]:
        found = graph(running, id)
        edges = {(edge["from"], edge["to"]): edge["state"] for edge in found["edges"]}
        return {node["name"]: node["status"] for node in found["nodes"]}, edges

    assert drawn() == (
        {"first": "succeeded", "held": "running", "last": "pending"},
        {("first", "held"): "fired", ("held", "last"): "open"},
    )
    mermaid, dot = (
        running.text(f"/workflow-executions/{id}/graph?format={form}") for form in ("mermaid", "dot")
    )
    assert mermaid.startswith("flowchart")
    assert dot.startswith("digraph")
    assert all(name in text for name in statuses(running, id) for text in (mermaid, dot))
    gate.touch()
    over(running, id)
    assert drawn()[1] == {("first", "held"): "fired", ("held", "last"): "fired"}
    absent = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
    for path in ("", "/tasks", "/graph"):
        assert running.get(f"/workflow-executions/{absent}{path}").status == 404


# S4.24


def test_S4_24_pause_and_resume(gates: Gates) -> None:
    """C1: nothing new starts, what runs goes on to its end, is settled and published."""
    running = gates.running
    id, gate = gates.begin()
    assert gates.ask(id, "pause", "viewer").status == 403
    assert [gates.ask(id, "pause", reason="lunch").status for _ in range(2)] == [202, 202]
    assert (running.execution(id)["status"], running.execution(id)["intent"]) == ("pausing", "pause")
    gate.touch()
    gates.becomes(id, "paused")
    assert running.execution(id)["variables"] == {"seen": "two"}
    assert statuses(running, id) == {"first": "succeeded", "held": "succeeded", "last": "pending"}
    assert gates.ran(gate) == ["held"]
    told = running.get(f"/workflow-executions/{id}/tasks/last/explain").data
    assert (told["verdict"], [one["kind"] for one in told["waits"]]) == ("waits", ["pause"])
    assert [gates.ask(id, "resume").status for _ in range(2)] == [202, 202]
    assert over(running, id)["status"] == "completed"
    assert gates.ran(gate) == ["held", "last"]
    for verb in ("pause", "resume"):
        refused = gates.ask(id, verb)
        assert (refused.status, refused.data["code"]) == (409, "execution-over")


# S4.25


def test_S4_25_cancel(gates: Gates) -> None:
    """C2: what runs is ended, no transition fires, and what is for the end runs."""
    running = gates.running
    id, gate = gates.begin("acceptance.tidy")
    assert list(processes_with(str(gate)))
    assert gates.ask(id, "cancel", "viewer").status == 403
    assert gates.ask(id, "cancel", reason="enough").status == 202
    found = over(running, id)
    assert (found["status"], found["intent"]) == ("cancelled", "cancel")
    assert statuses(running, id) == {
        "first": "succeeded",
        "held": "cancelled",
        "last": "not_reached",
        "tidy": "succeeded",
    }
    assert gates.ran(gate) == ["held", "tidy"]
    assert not list(processes_with(str(gate)))
    refused = gates.ask(id, "cancel")
    assert (refused.status, refused.data["code"]) == (409, "execution-over")
    entry, late = [one for one in running.audit(id) if one["action"] == "execution.cancel"]
    assert (entry["person"], entry["detail"]["reason"]) == ("operator", "enough")
    assert (late["outcome"], late["detail"]["code"]) == ("refused", "execution-over")


def test_S4_25_a_cancel_reaches_what_was_called(gates: Gates) -> None:
    running = gates.running
    id, gate = gates.begin("acceptance.caller")
    (child,) = descendants(running, id)
    gates.ask(id, "cancel")
    assert over(running, id)["status"] == "cancelled"
    assert over(running, child)["status"] == "cancelled"
    assert gates.ran(gate) == ["held", "tidy"]


# S4.26


def test_S4_26_retry(gates: Gates) -> None:
    """R1: what failed and what follows; then from a task that is named; and with one that is taken as succeeded."""
    running = gates.running
    id, gate = gates.begin(code=3)
    refused = gates.ask(id, "retry")
    assert (refused.status, refused.data["code"]) == (409, "execution-not-over")
    gate.touch()
    assert over(running, id)["status"] == "failed"
    Path(f"{gate}.mended").touch()
    assert gates.ask(id, "retry", "viewer").status == 403
    assert gates.ask(id, "retry", reason="mended").status == 202
    found = over(running, id)
    assert (found["id"], found["status"], found["error_message"]) == (id, "completed", "")
    assert (found["output"], gates.ran(gate)) == ({"seen": "two"}, ["held", "held", "last"])
    attempts = {row["task"]: row["attempt"] for row in running.units(id)}
    assert attempts == {"first": 1, "held": 2, "last": 1}
    refused = gates.ask(id, "retry")
    assert (refused.status, refused.data["code"]) == (409, "nothing-to-retry")
    assert gates.ask(id, "retry", **{"from": ["nowhere"]}).status == 422
    assert gates.ask(id, "retry", **{"from": ["last"]}).status == 202
    assert over(running, id)["status"] == "completed"
    assert gates.ran(gate) == ["held", "held", "last", "last"]
    assert {row["task"]: row["attempt"] for row in running.units(id)} == {"first": 1, "held": 2, "last": 2}
    assert [line["status"] for line in log(running, id) if line["what"] == "execution"] == [
        *("failed", "completed", "completed"),
    ]


def test_S4_26_a_task_that_a_person_takes_as_succeeded(gates: Gates) -> None:
    running = gates.running
    id, gate = gates.begin(code=3)
    gate.touch()
    assert over(running, id)["status"] == "failed"
    marked = gates.ask(id, "retry", mark_ok={"held": {"exit_code": 0}}, reason="done by hand")
    assert marked.status == 202, marked.data
    found = over(running, id)
    assert (found["status"], found["output"]) == ("completed", {"seen": "two"})
    assert gates.ran(gate) == ["held", "last"]
    (line,) = [line for line in log(running, id) if line["what"] == "marked"]
    assert (line["task"], line["person"], line["reason"]) == ("held", "operator", "done by hand")
