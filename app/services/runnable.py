"""What is to be run: texts compiled with all that is stored beside them, and stored workflows brought up to date."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, bindparam, select

from app.compiler.build import build
from app.compiler.plan import Plan
from app.errors import Conflict, NotFound
from app.language.known import Known, action_from_json, script_to_json, setting_from_json
from app.language.model import Workflow
from app.language.parse import load_or_raise
from app.language.problems import InvalidWorkflow
from app.services import limits
from app.services.control import Control
from app.services.guard import Origin
from app.store import executions as rows
from app.store import script_refs
from app.store.prepared import Query
from app.store.tables import Pack, PackAction, WorkflowDefinition, WorkflowVersion, table

packs, actions = table(Pack), table(PackAction)
definitions, versions = table(WorkflowDefinition), table(WorkflowVersion)

Version = str | int | None
"""Which snapshot: a `version` (its newest revision), the number of a revision, None for the newest."""

_REFERENCE: Final = re.compile(
    r"(?<![\w.-])([a-z][a-z0-9_-]{0,63})\.([a-z][a-z0-9_-]{0,63})(?![\w.-])", re.ASCII
)
_SCRIPT_REF: Final = re.compile(
    r"script_ref[\"']?\s*:(?:\s|#[^\n]*\n|[>|][-+0-9]*\s)*[\"']?([a-z][a-z0-9_-]{0,63}(?:@[1-9][0-9]{0,8})?)(?![\w.@-])",
    re.ASCII,
)
_AT_ONCE: Final = 500
_MOST_NAMES: Final = 2000
_COMPILED_KEPT: Final = 128


@dataclass(frozen=True, slots=True)
class Runnable:
    """What an execution pins. `script` is the id of the saved script that it was made from, if it was."""

    plan: Plan
    source: str
    revision: int | None
    script: str = ""
    script_version: int = 0


def kind_of(found: Runnable, origin: Origin) -> str:
    """What an execution of it is called: script, adhoc or workflow."""
    return "script" if found.script else "adhoc" if origin == "adhoc" else "workflow"


def known_to(connection: Connection, *texts: str) -> Known:
    """What the texts may refer to: whatever in them looks like a reference is looked up."""
    pairs = {pair for text in texts for pair in _REFERENCE.findall(text)}
    refs = sorted(".".join(pair) for pair in pairs)
    found = {}
    stored: set[str] = set()
    for some in _split(refs):
        query = select(actions.c.ref, actions.c.body, actions.c.revision)
        for row in connection.execute(query.where(actions.c.ref.in_(some), actions.c.enabled)):
            found[row.ref] = action_from_json(row.body, row.revision)
        stored.update(
            connection.execute(select(definitions.c.ref).where(definitions.c.ref.in_(some))).scalars()
        )
    configs = {}
    for some in _split(sorted({pack for pack, _ in pairs})):
        schemas = select(packs.c.ref, packs.c.config_schema)
        declared = schemas.where(packs.c.ref.in_(some), packs.c.config_schema.is_not(None))
        for pack, keys in connection.execute(declared):
            configs[pack] = tuple(setting_from_json(one) for one in keys)
    wanted = {ref for text in texts for ref in _SCRIPT_REF.findall(text)}
    scripts = script_refs.load(connection, wanted)
    return Known(found, frozenset(stored), configs, complete=True, scripts=scripts)


def _split(names: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(names), _AT_ONCE):
        yield names[start : start + _AT_ONCE]


def with_names(connection: Connection, known: Known) -> Known:
    """The same with all names that there are, for `did you mean`."""
    names: list[str] = []
    for of in (actions, definitions):
        names += connection.execute(
            select(of.c.ref).where(of.c.enabled).order_by(of.c.ref).limit(_MOST_NAMES)
        ).scalars()
    return replace(known, names=tuple(names), script_names=script_refs.names(connection, _MOST_NAMES))


def compile_text(
    control: Control, connection: Connection, source: str, file: str = "<definition>"
) -> tuple[Workflow, Plan]:
    """Read and compile a text. Raises InvalidWorkflow with every problem."""
    known, bounds = known_to(connection, source), limits.of_texts(control.settings)
    try:
        workflow = load_or_raise(source, file, known=known, limits=bounds)
    except InvalidWorkflow as error:
        if not any(one.code in ("unknown-action", "unknown-script") for one in error.problems):
            raise
        workflow = load_or_raise(source, file, known=with_names(connection, known), limits=bounds)
    return workflow, build(workflow)


class _Snapshot(NamedTuple):
    """What of a stored workflow an execution is made from."""

    enabled: bool
    plan_digest: str
    source: str
    revision: int


_newest = Query(
    select(definitions.c.enabled, versions.c.plan_digest, versions.c.source, versions.c.revision)
    .join(versions, versions.c.workflow_id == definitions.c.id)
    .where(definitions.c.ref == bindparam("ref"))
    .order_by(versions.c.revision.desc())
    .limit(1),
    _Snapshot,
)


def snapshot(connection: Connection, ref: str, wanted: Version) -> _Snapshot:
    """The snapshot that is meant. Raises NotFound."""
    if wanted is None:
        found = _newest.first(connection, ref=ref)
    else:
        of = versions.c.revision if isinstance(wanted, int) else versions.c.version
        query = (
            select(definitions.c.enabled, versions.c.plan_digest, versions.c.source, versions.c.revision)
            .join(versions, versions.c.workflow_id == definitions.c.id)
            .where(definitions.c.ref == ref, of == wanted)
            .order_by(versions.c.revision.desc())
        )
        row = connection.execute(query.limit(1)).first()
        found = None if row is None else _Snapshot(*row)
    if found is None:
        raise unknown(ref, wanted)
    return found


def unknown(ref: str, wanted: Version) -> NotFound:
    """That there is no such workflow, or no such snapshot of it."""
    which = "" if wanted is None else f" at {'revision' if isinstance(wanted, int) else 'version'} {wanted}"
    return NotFound(
        f"there is no workflow {ref}{which}",
        hint="list them: `muster workflow list`",
        code="unknown-workflow",
    )


def runnable(control: Control, ref: str, wanted: Version = None) -> Runnable:
    """What to run when a stored workflow is executed: with the actions of packs as they are now.

    Raises NotFound; Conflict where it is switched off; InvalidWorkflow where it no longer fits what it calls.
    """
    with control.store.glance() as connection:
        found = _enabled(connection, ref, wanted)
        plan = rows.plan(connection, found.plan_digest)
    if not _foreign(plan) and not plan.scripts:
        return Runnable(plan, found.source, found.revision)
    with control.store.read() as connection:
        return as_it_is(control, connection, ref, wanted)


def _enabled(connection: Connection, ref: str, wanted: Version) -> _Snapshot:
    found = snapshot(connection, ref, wanted)
    if not found.enabled:
        hint = "register its pack with it, or execute another"
        raise Conflict(f"{ref} is switched off", hint=hint, code="workflow-disabled")
    return found


def as_it_is(control: Control, connection: Connection, ref: str, wanted: Version = None) -> Runnable:
    """The same in a transaction of the caller's."""
    found = _enabled(connection, ref, wanted)
    plan = rows.plan(connection, found.plan_digest)
    now = {**_digests(connection, _foreign(plan)), **_digests_of(_scripts(connection, plan))}
    then = {name: action["digest"] for name, action in plan.actions.items()}
    if now != {**then, **_digests_of(plan.scripts)}:
        plan = _again(control, connection, found, tuple(sorted(now.items())))
    return Runnable(plan, found.source, found.revision)


def _foreign(plan: Plan) -> list[str]:
    """Everything that the workflow calls beside `core`: what was an action may be a workflow by now."""
    called = {task.action for task in plan.tasks.values() if task.has_child}
    return sorted(called | plan.actions.keys())


def _scripts(connection: Connection, plan: Plan) -> Mapping[str, Mapping[str, Any]]:
    """The saved scripts that the workflow runs, as they are now."""
    return {ref: script_to_json(script) for ref, script in script_refs.load(connection, plan.scripts).items()}


def _digests_of(scripts: Mapping[str, Mapping[str, Any]]) -> Mapping[str, str]:
    """By a name that no action has."""
    return {
        f"script_ref:{ref}": hashlib.sha256(json.dumps(script, sort_keys=True).encode()).hexdigest()
        for ref, script in scripts.items()
    }


def _digests(connection: Connection, refs: Iterable[str]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for some in _split(list(refs)):
        query = select(actions.c.ref, actions.c.digest)
        rows_ = connection.execute(query.where(actions.c.ref.in_(some), actions.c.enabled))
        found.update({row.ref: row.digest for row in rows_})
    return found


def _again(
    control: Control, connection: Connection, found: _Snapshot, digests: tuple[tuple[str, str], ...]
) -> Plan:
    """The plan with the actions as they are now; remembered by what it is made of."""
    key = (found.source, digests)
    plan = _COMPILED.get(key)
    if plan is None:
        plan = compile_text(control, connection, found.source)[1]
        if len(_COMPILED) >= _COMPILED_KEPT:
            _COMPILED.pop(next(iter(_COMPILED)), None)
        _COMPILED[key] = plan
    return plan


_COMPILED: dict[tuple[str, tuple[tuple[str, str], ...]], Plan] = {}


def inline(control: Control, source: str) -> Runnable:
    """What to run for a text that is not stored. Raises InvalidWorkflow."""
    with control.store.read() as connection:
        return Runnable(compile_text(control, connection, source)[1], source, None)
