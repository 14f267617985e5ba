"""What a schedule starts: its workflow or script as it is by then, with its parameters, as asked for by its owner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import select

from app import marks
from app.compiler.plan import Plan
from app.language.script_parameters import refused, step, told
from app.services import scripted
from app.services.control import Control
from app.services.guard import STORED
from app.services.runnable import Runnable, Version, kind_of, runnable
from app.services.submit import Submission
from app.services.targets import Targets
from app.store.tables import Secret, table

secrets = table(Secret)

WORKFLOW: Final = "workflow"
SCRIPT: Final = "script"

_SECRET = "secret"


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be run: a workflow by its reference, or a saved script by its id or name.

    `version` is the one wanted, None the newest. `nodes` are host_ids or labels, batch and max_failures of a script; a
    workflow says itself where it runs. Secret parameters are `{"secret": name}`, the name of a kept one.
    """

    kind: str
    ref: str
    version: Version = None
    nodes: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)


def target_of(row: Any) -> Target:
    """What a schedule's row wants to be run."""
    return Target(row.kind, row.ref, row.version, row.nodes, row.parameters)


def submission(
    control: Control, target: Target, owner: str, schedule: str = "", written_by: str = ""
) -> Submission:
    """What is handed in for it now. `written_by` is who wrote what the schedule runs.

    Raises as `runnable` and `scripted.saved` do, and InvalidInput for a secret that is none, or not named as one.
    """
    named = {
        name: value[_SECRET]
        for name, value in target.parameters.items()
        if isinstance(value, Mapping) and set(value) == {_SECRET} and isinstance(value[_SECRET], str)
    }
    found, values = _prepared(control, target, named)
    given_on = _named_secrets(control, found.plan, target.parameters, named)
    return Submission(
        plan=found.plan,
        source=found.source,
        requester=owner,
        parameters={name: value for name, value in values.items() if name not in given_on},
        revision=found.revision,
        kind=kind_of(found, STORED),
        script=found.script,
        script_version=found.script_version,
        given_on=given_on,
        schedule=schedule,
        askers=(written_by,) if written_by else (),
        # A script has as many jobs as it has nodes; one that waits for an approval asks in the same transaction.
        is_put_off=target.kind == SCRIPT and found.plan.gate is None,
    )


def _prepared(
    control: Control, target: Target, named: Mapping[str, str]
) -> tuple[Runnable, Mapping[str, Any]]:
    if target.kind == WORKFLOW:
        return runnable(control, target.ref, target.version), target.parameters
    version = target.version if isinstance(target.version, int) else None
    nodes = target.nodes
    where = Targets(
        nodes.get("host_ids"), nodes.get("labels"), nodes.get("batch"), nodes.get("max_failures") or 0
    )
    found = scripted.saved(control, target.ref, version, where, target.parameters, named)
    return found.runnable, found.values


def _named_secrets(
    control: Control, plan: Plan, parameters: Mapping[str, Any], named: Mapping[str, str]
) -> dict[str, str]:
    """References to kept secrets, by the parameters that are given them. Raises InvalidInput."""
    wanted = {name: named[name] for name in plan.secret_parameters if name in named}
    known = _known(control, wanted)
    wrong = [
        told(
            f"/parameters/{step(name)}",
            f"the parameter `{name}` is a secret, and a schedule keeps no value of one",
            'keep it with `muster secret set`, and give {"secret": "its name"}',
        )
        for name in plan.secret_parameters
        if name not in named and parameters.get(name) is not None
    ]
    if wrong:
        raise refused(wrong, "secret")
    missing = [
        told(f"/parameters/{step(name)}/secret", f"there is no secret {secret[:80]}", "`muster secret list`")
        for name, secret in wanted.items()
        if secret not in known
    ]
    if missing:
        raise refused(missing, "unknown-secret")
    return {name: f"{marks.SECRET}:{secret}" for name, secret in wanted.items()}


def _known(control: Control, wanted: Mapping[str, str]) -> set[str]:
    if not wanted:
        return set()
    with control.store.read() as connection:
        query = select(secrets.c.name).where(secrets.c.name.in_(wanted.values()))
        return set(connection.execute(query).scalars())
