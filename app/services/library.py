"""What is kept to be run: packs, workflows with their revisions, compiled plans."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, RowMapping, bindparam, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from app.compiler.build import build
from app.compiler.graph import shape
from app.compiler.plan import PLAN_VERSION, Plan
from app.engine.status import EXECUTION_OVER
from app.errors import Conflict, InvalidInput, NotFound
from app.language import names
from app.language.model import Workflow
from app.language.parse import load_or_raise
from app.services import audit
from app.services.control import Control
from app.store import executions as rows
from app.store.prepared import Query
from app.store.tables import Execution, Pack, StoredPlan, WorkflowDefinition, WorkflowVersion

packs, definitions = Pack.__table__, WorkflowDefinition.__table__
versions, executions = WorkflowVersion.__table__, Execution.__table__

Version = str | int | None
"""Which snapshot: a `version` (its newest revision), the number of a revision, None for the newest."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A workflow as it is kept now. `created` is False where nothing had to be stored."""

    ref: str
    version: str
    revision: int
    created: bool


@dataclass(frozen=True, slots=True)
class Runnable:
    """What an execution pins."""

    plan: Plan
    source: str
    revision: int | None


def compile_text(source: str, file: str = "<definition>") -> tuple[Workflow, Plan]:
    """Read and compile a text. Raises InvalidWorkflow with every problem."""
    workflow = load_or_raise(source, file)
    return workflow, build(workflow)


def store_workflow(
    control: Control, pack: str, source: str, author: str, *, expected: int | None = None, ref: str = ""
) -> Stored:
    """Keep a workflow's text as a new revision, unless the newest one is the same text.

    The pack is made when it is first used. With `expected` the newest revision must have that number; with
    `ref` the text must be that workflow's. Raises InvalidWorkflow, InvalidInput (the text names no workflow,
    or one of another pack), Conflict (another revision came first).
    """
    workflow, plan = compile_text(source)
    _check_ref(workflow.ref, pack, ref)
    now = control.clock()
    with audit.writing(control, author, "workflow.store", workflow.ref) as connection:
        definition = _locked(connection, pack, workflow, now)
        newest = _version(connection, definition.id, None)
        if newest is not None and newest.source == source:
            return Stored(workflow.ref, newest.version, newest.revision, created=False)
        if expected is not None and (newest is None or newest.revision != expected):
            raise Conflict(
                f"{workflow.ref} is at revision {newest.revision if newest else 0}, not {expected}",
                hint="read it again and repeat the change",
                code="revision-conflict",
            )
        revision = newest.revision + 1 if newest else 1
        values = {
            "workflow_id": definition.id,
            "revision": revision,
            "version": workflow.version,
            "source": source,
            "plan_digest": _keep_plan(connection, plan, source, now),
            "author": author,
            "created_at": now,
        }
        connection.execute(insert(WorkflowVersion), values)
        connection.execute(
            update(WorkflowDefinition)
            .where(definitions.c.id == definition.id)
            .values(**_described(workflow), revision=revision, updated_at=now)
        )
    return Stored(workflow.ref, workflow.version, revision, created=True)


def _check_ref(found: str, pack: str, ref: str) -> None:
    """Raises InvalidInput with a pointer into the text."""
    if found == names.INLINE_REF:
        raise _bad_ref(
            "the workflow has no `ref`, so it cannot be stored", f"write `ref: {ref or pack + '.name'}`"
        )
    if ref and found != ref:
        raise _bad_ref(
            f"the text is of {found}, not of {ref}", f"write `ref: {ref}`, or store it under its own name"
        )
    if found.partition(".")[0] != pack:
        raise _bad_ref(
            f"the text's pack is {found.partition('.')[0]}, not {pack}",
            f"post it to the pack {found.partition('.')[0]}, or change `ref`",
        )


def _bad_ref(detail: str, hint: str) -> InvalidInput:
    return InvalidInput(
        detail,
        hint=hint,
        code="bad-ref",
        errors=[{"pointer": "/definition/ref", "detail": detail, "hint": hint}],
    )


def _locked(connection: Connection, pack: str, workflow: Workflow, now: float) -> Any:
    """The row of the workflow, made if need be; no other writer can change it until the transaction ends."""
    query = select(definitions.c.id).where(definitions.c.ref == workflow.ref).with_for_update()
    found = connection.execute(query).first()
    if found is not None:
        return found
    pack_id = _made(connection, Pack, packs.c.ref == pack, {"ref": pack, "created_at": now})
    values = {
        "ref": workflow.ref,
        "pack_id": pack_id,
        "pack_ref": pack,
        "revision": 0,
        "created_at": now,
        "updated_at": now,
        **_described(workflow),
    }
    _made(connection, WorkflowDefinition, definitions.c.ref == workflow.ref, values)
    return connection.execute(query).one()


def _made(connection: Connection, table: Any, where: Any, values: dict[str, Any]) -> int:
    """The id of a row, inserted unless it is there."""
    query = select(table.id).where(where)
    found = connection.execute(query).scalar()
    if found is None:
        try:
            with connection.begin_nested():
                connection.execute(insert(table), values)
        except IntegrityError:
            pass  # another writer was first
        found = connection.execute(query).scalar_one()
    return int(found)


def _described(workflow: Workflow) -> dict[str, Any]:
    return {
        "label": workflow.label,
        "description": workflow.description,
        "version": workflow.version,
        "tags": list(workflow.tags),
        "param_schema": [_parameter(one) for one in workflow.parameters],
        "out_schema": None if workflow.output is None else dict(workflow.output),
    }


def _parameter(parameter: Any) -> dict[str, Any]:
    shown = {"name": parameter.name, "type": parameter.type, "required": parameter.required}
    if parameter.description:
        shown["description"] = parameter.description
    if parameter.has_default and parameter.type != "secret":
        shown["default"] = parameter.default
    if parameter.enum is not None and parameter.type != "secret":
        shown["enum"] = list(parameter.enum)
    return shown


def _keep_plan(connection: Connection, plan: Plan, source: str, now: float) -> str:
    digest = rows.store_plan(connection, plan, source, PLAN_VERSION, now)
    connection.execute(update(StoredPlan).where(StoredPlan.digest == digest).values(used_at=now))
    return digest


def _version(connection: Connection, workflow_id: int, wanted: Version) -> Any:
    query = select(versions).where(versions.c.workflow_id == workflow_id)
    if isinstance(wanted, int):
        query = query.where(versions.c.revision == wanted)
    elif wanted is not None:
        query = query.where(versions.c.version == wanted)
    return connection.execute(query.order_by(versions.c.revision.desc()).limit(1)).first()


def get(connection: Connection, ref: str, wanted: Version = None) -> RowMapping:
    """A workflow with the source, version and revision of the snapshot that is meant. Raises NotFound."""
    query = (
        select(
            *(definitions.c[name] for name in _SHOWN),
            versions.c.version,
            versions.c.revision,
            versions.c.source,
            versions.c.author,
            versions.c.plan_digest,
        )
        .join(versions, versions.c.workflow_id == definitions.c.id)
        .where(definitions.c.ref == ref)
        .order_by(versions.c.revision.desc())
        .limit(1)
    )
    if isinstance(wanted, int):
        query = query.where(versions.c.revision == wanted)
    elif wanted is not None:
        query = query.where(versions.c.version == wanted)
    found = connection.execute(query).mappings().first()
    if found is None:
        which = (
            "" if wanted is None else f" at {'revision' if isinstance(wanted, int) else 'version'} {wanted}"
        )
        raise NotFound(
            f"there is no workflow {ref}{which}",
            hint="list them: `muster workflow list`",
            code="unknown-workflow",
        )
    return found


_SHOWN = (
    "ref",
    "pack_ref",
    "label",
    "description",
    "tags",
    "param_schema",
    "out_schema",
    "enabled",
    "created_at",
    "updated_at",
)


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


def runnable(control: Control, ref: str, wanted: Version = None) -> Runnable:
    """What to run when a stored workflow is executed. Raises NotFound; Conflict where it is switched off."""
    with control.store.read() as connection:
        found = _newest.first(connection, ref=ref) if wanted is None else None
        if found is None:
            found = _Snapshot(*(get(connection, ref, wanted)[name] for name in _Snapshot._fields))
        plan = rows.plan(connection, found.plan_digest)
    if not found.enabled:
        raise Conflict(
            f"{ref} is switched off", hint="enable it, or execute another", code="workflow-disabled"
        )
    return Runnable(plan, found.source, found.revision)


def graph(connection: Connection, ref: str, wanted: Version = None) -> dict[str, Any]:
    """The graph of a stored workflow, as `compiler.graph.shape` has it. Raises NotFound."""
    return shape(rows.plan(connection, get(connection, ref, wanted)["plan_digest"]))


def inline(source: str) -> Runnable:
    """What to run for a text that is not stored. Raises InvalidWorkflow."""
    return Runnable(compile_text(source)[1], source, None)


def delete_workflow(control: Control, ref: str, person: str, *, expected: int | None = None) -> None:
    """Forget a workflow with all its revisions; executions keep what they pinned.

    Raises NotFound, and Conflict while executions of it run, or where `expected` is not its newest revision.
    """
    with audit.writing(control, person, "workflow.delete", ref) as connection:
        query = (
            select(definitions.c.id, definitions.c.revision).where(definitions.c.ref == ref).with_for_update()
        )
        found = connection.execute(query).first()
        if found is None:
            raise NotFound(f"there is no workflow {ref}", code="unknown-workflow")
        if expected is not None and found.revision != expected:
            raise Conflict(f"{ref} is at revision {found.revision}, not {expected}", code="revision-conflict")
        running = connection.execute(
            select(executions.c.id)
            .where(executions.c.workflow_ref == ref, executions.c.status.not_in(EXECUTION_OVER))
            .limit(1)
        ).scalar()
        if running is not None:
            raise Conflict(
                f"{ref} is being executed ({running})",
                hint="wait for its executions or cancel them",
                code="workflow-busy",
            )
        connection.execute(delete(WorkflowDefinition).where(definitions.c.id == found.id))


def list_packs(connection: Connection) -> list[RowMapping]:
    """Every pack with the number of its workflows."""
    query = (
        select(
            packs.c.ref, packs.c.label, packs.c.created_at, func.count(definitions.c.id).label("workflows")
        )
        .outerjoin(definitions, definitions.c.pack_id == packs.c.id)
        .group_by(packs.c.id)
        .order_by(packs.c.ref)
    )
    return list(connection.execute(query).mappings())


def list_workflows(
    connection: Connection, *, limit: int, after: str | None = None, pack: str | None = None
) -> list[RowMapping]:
    """Workflows by reference, those behind `after`; at their newest revision, without the source."""
    query = select(*(definitions.c[name] for name in (*_SHOWN, "version", "revision")))
    if pack is not None:
        query = query.where(definitions.c.pack_ref == pack)
    if after is not None:
        query = query.where(definitions.c.ref > after)
    return list(connection.execute(query.order_by(definitions.c.ref).limit(limit)).mappings())


def list_versions(
    connection: Connection, ref: str, *, limit: int, before: int | None = None
) -> list[RowMapping]:
    """Revisions of a workflow, the newest first. Raises NotFound."""
    query = (
        select(*(versions.c[name] for name in ("revision", "version", "author", "created_at")))
        .join(definitions, definitions.c.id == versions.c.workflow_id)
        .where(definitions.c.ref == ref)
    )
    if before is not None:
        query = query.where(versions.c.revision < before)
    found = list(connection.execute(query.order_by(versions.c.revision.desc()).limit(limit)).mappings())
    if not found and before is None:
        get(connection, ref)
    return found
