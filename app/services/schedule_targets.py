"""What a schedule starts: its workflow as it is by then, with its parameters, as its owner would ask for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import select

from app import marks
from app.compiler.plan import Plan
from app.errors import InvalidInput
from app.services.control import Control
from app.services.runnable import Version, runnable
from app.services.submit import Submission
from app.store.tables import Secret, table

secrets = table(Secret)

WORKFLOW: Final = "workflow"
SCRIPT: Final = "script"


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be run: a workflow by its reference. Secret parameters are `{"secret": name}`."""

    kind: str
    ref: str
    version: Version = None
    nodes: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)


def target_of(row: Any) -> Target:
    """What a schedule's row wants to be run."""
    return Target(row.kind, row.ref, row.version, row.nodes, row.parameters)


def submission(control: Control, target: Target, owner: str, schedule: str = "") -> Submission:
    """What is handed in for it now. Raises as `runnable`, and InvalidInput for a secret that is not named as one."""
    found = runnable(control, target.ref, target.version)
    given_on = _named_secrets(control, found.plan, target.parameters)
    return Submission(
        plan=found.plan,
        source=found.source,
        requester=owner,
        parameters={name: value for name, value in target.parameters.items() if name not in given_on},
        revision=found.revision,
        given_on=given_on,
        schedule=schedule,
    )


def _named_secrets(control: Control, plan: Plan, parameters: Mapping[str, Any]) -> dict[str, str]:
    """References to kept secrets, by the parameters that are given them. Raises InvalidInput."""
    named: dict[str, str] = {}
    for name in plan.secret_parameters:
        value = parameters.get(name)
        if value is None:
            continue
        if not isinstance(value, Mapping) or set(value) != {"secret"} or not isinstance(value["secret"], str):
            detail = f"the parameter `{name}` is a secret, and a schedule keeps none"
            hint = 'keep it with `muster secret set`, and give {"secret": "its name"}'
            raise _wrong(f"/parameters/{name}", detail, hint, "secret")
        named[name] = value["secret"]
    if named:
        with control.store.read() as connection:
            query = select(secrets.c.name).where(secrets.c.name.in_(named.values()))
            known = set(connection.execute(query).scalars())
        for name, secret in named.items():
            if secret not in known:
                detail, hint = f"there is no secret {secret[:80]}", "list them: `muster secret list`"
                raise _wrong(f"/parameters/{name}/secret", detail, hint, "unknown-secret")
    return {name: f"{marks.SECRET}:{secret}" for name, secret in named.items()}


def _wrong(pointer: str, detail: str, hint: str, code: str) -> InvalidInput:
    return InvalidInput(
        detail, hint=hint, code=code, errors=[{"pointer": pointer, "detail": detail, "hint": hint}]
    )
