"""Every limit that a setting gives: what is over it is refused, or fails, with an error of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import api_world
import migrated
import pytest
import yaml
from api_world import World

from app.services import families

CASES = yaml.safe_load((Path(__file__).parents[1] / "cases" / "api" / "limits.yaml").read_text())
NOOP = "tasks: [{name: a, action: core.noop}]\n"
Build = Callable[..., World]


@pytest.fixture
def build(tmp_path: Path) -> Iterator[Build]:
    made: list[World] = []

    def with_settings(**settings: Any) -> World:
        directory = tmp_path / str(len(made))
        directory.mkdir()
        migrated.sqlite(directory / "muster.db")
        made.append(api_world.build(f"sqlite:///{directory / 'muster.db'}", directory, **settings))
        return made[-1]

    yield with_settings
    for world in made:
        world.control.store.close()


def error_of(world: World, execution: str) -> str:
    told = world.get(f"/workflow-executions/{execution}/tasks/a/explain")["error"]
    return str((told or {}).get("type", ""))


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join([*case["settings"], case.get("at", "run")]))
def test_what_is_over_a_limit(build: Build, case: dict[str, Any]) -> None:
    world = build(**case["settings"])
    before = world.counts()
    answer = world.post("/workflow-executions", {"definition": case["text"]})
    if "refused" in case:
        assert answer.status_code == 422
        (told,) = [one for one in answer.get_json()["errors"] if one["severity"] == "error"]
        assert (told["code"], f"{told['line']}:{told['column']}") == (case["refused"], case["at"])
        assert world.counts() == before
    else:
        execution = answer.get_json()["id"]
        found = world.get(f"/workflow-executions/{execution}")
        assert found["status"] == ("completed" if case.get("fine") else "failed")
        assert found["error_type"] == case.get("execution", "")
        assert error_of(world, execution) == case.get("task", "")
    world = build()
    execution = world.run(case["text"])
    assert world.get(f"/workflow-executions/{execution}")["error_type"] == error_of(world, execution) == ""


def test_parameters_over_their_limit(build: Build) -> None:
    world = build(parameters_limit=100)
    before = world.counts()
    text = "parameters: {text: {type: string}}\n" + NOOP
    answer = world.post("/workflow-executions", {"definition": text, "parameters": {"text": "x" * 100}})
    assert (answer.status_code, answer.get_json()["code"]) == (413, "parameters-too-large")
    assert world.counts() == before
    world.post("/packs/demo/workflows", {"definition": f"ref: demo.child\n{text}"})
    task = "{name: a, type: workflow, action: demo.child, input: {text: '{{ vars.text }}'}}"
    parent = world.run(f"vars: {{text: '{'x' * 100}'}}\ntasks: [{task}]")
    families.align(world.control, parent)
    found = world.get(f"/workflow-executions/{parent}")
    assert (found["status"], found["children"]) == ("failed", [])
    told = world.get(f"/workflow-executions/{parent}/tasks/a/explain")["error"]
    assert told["message"] == "the child could not be started: the parameters have 111 bytes, 100 are allowed"


def test_children_over_their_depth(build: Build) -> None:
    world = build(child_depth=0)
    world.post("/packs/demo/workflows", {"definition": f"ref: demo.child\n{NOOP}"})
    parent = world.run("tasks: [{name: a, type: workflow, action: demo.child}]")
    families.align(world.control, parent)
    told = world.get(f"/workflow-executions/{parent}/tasks/a/explain")["error"]
    assert "1 deep, 0 is allowed" in told["message"]
