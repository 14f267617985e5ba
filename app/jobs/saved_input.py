"""What a task with `script_ref` gives a node: the saved script of its plan, and its values as environment variables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app import marks
from app.compiler.plan import Plan
from app.errors import InvalidInput
from app.language import script_parameters
from app.language.script_parameters import ScriptParameter, env_text

PACK = "script"
"""The action of a job that runs a saved script NAME is called script.NAME: nobody who asks says what it does."""


def action_of(plan: Plan, action: str, given: Mapping[str, Any]) -> str:
    """What the action of a job is called, whose task has this input."""
    script = plan.scripts.get(given.get("script_ref", ""))
    return action if script is None else f"{PACK}.{script['name']}"


def with_script(plan: Plan, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The input with the text of its `script_ref`, and with the values of the script's parameters as `env`.

    Any other input stays as it is. Raises InvalidInput for a value that the script does not take, now that templates
    have become values: also for a secret where the parameter is none.
    """
    if "script_ref" not in given:
        return given
    script = plan.scripts[given["script_ref"]]
    declared = [script_parameters.from_json(one) for one in script["parameters"]]
    values = _bound(declared, given.get("parameters") or {}, script["shell"])
    env = {one.name: env_text(one.type, values[one.name]) for one in declared}
    return {**given, "script": script["body"], "shell": script["shell"], "parameters": values, "env": env}


def _bound(declared: list[ScriptParameter], given: Mapping[str, Any], shell: str) -> dict[str, Any]:
    secret = {one.name for one in declared if one.type == "secret"}
    # The value of a secret is not known here, and not looked at: its mark stands for it until the order is sealed.
    marked = {name: value for name, value in given.items() if name in secret and marks.reference_of(value)}
    for name, value in given.items():
        if name not in marked and any(marks.references(value)):
            raise InvalidInput(
                f"the parameter `{name}` was given a secret",
                hint="declare it with `type: secret`, and give it the secret whole",
            )
    rest = [one for one in declared if one.name not in marked]
    values = script_parameters.bind(
        rest, {name: value for name, value in given.items() if name not in marked}, "", shell
    )
    return {one.name: marked.get(one.name, values.get(one.name)) for one in declared}
