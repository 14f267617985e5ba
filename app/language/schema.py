"""The JSON Schema of a workflow file, for editors; generated from the tables that the loader reads by.

What takes more than one key to decide (targets, cycles, references, templates) is the loader's alone.
"""

from __future__ import annotations

from typing import Any

from app.language import grammar, names
from app.language.fields import Anything, MapOf, Table
from app.language.limits import DEFAULT

Schema = dict[str, Any]


def workflow_schema() -> Schema:
    """The schema as a new JSON value, draft 2020-12."""
    workflow = grammar.WORKFLOW.schema()
    properties = workflow["properties"]
    for name in ("tasks", "finally"):
        properties[name]["maxItems"] = DEFAULT.tasks
    properties["finally"].pop("minItems")
    properties["parameters"] |= {
        "type": "object",
        "propertyNames": {"pattern": names.VARIABLE},
        "additionalProperties": _parameter(),
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Muster workflow",
        "description": "A workflow: tasks, what leads from one to the next, and where they run.",
        **workflow,
        "$defs": {"task": _task(grammar.TASK), "child": _task(grammar.CHILD), "final": _task(grammar.FINAL)},
    }


def _parameter() -> Schema:
    schema = grammar.PARAMETER.schema()
    schema["properties"]["enum"] |= {"type": "array", "minItems": 1}
    return schema


def _task(table: Table) -> Schema:
    schema = table.schema()
    schema["allOf"] = [_by_action(action) for action in grammar.INPUTS] + [_by_type()]
    if table is not grammar.CHILD:
        schema["properties"]["tasks"]["maxItems"] = names.MOST_CHILDREN
    return schema


def _by_action(action: str) -> Schema:
    """The input of one action; of the fan-out also under its own type."""
    named: Schema = {"properties": {"action": {"const": action}}, "required": ["action"]}
    if action == "core.distributed_shell":
        typed = {"properties": {"type": {"const": "distributed_shell"}}, "required": ["type"]}
        named = {"anyOf": [named, typed]}
    table = grammar.INPUTS[action]
    then: Schema = {"properties": {"input": table.schema()}}
    if table.one_of or any(key.required for key in table.keys):
        then["required"] = ["input"]
    return {"if": named, "then": then}


def _by_type() -> Schema:
    """A block has children and no action; every other task has an action, unless its type is one."""
    block = {"properties": {"type": {"const": "parallel"}}, "required": ["type"]}
    typed = {"properties": {"type": {"const": "distributed_shell"}}, "required": ["type"]}
    without = {"not": {"anyOf": [{"required": [key]} for key in grammar.NOT_ON_A_BLOCK]}}
    return {
        "if": block,
        "then": {"required": ["tasks"], **without},
        "else": {
            "anyOf": [{"required": ["action"]}, typed],
            "properties": {"input": MapOf(Anything()).schema()},
        },
    }
