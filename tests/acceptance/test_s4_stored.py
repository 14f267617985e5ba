"""Seed 004, what is stored of workflows, executions and tasks, row by row: S4.14 to S4.16, S4.22."""

from __future__ import annotations

from typing import Any

import pytest
from begun import over
from gates import GATED, Gates

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(180)]

GRAPH = {
    "first": [{"to": "held", "on": "on_success"}],
    "held": [{"to": "noop", "on": "on_complete"}, {"to": "last", "on": "on_success"}],
    "last": [],
}

# S4.14


def test_S4_14_a_definition_is_kept_with_all_that_describes_it(gates: Gates) -> None:
    running = gates.running
    shown = running.get("/workflows/acceptance.gated").data
    assert {
        key: shown[key] for key in ("ref", "pack", "label", "description", "version", "tags", "enabled")
    } == {
        "ref": "acceptance.gated",
        "pack": "acceptance",
        "label": "Held at a gate",
        "description": "Goes on when somebody opens it.",
        "version": "2",
        "tags": ["slow"],
        "enabled": True,
    }
    assert shown["parameters"] == [
        {"name": "gate", "type": "string", "required": True},
        {
            **{"name": "code", "type": "integer", "required": False, "default": 0},
            "description": "How the middle ends.",
        },
    ]
    assert shown["output"] == {"type": "object", "properties": {"seen": {"type": "string"}}}
    assert shown["source"] == GATED
    assert shown["created_at"] <= shown["updated_at"]


def test_S4_14_a_ref_is_unique(gates: Gates) -> None:
    running = gates.running
    text = "ref: acceptance.once\ntasks: [{name: a, action: core.noop}]\n"
    stored = [
        running.post("/packs/acceptance/workflows", {"definition": one}, "author")
        for one in (text, text, text + "tags: [b]\n")
    ]
    assert [(one.status, one.data["revision"]) for one in stored] == [(201, 1), (200, 1), (201, 2)]
    listed = running.get("/workflows?limit=200").data["items"]
    assert [one["tags"] for one in listed if one["ref"] == "acceptance.once"] == [["b"]]
    elsewhere = running.post("/packs/other/workflows", {"definition": text}, "author")
    assert (elsewhere.status, elsewhere.data["errors"][0]["pointer"]) == (422, "/definition/ref")
    assert "other" not in {one["ref"] for one in running.get("/packs").data["items"]}


# S4.15, S4.16


def test_S4_15_an_execution_tells_where_it_stands(gates: Gates) -> None:
    running = gates.running
    id, gate = gates.begin(code=3)
    found = running.execution(id)
    assert {key: found[key] for key in ("status", "current_tasks", "completed_tasks", "failed_tasks")} == {
        "status": "running",
        "current_tasks": ["held"],
        "completed_tasks": ["first"],
        "failed_tasks": [],
    }
    assert (found["variables"], found["error_message"], found["output"]) == ({"seen": "one"}, "", None)
    assert {name: sorted(edges, key=str) for name, edges in found["task_graph"].items()} == {
        name: sorted(edges, key=str) for name, edges in GRAPH.items()
    }
    assert found["parameters"] == {"gate": str(gate), "code": 3}
    gate.touch()
    found = over(running, id)
    assert {key: found[key] for key in ("status", "current_tasks", "completed_tasks", "failed_tasks")} == {
        "status": "failed",
        "current_tasks": [],
        "completed_tasks": ["first"],
        "failed_tasks": ["held"],
    }
    assert found["error_message"] == "held failed and nothing handled it"
    assert found["variables"] == {"seen": "one"}
    assert found["created_at"] <= found["started_at"] < found["ended_at"]


def test_S4_16_every_task_has_a_row(gates: Gates) -> None:
    running = gates.running
    id, gate = gates.begin()
    keys = ("task", "task_index", "status", "retry_count", "max_retries", "error")
    rows = running.units(id)
    assert [tuple(row[key] for key in keys) for row in rows] == [
        ("first", 0, "succeeded", 0, 0, None),
        ("held", 1, "running", 0, 0, None),
        ("last", 2, "pending", 0, 0, None),
    ]
    first, held, last = rows
    assert first["result"] == {"exit_code": 0, "stdout": "one", "stderr": "", "truncated": False}
    assert first["started_at"] <= first["ended_at"] <= held["started_at"]
    assert (held["ended_at"], held["result"], last["started_at"]) == (None, None, None)
    gate.touch()
    assert over(running, id)["status"] == "completed"
    assert [row["status"] for row in running.units(id)] == ["succeeded"] * 3
    # What failed and was tried again
    task = {"name": "a", "action": "core.shell", "input": {"command": "exit 5"}, "retry": {"count": 2}}
    (row,) = running.units(running.run(task)["id"])
    assert tuple(row[key] for key in keys[2:5]) == ("failed", 2, 2)
    assert (row["error"], row["exit_code"]) == ({"type": "exit", "message": "exit code 5"}, 5)


# S4.22


def test_S4_22_workflows_are_made_read_changed_executed_and_deleted(gates: Gates) -> None:
    running = gates.running
    text = "ref: crud.one\nlabel: %s\ntasks: [{name: a, action: core.noop}]\n"
    made = running.post("/packs/crud/workflows", {"definition": text % "first"}, "author")
    assert (made.status, made.headers["Location"]) == (201, "/api/v1/workflows/crud.one")
    assert [one["ref"] for one in running.get("/packs/crud/workflows").data["items"]] == ["crud.one"]
    shown = running.get("/workflows/crud.one")
    assert (shown.data["label"], shown.data["revision"]) == ("first", 1)

    def put(label: str, **headers: str) -> Any:
        body = {"definition": text % label}
        return running.ask("PUT", "/api/v1/workflows/crud.one", body, "author", **headers)

    assert put("second").status == 428
    assert put("second", If_Match=shown.headers["ETag"]).data["revision"] == 2
    assert put("third", If_Match=shown.headers["ETag"]).status == 412
    assert running.get("/workflows/crud.one").data["label"] == "second"
    ids = [running.post("/workflows/crud.one/execute?wait=30", {}).data["id"] for _ in range(2)]
    listed = running.get("/workflows/crud.one/executions").data["items"]
    assert [(one["id"], one["status"], one["revision"]) for one in listed] == [
        (id, "completed", 2) for id in reversed(ids)
    ]
    for method, path in (("DELETE", "/workflows/crud.one"), ("POST", "/packs/crud/workflows")):
        body = None if method == "DELETE" else {"definition": text % "x"}
        assert running.ask(method, f"/api/v1{path}", body, "operator").status == 403
    assert running.ask("DELETE", "/api/v1/workflows/crud.one", role="author").status == 204
    assert running.get("/workflows/crud.one").status == 404
    assert running.post("/workflows/crud.one/execute", {}).status == 404
    assert running.execution(ids[0])["status"] == "completed"


def test_S4_22_what_is_executed_is_not_deleted(gates: Gates) -> None:
    running = gates.running
    id, gate = gates.begin("acceptance.caller")
    refused = running.ask("DELETE", "/api/v1/workflows/acceptance.caller", role="author")
    assert (refused.status, running.get("/workflows/acceptance.caller").status) == (409, 200)
    gate.touch()
    assert over(running, id)["status"] == "completed"
