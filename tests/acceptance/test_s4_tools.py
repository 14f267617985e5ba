"""Seed 004, what a person has at hand, row by row: S4.29, S4.33."""

from __future__ import annotations

import json

import pytest
from begun import MEASURED, graph, over, seconds
from fleet_processes import ROOT
from gates import Gates
from running import Running

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(180)]

# S4.29

LINE = """\
ref: acceptance.line
parameters: {word: {type: string, default: hello}, code: {type: integer, default: 0}}
tasks:
  - name: say
    action: core.shell
    delegate_to: web-1
    input: {command: "echo {{ parameters.word }}; exit {{ parameters.code }}"}
    on_success: good
    on_failure: fail
  - {name: good, action: core.noop}
output_map: {said: "{{ task.say.result.stdout }}"}
"""


def test_S4_29_validate(running: Running) -> None:
    good, bad = running.directory / "line.yaml", running.directory / "bad.yaml"
    good.write_text(LINE)
    bad.write_text(LINE.replace("core.noop", "core.nop").replace("on_success: good", "on_sucess: good"))
    done = running.muster("validate", str(good))
    assert (done.returncode, done.stdout) == (0, f"{good}: ok (acceptance.line, 2 tasks)\n")
    done = running.muster("validate", str(good), str(bad))
    assert done.returncode == 2
    told = (done.stdout + done.stderr).splitlines()
    assert f"{bad}:8:5: error: a task has no key `on_sucess` [unknown-key]" in told
    assert f"{bad}:10:26: error: there is no action `core.nop` [unknown-action]" in told
    assert "    hint: did you mean `core.noop`?" in told


def test_S4_29_execute(running: Running) -> None:
    file = running.directory / "line.yaml"
    file.write_text(LINE)
    done = running.muster("run", str(file), "-p", "word=hi there")
    assert done.returncode == 0, done.stderr
    assert "web-1  │ hi there" in done.stdout
    assert done.stdout.splitlines()[-1].endswith(" status=completed")
    assert running.muster("workflow", "put", str(file)).returncode == 0
    done = running.muster("workflow", "execute", "acceptance.line", "-p", "code=3", "--json", role="operator")
    assert done.returncode == 1
    assert json.loads(done.stdout)["status"] == "failed"
    assert running.muster("run", str(file), role="operator").returncode == 3
    wrong = running.muster("run", str(file), "-p", "code=many")
    assert wrong.returncode == 2
    assert "the parameter `code` must be a whole number, not `many`" in wrong.stderr


def test_S4_29_visualise(running: Running) -> None:
    file = running.directory / "line.yaml"
    file.write_text(LINE)
    drawn = running.muster("graph", str(file))
    assert (drawn.returncode, drawn.stdout.splitlines()[0]) == (0, "acceptance.line")
    assert "on_success → good; on_failure → fail" in drawn.stdout
    assert '-->|"on_success"|' in running.muster("graph", "--mermaid", str(file)).stdout
    assert '[label="on_success"' in running.muster("graph", "--dot", str(file)).stdout
    done = running.muster("run", str(file), "--json")
    id = json.loads(done.stdout)["id"]
    shown = running.muster("graph", id, role="viewer").stdout
    assert "on_success → good (fired); on_failure → fail (dead)" in shown
    assert shown.splitlines()[0] == f"acceptance.line  {id}  completed"


# S4.33


def test_S4_33_versions(running: Running) -> None:
    """Every version stays executable; an execution keeps its own, whatever is stored meanwhile."""
    for version, word in (("1.0", "old"), ("1.1", "new")):
        text = LINE.replace("acceptance.line", "acceptance.versions").replace("hello", word)
        text = text.replace("ref: acceptance.versions\n", f'ref: acceptance.versions\nversion: "{version}"\n')
        assert running.post("/packs/acceptance/workflows", {"definition": text}, "author").status == 201
    listed = running.get("/workflows/acceptance.versions/versions").data["items"]
    assert [(one["version"], one["revision"]) for one in listed] == [("1.1", 2), ("1.0", 1)]
    path = "/workflows/acceptance.versions/execute?wait=60"
    said = [
        running.post(path, {"version": version}).data["output"]["said"] for version in ("1.0", 1, "1.1", None)
    ]
    assert said == ["old", "old", "new", "new"]
    assert running.post(path, {"version": "9"}).status == 404
    done = running.muster("workflow", "execute", "acceptance.versions", "--version", "1.0", role="operator")
    assert "web-1  │ old" in done.stdout


def test_S4_33_tests_of_workflows(running: Running) -> None:
    done = running.muster("test", str(ROOT / "docs" / "examples"))
    assert done.returncode == 0, done.stdout
    assert "edges 12/12 of examples.deploy" in done.stdout.splitlines()
    file = running.directory / "wrong.test.yaml"
    (running.directory / "line.yaml").write_text(LINE)
    file.write_text(
        "workflow: line.yaml\ntests: [{name: it fails, outcomes: {say: failed}, expect: {status: completed}}]\n"
    )
    done = running.muster("test", str(file))
    assert done.returncode == 1
    assert "status: expected completed, got failed (say went to `fail`)" in done.stdout


def test_S4_33_why_a_task_ran_waits_or_never_will(gates: Gates) -> None:
    running = gates.running
    id, gate = gates.begin(code=1)
    done = running.muster("execution", "explain", id, "last", role="viewer")
    assert done.returncode == 0, done.stderr
    told = running.get(f"/workflow-executions/{id}/tasks/last/explain").data
    assert (told["verdict"], told["edges"][0]["state"]) == ("waits", "open")
    assert [(one["kind"], one.get("task")) for one in told["waits"]] == [("task", "held")]
    assert all(sentence in done.stdout for sentence in told["sentences"])
    gate.touch()
    over(running, id)
    told = running.get(f"/workflow-executions/{id}/tasks/last/explain").data
    assert (told["verdict"], [one["task"] for one in told["because"]]) == ("never", ["held"])


def test_S4_33_what_runs_is_decided_while_it_runs(running: Running) -> None:
    """Nodes and items come from what tasks before them found."""
    find = {
        "name": "find",
        "action": "core.echo",
        "input": {"message": ["web-3", "web-1"]},
        "on_success": "ask",
    }
    ask = {
        **{"name": "ask", "type": "distributed_shell", "on_success": "each"},
        "input": {"nodes": "{{ task.find.result.message }}", "command": "echo $MUSTER_NODE"},
    }
    each = {
        **{"name": "each", "action": "core.shell", "delegate_to": "{{ item }}"},
        "with_items": "{{ task.ask.result.results | map(attribute='stdout') | list }}",
        "input": {"command": "echo {{ index }} on $MUSTER_NODE"},
    }
    found = running.run(find, ask, each)
    assert [row["stdout"] for row in found["output"]["each"]] == ["0 on web-3", "1 on web-1"]
    units = {node["name"]: node["units"]["total"] for node in graph(running, found["id"])["nodes"]}
    assert units == {"find": 1, "ask": 2, "each": 2}


def test_S4_33_how_long_each_task_took(running: Running) -> None:
    found = running.run(*MEASURED)
    nodes = {node["name"]: node for node in graph(running, found["id"])["nodes"]}
    assert {name: node["attempts"] for name, node in nodes.items()} == {"a": 3, "b": 1, "c": 0}
    assert 0.3 <= nodes["b"]["duration"] <= seconds(found, "started_at", "ended_at")
    for node in nodes.values():
        assert node["duration"] == pytest.approx(seconds(node, "started_at", "ended_at"), abs=0.002)
