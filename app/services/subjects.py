"""What people decide on, as one stored text, so that what runs afterwards can be held to it.

For a whole execution it says what every order may hold and on which nodes; secrets stand there by name and version,
never with a value. The digest of the text is what was approved: nothing that is read later from another row counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, select

from app import marks
from app.compiler.plan import ASK_ACTIONS, ENGINE_ACTIONS, PlanTask
from app.engine.context import fixed_scopes, render_input, seconds, size_of
from app.engine.place import addressed, carrying
from app.engine.state import Ask, ExecutionState, JobState
from app.errors import InvalidInput
from app.jobs.build import build_job
from app.language import expressions
from app.language.expressions import TemplateError
from app.store import scripts
from app.store.tables import Execution, Script, Secret, SecretParameter, table
from app.transport.messages import Job, canonical

if TYPE_CHECKING:
    from app.services.run import Run

executions, names = table(Execution), table(Script)
secrets, parameters = table(Secret), table(SecretParameter)

_APART: Final = frozenset({"id", "execution", "task", "unit", "attempt", "trace_id", "grace", "output_limit"})
"""What of a job says which one it is, or comes from settings: all else is what was approved."""

_NONE: Final = object()
_USUAL: Final = {one.name: one.default for one in fields(Job)}
"""By field of a job; what has no default is never left out."""

_SMALL: Final = 16_384
"""Bytes of parameters that the question of a task repeats; larger ones stand there by their digest."""


def of(run: Run, ask: Ask, asked_by: str) -> str:
    """The text of one question. `asked_by` is the last of the `askers`.

    Raises InvalidInput for an execution of which nobody can say before it runs what would run where.
    """
    found = of_task(run, ask) if ask.task else of_execution(run, asked_by)
    return canonical(found).decode()


def askers(run: Run) -> list[str]:
    """Who has all of this asked, the last one last: none of them approves it.

    That is the requester, who wrote what its schedule runs, and whoever tried it again, or what it is a child of.
    Otherwise an administrator could write into somebody's schedule what they then approve themselves.
    """
    found: list[str] = []
    query = select(executions.c.askers, executions.c.parent)
    row = run.connection.execute(query.where(executions.c.id == run.execution)).first()
    # What has a child may be gone before it: it came to its end, and was pruned.
    while row is not None:
        found = [*row.askers, *found]
        row = run.connection.execute(query.where(executions.c.id == row.parent)).first()
    return [run.head.requester, *found]


def digest_of(subject: str) -> str:
    """What stands for the text of a question."""
    return hashlib.sha256(subject.encode()).hexdigest()


def of_task(run: Run, ask: Ask) -> dict[str, Any]:
    """What a task asks: with the plan and the values that the execution has."""
    state = run.head.state
    given: Any = state.parameters
    if size_of(given) > _SMALL:
        given = {"sha256": hashlib.sha256(canonical(given)).hexdigest()}
    more = {"config": state.config} if state.config else {}
    return {
        "execution": run.execution,
        "plan": run.head.plan_digest,
        "parameters": given,
        "task": ask.task,
        "unit": ask.unit,
        "prompt": ask.prompt,
        **more,
    }


def of_execution(run: Run, asked_by: str) -> dict[str, Any]:
    """All that would run, and where. Raises InvalidInput."""
    state = run.head.state
    query = select(executions.c.kind, executions.c.script, executions.c.script_version)
    row = run.connection.execute(query.where(executions.c.id == run.execution)).one()
    return {
        "execution": run.execution,
        "asked": state.gates + 1,
        "kind": row.kind,
        "script": _script(run.connection, row.script, row.script_version),
        "workflow": run.head.workflow,
        "plan": run.head.plan_digest,
        "requester": run.head.requester,
        "asked_by": asked_by,
        "gate": dict(run.plan.gate or {}),
        "parameters": state.parameters,
        "runs": [_entry(run, task) for task in run.plan.tasks.values() if _runs_something(task)],
    }


def _script(connection: Connection, script: str, version: int) -> dict[str, Any] | None:
    """The saved script as it is now. `newest`: nobody asked for an older version."""
    if not script:
        return None
    found = scripts.load(connection, script, version)
    name = "" if found is None else found.name
    newest = connection.execute(select(names.c.version).where(names.c.id == script)).scalar()
    digest = "" if found is None else found.digest
    return {"id": script, "name": name, "version": version, "digest": digest, "newest": newest == version}


def _runs_something(task: PlanTask) -> bool:
    return task.action not in ENGINE_ACTIONS | ASK_ACTIONS


def _entry(run: Run, task: PlanTask) -> dict[str, Any]:
    """What one task would run on which nodes."""
    if not (task.runs_on_nodes and task.kind in ("job", "fanout")) or task.refs or task.var_refs or task.kv:
        raise _not_fixed(task, "its orders hang on more than the parameters")
    try:
        scopes = fixed_scopes(run.plan, run.head.state)
        given = render_input(task, scopes)
        timeout = seconds(task.timeout, scopes, "timeout")
        place = expressions.render(task.delegate_to, scopes)
    except TemplateError as problem:
        raise _not_fixed(task, problem.message) from None
    job = JobState("", task.name, 0, 1, "")
    told: dict[str, Any] = {"plan": run.plan, "guard": run.head.guard, "trace_id": ""}
    message = build_job(run.execution, task, given, timeout, job, run.control.settings, **told)
    text = run.plan.actions[task.action]["script"] if task.scripted else given.get("script")
    command = given.get("command")
    if isinstance(command, str):
        text, command = command, None
    used = marks.references([message.env, message.stdin, message.input])
    return {
        "task": task.name,
        "nodes": _nodes(run, task, given, place),
        "shell": message.shell if text is not None else "",
        "script": None if text is None else hashlib.sha256(str(text).encode()).hexdigest(),
        "command": command,
        "timeout": message.timeout,
        "secrets": held(run.connection, run.head.state, used),
        "digest": what_runs(message),
    }


def _not_fixed(task: PlanTask, why: str) -> InvalidInput:
    return InvalidInput(
        f"nobody can approve an execution whose task {task.name} is not known beforehand: {why}",
        hint="ask with `core.approval` before that task instead",
        code="gate-not-fixed",
    )


def _nodes(run: Run, task: PlanTask, given: Mapping[str, Any], place: Any) -> list[str]:
    wanted = given.get("nodes") if task.kind == "fanout" else place
    if isinstance(wanted, Mapping) and "node" in wanted:
        wanted = wanted["node"]
    if isinstance(wanted, Mapping):
        fleet = [node for _, node in sorted(run.slice.fleet.items())]
        if "address" in wanted:
            return [node.name for node in addressed(fleet, str(wanted["address"]))]
        return [node.name for node in carrying(fleet, wanted.get("labels", wanted))]
    return [wanted] if isinstance(wanted, str) else list(dict.fromkeys(map(str, wanted or ())))


def what_runs(message: Job) -> str:
    """The digest of all that an order makes a node do: the same for every node, attempt and retry of it.

    What is as usual is left out, so that a field more in a later version changes nothing that was approved before.
    """
    told = message.to_json()
    said = {
        name: value for name, value in told.items() if name not in _APART and value != _USUAL.get(name, _NONE)
    }
    return hashlib.sha256(canonical(said)).hexdigest()


def held(connection: Connection, state: ExecutionState, references: Iterable[str]) -> dict[str, Any]:
    """What each reference to a secret means now: the stored secret and its version, none for a value of its own."""
    found: dict[str, Any] = {}
    for reference in sorted(set(references)):
        kind, _, name = reference.partition(":")
        if kind == marks.PARAMETER:
            mine = (parameters.c.execution == state.id, parameters.c.name == name)
            name = connection.execute(select(parameters.c.secret).where(*mine)).scalar() or ""
        elif kind == marks.CONFIG:
            name = str(state.config.get(name, ""))
        version = connection.execute(select(secrets.c.version).where(secrets.c.name == name)).scalar()
        found[reference] = {"secret": name, "version": version or 0}
    return found
