"""Scripts on many nodes: a saved one in one of its versions, or one that is given; a generated workflow of one task.

What is to be run is kept in the plan as it was written: nothing in a body is a template, whatever braces it has. So an
execution keeps the body that it ran when the script is changed or deleted. Values come to it as environment variables,
by templates that name the parameters: the plan holds no value, and a secret goes its own way.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from app.compiler.build import build
from app.compiler.plan import FANOUT_ACTION
from app.errors import NotFound, TooLarge
from app.language import script_parameters
from app.language.known import parameter_to_json
from app.language.model import Parameter, Task, Workflow
from app.language.script_lint import render_text
from app.language.script_parameters import ScriptParameter
from app.services import adhoc, features
from app.services.control import Control
from app.services.runnable import Runnable
from app.services.targets import Targets, resolve
from app.store import scripts
from app.store.scripts import SavedScript

PACK = "script"
"""The executions of a saved script NAME are called script.NAME."""
TASK = adhoc.TASK

BOUND = "bound"
"""The `substitution` of a script whose values are environment variables."""

_HOSTS = "/host_ids"


@dataclass(frozen=True, slots=True)
class Body:
    """A script that is not saved. `timeout` is in seconds."""

    shell: str
    text: str
    timeout: float


@dataclass(frozen=True, slots=True)
class Prepared:
    """What to submit: the workflow, and the values of its parameters."""

    runnable: Runnable
    values: Mapping[str, Any]


def saved(
    control: Control,
    script: str,
    version: int | None,
    targets: Targets,
    given: Mapping[str, Any],
    kept: Collection[str] = (),
) -> Prepared:
    """A saved script by its id or name, in its newest version unless another is wanted, on these nodes.

    The secret parameters in `kept` are given as names of kept secrets: nobody looks at their values here.

    Raises FeatureOff (also where it would need an approval and those are switched off), NotFound (the script, or the
    version), InvalidInput (nodes, labels, values; with pointers) and TooLarge.
    """
    features.need(control.settings, features.EXEC)
    with control.store.read() as connection:
        found = scripts.load(connection, script, version)
        if found is None:
            raise _unknown(script, version, there=scripts.load(connection, script) is not None)
    is_pasted = found.substitution != BOUND
    # What is said of approvals now holds for all versions; what is pasted is approved whatever it says.
    is_gated = found.requires_approval or is_pasted
    if is_gated:
        features.need(control.settings, features.APPROVAL)
    declared = tuple(script_parameters.from_json(one) for one in found.parameters)
    named = {one.name for one in declared if one.type == "secret" and one.name in kept}
    if named and is_pasted:
        detail = "values are put into the text of this script, and a kept secret never is"
        errors = [script_parameters.told(f"/parameter_values/{name}", detail) for name in sorted(named)]
        raise script_parameters.refused(errors, "invalid-parameters")
    values = script_parameters.bind(
        [one for one in declared if one.name not in named],
        {name: value for name, value in given.items() if name not in named},
        shell=found.shell,
    )
    nodes = resolve(control, targets, _HOSTS)
    text, env = found.body, {one.name: f"{{{{ parameters.{one.name} }}}}" for one in declared}
    if is_pasted:
        text, env = render_text(found.body, declared, values), {}
    _refuse_large(text, values)
    body = Body(found.shell, text, found.timeout)
    made = _fanned(f"{PACK}.{found.name}", found.name, body, env, _in_plan(declared), nodes, targets)
    gate = _gate(found, len(nodes)) if is_gated else None
    plan = replace(made.plan, gate=gate, version=str(found.version))
    return Prepared(replace(made, plan=plan, script=found.id, script_version=found.version), values)


def given(control: Control, body: Body, targets: Targets) -> Runnable:
    """A script that is not saved, on these nodes; the allowlist has its say when it is submitted.

    Raises FeatureOff, InvalidInput (nodes, labels; with pointers) and TooLarge.
    """
    features.need(control.settings, features.EXEC)
    nodes = resolve(control, targets, _HOSTS)
    return _fanned(adhoc.REF, "One script", body, {}, (), nodes, targets)


def _refuse_large(text: str, values: Mapping[str, Any]) -> None:
    """Raises TooLarge where the script with its values is more than an order carries: every node would refuse it."""
    size = len(json.dumps([text, dict(values)], ensure_ascii=False).encode())
    if size > adhoc.MOST_BYTES:
        detail = f"the script and its values are {size} bytes as JSON, and may have {adhoc.MOST_BYTES}"
        hint = "bring large texts to the nodes in another way"
        errors = [{"pointer": "/parameter_values", "detail": detail, "hint": hint}]
        raise TooLarge(detail, hint=hint, errors=errors)


def _in_plan(declared: Sequence[ScriptParameter]) -> tuple[Parameter, ...]:
    """The declarations without the defaults of secrets: those are values by now, and no plan holds a secret."""
    found = script_parameters.as_workflow(declared)
    return tuple(
        replace(one, has_default=False, default=None) if one.type == "secret" else one for one in found
    )


def _unknown(script: str, version: int | None, *, there: bool) -> NotFound:
    if not there:
        return NotFound(
            f"there is no script {script}", hint="list them: `muster script list`", code="unknown-script"
        )
    detail, hint = f"the script {script} has no version {version}", f"`muster script versions {script}`"
    errors = [{"pointer": "/version", "detail": detail, "hint": hint}]
    return NotFound(detail, hint=hint, code="unknown-version", errors=errors)


def _gate(script: SavedScript, nodes: int) -> dict[str, Any]:
    """The approval that the execution waits for, as the input of `core.approval`."""
    where = "one node" if nodes == 1 else f"{nodes} nodes"
    return {
        **script.approval,
        "prompt": f"Run the script {script.name}, version {script.version}, on {where}?",
    }


def _fanned(
    ref: str,
    label: str,
    body: Body,
    env: Mapping[str, str],
    parameters: tuple[Parameter, ...],
    nodes: list[str],
    targets: Targets,
) -> Runnable:
    """The workflow whose one task runs the body on every node. Raises TooLarge for what no order could carry."""
    rest: dict[str, Any] = {
        "script": body.text,
        "shell": body.shell,
        "timeout": body.timeout,
        "max_failures": targets.max_failures,
    }
    if targets.batch is not None:
        rest["batch"] = targets.batch
    size = len(json.dumps([rest, dict(env)], ensure_ascii=False).encode())
    if size > adhoc.MOST_BYTES:
        raise TooLarge(
            f"the script is {size} bytes as JSON, and may have {adhoc.MOST_BYTES}",
            hint="put what is large on the nodes, or fetch it from there",
        )
    # Compiled with nothing but the variables, so that whatever else is there is never taken for a template.
    task = Task(name=TASK, type="distributed_shell", action=FANOUT_ACTION, input={"env": dict(env)})
    plan = build(Workflow(ref=ref, label=label, parameters=parameters, tasks=(task,)))
    literal = {**rest, "nodes": nodes}
    planned = replace(
        plan.tasks[TASK], input={**literal, **({"env": dict(env)} if env else {})}, literal=tuple(literal)
    )
    definition = {
        "ref": ref,
        "parameters": {one.name: _declared(one) for one in parameters},
        "tasks": [{"name": TASK, "type": "distributed_shell", "input": dict(planned.input)}],
    }
    source = json.dumps(definition, indent=2, ensure_ascii=False) + "\n"
    return Runnable(replace(plan, tasks={TASK: planned}), source, None)


def _declared(parameter: Parameter) -> dict[str, Any]:
    shown = parameter_to_json(parameter)
    return {name: shown[name] for name in ("type", "required", "description") if shown[name]}
