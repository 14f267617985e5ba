"""The published JSON Schema agrees with the loader on everything that one key decides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from app.language import grammar, schema, source

CASES = Path(__file__).parents[1] / "cases" / "language"
EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
SCHEMA = schema.workflow_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def cases(pattern: str) -> list[Any]:
    return [
        pytest.param(case["text"], id=case["name"])
        for path in sorted(CASES.glob(pattern))
        for case in yaml.safe_load(path.read_text(encoding="utf-8"))
    ]


def data(text: str | bytes) -> Any:
    root, collector = source.read(text, "case")
    assert root is not None
    assert not collector.failed
    return root.data()


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA


@pytest.mark.parametrize("text", [*cases("good.yaml"), *cases("warnings.yaml")])
def test_what_loads_validates(text: str) -> None:
    VALIDATOR.validate(data(text))


def test_examples_validate() -> None:
    workflows = sorted(set(EXAMPLES.glob("*.yaml")) - set(EXAMPLES.glob("*.test.yaml")))
    assert workflows
    for path in workflows:
        VALIDATOR.validate(data(path.read_bytes()))


@pytest.mark.parametrize(
    "text",
    [
        "tasks: []",
        "taskz: []",
        "tasks: [{name: a, action: core.noop, timout: 5}]",
        "tasks: [{name: A, action: core.noop}]",
        "tasks: [{name: a}]",
        "tasks: [{name: a, action: core.noop, timeout: 0}]",
        "tasks: [{name: a, action: core.noop, timeout: 5m}]",
        "tasks: [{name: a, action: core.noop, idempotent: yes}]",
        "tasks: [{name: a, action: core.noop, when: x}]",
        "tasks: [{name: a, action: core.noop, retry: {count: 101}}]",
        "tasks: [{name: a, action: core.shell}]",
        "tasks: [{name: a, action: core.shell, input: {command: a, script: b}}]",
        "tasks: [{name: a, action: core.echo, input: {massage: a}}]",
        "tasks: [{name: a, type: parallel}]",
        "tasks: [{name: a, type: parallel, action: core.noop, tasks: [{name: b, action: core.noop}]}]",
        "tasks: [{name: a, type: parallel, tasks: [{name: b, action: core.noop, on_success: c}]}]",
        "tasks: [{name: a, type: distributed_shell, input: {command: ls}}]",
        "tasks: [{name: a, type: distributed_shell, input: {command: ls, nodes: ['*']}}]",
        "tasks: [{name: a, action: core.noop, decision: [{when: true}]}]",
        "tasks: [{name: a, action: core.noop, delegate_to: {node: a, address: 'b:1'}}]",
        "tasks: [{name: a, action: core.noop, join: some}]",
        "tasks: [{name: a, action: core.noop}]\nparameters: {p: {type: int}}",
        "tasks: [{name: a, action: core.noop}]\nfinally: [{name: b, action: core.noop, join: all}]",
    ],
)
def test_what_one_key_decides_is_refused(text: str) -> None:
    assert list(VALIDATOR.iter_errors(data(text)))


def test_every_key_is_described() -> None:
    def properties(value: Any) -> list[dict[str, Any]]:
        if isinstance(value, dict):
            inner = [found for part in value.values() for found in properties(part)]
            return (
                [*value["properties"].values(), *inner]
                if "additionalProperties" in value and "properties" in value
                else inner
            )
        return [found for part in value for found in properties(part)] if isinstance(value, list) else []

    found = properties(SCHEMA)
    assert len(found) > 150
    assert all(
        len(one["description"]) > 5 and one["description"].rstrip().endswith((".", ";", ")")) for one in found
    )


def test_every_action_of_the_loader_is_in_the_schema() -> None:
    named = json.dumps(SCHEMA["$defs"]["task"]["allOf"])

    assert all(f'"const": "{action}"' in named for action in grammar.INPUTS)
