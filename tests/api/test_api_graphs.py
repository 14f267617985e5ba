"""Graphs and explanations over the API: cases/api/explain.yaml says what happens, and what is told of it then."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from api_world import HELLO, World
from sqlalchemy import event, update

from app.services import families
from app.store.tables import Job, Node

CASES = yaml.safe_load((Path(__file__).parents[1] / "cases" / "api" / "explain.yaml").read_text())


def happen(world: World, execution: str, step: dict[str, Any]) -> None:
    """One step of a case: a job ends or gets a status, a person says something, a node is heard of long ago."""
    (what, value), *_ = step.items()
    path = f"/workflow-executions/{execution}"
    if what == "end":
        job = next(one for one in world.open_jobs(execution) if one.split(".")[1] == value)
        world.end(execution, job, status=step.get("status", "succeeded"))
    elif what == "is":
        job = next(one for one in world.open_jobs(execution) if one.split(".")[1] == step["of"])
        now = time.time()
        times = {"dispatched_at": now, "accepted_at": now, "started_at": now}
        with world.control.store.write() as connection:
            connection.execute(update(Job).where(Job.id == job).values(status=value, **times))
    elif what == "silent":
        with world.control.store.write() as connection:
            connection.execute(update(Node).where(Node.name == value).values(last_seen=time.time() - 3600))
    elif what == "full":
        with world.control.store.write() as connection:
            connection.execute(update(Node).where(Node.name == value).values(slots=0))
    else:
        assert world.post(f"{path}/{what}", value).status_code == 202


def holds(wanted: Any, found: Any) -> bool:
    """Whether `found` has what `wanted` names; lists are compared whole, a text may be a part of a sentence."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(holds(one, found.get(key)) for key, one in wanted.items())
    if isinstance(wanted, list):
        return len(wanted) == len(found) and all(holds(a, b) for a, b in zip(wanted, found, strict=True))
    if isinstance(wanted, str) and isinstance(found, str):
        return wanted in found
    return bool(wanted == found)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_explain(world: World, case: dict[str, Any]) -> None:
    for name in case.get("nodes", ()):
        world.add_node(name)
    execution = world.run(case["workflow"])
    for step in case.get("steps", ()):
        happen(world, execution, step)
    everything = world.get(f"/workflow-executions/{execution}/explain")["items"]
    assert all(one["sentences"] for one in everything)
    for name, wanted in case["tasks"].items():
        told = world.get(f"/workflow-executions/{execution}/tasks/{name}/explain")
        assert told == next(one for one in everything if one["task"] == name)
        for key, value in wanted.items():
            if key == "says":
                missing = [text for text in value if not any(text in one for one in told["sentences"])]
                assert not missing, told["sentences"]
            else:
                assert holds(value, told[key]), (name, key, told[key])


def test_an_open_question_is_named(world: World) -> None:
    execution = world.run(
        """
tasks:
  - name: go
    action: core.approval
    input: {prompt: Go?, approvers: [operator, author], quorum: 2, expires_in: 600}
    on_success: after
  - {name: after, action: core.noop}
"""
    )
    (question,) = world.get("/automation/approvals?status=pending")["items"]
    answer = world.post(f"/automation/approvals/{question['id']}/approve", {}, "operator")
    assert answer.status_code == 200
    told = world.get(f"/workflow-executions/{execution}/tasks/go/explain")
    timer, person = told["waits"]
    assert (timer["kind"], timer["name"], timer["until"]) == ("timer", "expiry.1", question["expires_at"])
    assert (person["kind"], person["approval"], person["approvers"]) == (
        "person", question["id"], ["operator", "author"],
    )  # fmt: skip
    assert (person["approved"], person["quorum"], person["until"]) == (1, 2, question["expires_at"])
    assert any(question["id"] in one and "1 of 2 said yes" in one for one in told["sentences"])


def test_the_graph_of_an_execution(world: World) -> None:
    execution = world.run(HELLO)
    path = f"/workflow-executions/{execution}/graph"
    before = world.get(path)
    assert {edge["state"] for edge in before["edges"]} == {"open"}
    (job,) = world.open_jobs(execution)
    world.end(execution, job)
    found = world.get(path)
    assert (found["execution"], found["workflow"], found["status"]) == (execution, "demo.hello", "completed")
    greet, after, mend = found["nodes"]
    assert (greet["status"], greet["attempts"], greet["units"]["succeeded"]) == ("succeeded", 1, 1)
    assert greet["duration"] is not None
    assert [one["status"] for one in (after, mend)] == ["succeeded", "not_reached"]
    assert [(one["from"], one["to"], one["on"], one["state"]) for one in found["edges"]] == [
        ("greet", "after", "on_success", "fired"),
        ("greet", "mend", "on_failure", "dead"),
    ]
    drawn = world.ask("GET", f"/api/v1{path}?format=mermaid", "viewer")
    assert drawn.mimetype == "text/plain"
    assert 't0 ==>|"on_success"| t1' in drawn.text
    assert 't0 -.->|"on_failure"| t2' in drawn.text
    assert "class t2 not_reached" in drawn.text
    dot = world.ask("GET", f"/api/v1{path}?format=dot", "viewer").text
    assert 't0 -> t2 [label="on_failure", style=dashed];' in dot


def test_the_graph_of_a_definition(world: World) -> None:
    world.post("/packs/demo/workflows", {"definition": HELLO})
    found = world.get("/workflows/demo.hello/graph")
    assert [node["name"] for node in found["nodes"]] == ["greet", "after", "mend"]
    assert not any("status" in node for node in found["nodes"])
    assert not any("state" in edge for edge in found["edges"])
    changed = HELLO.replace("    on_failure: [mend]\n", "").replace(
        "on_success: [after]", "on_success: [after, mend]"
    )
    assert world.post("/packs/demo/workflows", {"definition": changed}).status_code == 201
    assert {edge["on"] for edge in world.get("/workflows/demo.hello/graph")["edges"]} == {"on_success"}
    assert world.get("/workflows/demo.hello/graph?revision=1")["edges"] == found["edges"]
    text = world.ask("GET", "/api/v1/workflows/demo.hello/graph?format=mermaid", "viewer").text
    assert text.startswith("flowchart TD\n")


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/workflows/demo.none/graph", 404, "unknown-workflow"),
        ("/workflow-executions/01J0000000000000000000000A/graph", 404, "unknown-execution"),
        ("/workflow-executions/01J0000000000000000000000A/explain", 404, "unknown-execution"),
        ("/workflow-executions/{id}/tasks/nothing/explain", 404, "unknown-task"),
        ("/workflow-executions/{id}/tasks/NOTHING/explain", 404, "not-found"),
    ],
)
def test_what_is_not_there(world: World, path: str, status: int, code: str) -> None:
    answer = world.ask("GET", f"/api/v1{path.replace('{id}', world.run(HELLO))}", "viewer")
    assert (answer.status_code, answer.get_json()["code"]) == (status, code)


@pytest.mark.parametrize("query", ["format=svg", "format=", "form=dot", "revision=0"])
def test_bad_queries_are_refused(world: World, query: str) -> None:
    world.post("/packs/demo/workflows", {"definition": HELLO})
    answer = world.ask("GET", f"/api/v1/workflows/demo.hello/graph?{query}", "viewer")
    assert answer.status_code == 422
    assert answer.get_json()["errors"][0]["pointer"] == f"?{query.partition('=')[0]}"


def test_as_many_statements_for_many_as_for_few(world: World) -> None:
    counts = []
    for size in (2, 60):
        world.add_node(f"n-{size}")
        tasks = "".join(
            f"  - {{name: t{n}, action: core.shell, delegate_to: n-{size}, input: {{command: [uptime]}}}}\n"
            for n in range(size)
        )
        execution = world.run(f"tasks:\n{tasks}")
        seen: list[str] = []
        engine = world.control.store.engine
        event.listen(engine, "before_cursor_execute", lambda *args, seen=seen: seen.append(args[2]))
        world.get(f"/workflow-executions/{execution}/explain")
        world.get(f"/workflow-executions/{execution}/graph")
        counts.append(len(seen))
    assert counts[0] <= 20
    assert counts[1] <= 2 * counts[0], counts


CHILD = """
ref: demo.child
tasks: [{name: work, action: core.shell, input: {command: [uptime]}}]
"""
PARENT = """
tasks: [{name: call, type: workflow, action: demo.child}, {name: rest, action: core.noop}]
start: [call, rest]
"""


def test_an_explanation_names_the_child_and_the_parent(world: World) -> None:
    world.post("/packs/demo/workflows", {"definition": CHILD})
    execution = world.run(PARENT)
    families.align(world.control, execution)
    (child,) = world.get(f"/workflow-executions/{execution}")["children"]
    told = world.get(f"/workflow-executions/{execution}/tasks/call/explain")
    (one,) = told["children"]
    assert (one["execution"], one["workflow"], one["status"], one["unit"]) == (
        child,
        "demo.child",
        "running",
        0,
    )
    assert one["says"].startswith("work running: it runs since ")
    assert told["sentences"][-1] == f"its child {child} (demo.child) is running: {one['says']}"
    found = world.get(f"/workflow-executions/{child}/explain")
    assert found["items"][0]["children"] == []
    assert {**found["parent"], "says": ""} == {
        "execution": execution, "workflow": "inline.workflow", "task": "call", "unit": 0, "status": "waiting",
        "says": "",
    }  # fmt: skip
    assert found["parent"]["says"].startswith("call waiting: ")

    (job,) = world.open_jobs(child)
    world.end(child, job, status="failed", code=3)
    families.align(world.control, execution)
    told = world.get(f"/workflow-executions/{execution}/explain")
    assert told["parent"] is None
    by_task = {item["task"]: item for item in told["items"]}
    assert by_task["call"]["children"][0]["says"] == "work failed: exit: exit code 3"
    assert by_task["rest"]["children"] == []
