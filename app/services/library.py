"""What is kept to be run: packs, workflows with their revisions, compiled plans."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from app.compiler import circles
from app.compiler.graph import shape
from app.compiler.plan import PLAN_VERSION, Plan
from app.engine.status import EXECUTION_OVER
from app.errors import Conflict, InvalidInput, NotFound
from app.language import names
from app.language.model import Workflow
from app.services import audit, scope
from app.services.control import Control
from app.services.runnable import Version, compile_text, snapshot, unknown
from app.store import executions as rows
from app.store.tables import Execution, Pack, PackAction, StoredPlan, WorkflowDefinition, WorkflowVersion

packs, definitions = Pack.__table__, WorkflowDefinition.__table__
versions, executions = WorkflowVersion.__table__, Execution.__table__
actions = PackAction.__table__


@dataclass(frozen=True, slots=True)
class Stored:
    """A workflow as it is kept now. `created` is False where nothing had to be stored."""

    ref: str
    version: str
    revision: int
    created: bool


def store_workflow(
    control: Control, pack: str, source: str, author: str, *, expected: int | None = None, ref: str = ""
) -> Stored:
    """Keep a workflow's text as a new revision, unless the newest one is the same text.

    The pack is made when it is first used. With `expected` the newest revision must have that number; with
    `ref` the text must be that workflow's. Raises InvalidWorkflow, InvalidInput (the text names no workflow,
    or one of another pack, or it would start itself by way of others), Conflict (another revision came first).
    """
    with control.store.read() as connection:
        workflow, plan = compile_text(control, connection, source)
    _check_ref(workflow.ref, pack, ref)
    now = control.clock()
    with audit.writing(control, author, "workflow.store", workflow.ref) as connection:
        scope.check_calls(control, connection, author, plan)
        refuse_action(connection, workflow.ref)
        pack_id = pack_row(connection, pack, now)
        return keep(connection, pack_id, Text(workflow, plan, source, author), now, expected=expected)


@dataclass(frozen=True, slots=True)
class Text:
    """A workflow that is to be kept: read, compiled, as text, and by whom."""

    workflow: Workflow
    plan: Plan
    source: str
    author: str


def keep(
    connection: Connection,
    pack_id: int,
    text: Text,
    now: float,
    *,
    expected: int | None = None,
    registered: bool | None = None,
) -> Stored:
    """Write a new revision, unless the newest one is the same text; switched on either way.

    `registered`: see the table. None leaves it, but for one that was switched off: that now stands by itself.

    Raises Conflict where `expected` is not the newest revision, InvalidInput where it would start itself.
    """
    workflow = text.workflow
    _refuse_circle(connection, workflow.ref, text.plan)
    definition = _locked(connection, pack_id, workflow, now)
    newest = _version(connection, definition.id, None)
    if registered is None:
        registered = definition.registered and definition.enabled
    more = {"registered": registered, "enabled": True}
    if newest is not None and newest.source == text.source:
        if (definition.registered, definition.enabled) != (registered, True):
            switched = update(WorkflowDefinition).where(definitions.c.id == definition.id)
            connection.execute(switched.values(more))
        return Stored(workflow.ref, newest.version, newest.revision, created=not definition.enabled)
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
        "source": text.source,
        "plan_digest": _keep_plan(connection, text.plan, text.source, now),
        "author": text.author,
        "created_at": now,
    }
    connection.execute(insert(WorkflowVersion), values)
    connection.execute(
        update(WorkflowDefinition)
        .where(definitions.c.id == definition.id)
        .values(**_described(workflow), **more, revision=revision, updated_at=now)
    )
    return Stored(workflow.ref, workflow.version, revision, created=True)


def refuse_action(connection: Connection, ref: str) -> None:
    """Raises Conflict where an action of a pack has that name."""
    query = select(actions.c.id).where(actions.c.ref == ref, actions.c.enabled)
    if connection.execute(query).first() is not None:
        raise Conflict(
            f"{ref} is an action of a pack",
            hint="choose another name, or register the pack without it",
            code="name-taken",
        )


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


def _refuse_circle(connection: Connection, ref: str, plan: Plan) -> None:
    """Raises InvalidInput where a child of this workflow, or one of theirs, is this workflow again."""

    def stored(child: str) -> Plan | None:
        try:
            return rows.plan(connection, snapshot(connection, child, None).plan_digest)
        except NotFound:
            return None

    way = circles.way_back(ref, plan, stored)
    if way:
        detail, hint = f"{ref} would start itself: {' → '.join(way)}", "take one of them out of the circle"
        told = {"pointer": "/definition", "detail": detail, "hint": hint}
        raise InvalidInput(detail, hint=hint, code="self-call", errors=[told])


def _bad_ref(detail: str, hint: str) -> InvalidInput:
    return InvalidInput(
        detail,
        hint=hint,
        code="bad-ref",
        errors=[{"pointer": "/definition/ref", "detail": detail, "hint": hint}],
    )


def pack_row(connection: Connection, pack: str, now: float) -> int:
    """The id of the pack's row, made if need be, and locked: nobody deletes it until the transaction ends."""
    locked = select(packs.c.id).where(packs.c.ref == pack).with_for_update()
    while (found := connection.execute(locked).scalar()) is None:
        _make(connection, Pack, {"ref": pack, "created_at": now, "updated_at": now})
    return int(found)


def _locked(connection: Connection, pack_id: int, workflow: Workflow, now: float) -> Any:
    """The row of the workflow, made if need be; no other writer can change it until the transaction ends."""
    query = (
        select(definitions.c.id, definitions.c.enabled, definitions.c.registered)
        .where(definitions.c.ref == workflow.ref)
        .with_for_update()
    )
    found = connection.execute(query).first()
    if found is not None:
        return found
    values = {
        "ref": workflow.ref,
        "pack_id": pack_id,
        "pack_ref": workflow.ref.partition(".")[0],
        "revision": 0,
        "created_at": now,
        "updated_at": now,
        **_described(workflow),
    }
    _make(connection, WorkflowDefinition, values)
    return connection.execute(query).one()


def _make(connection: Connection, table: Any, values: dict[str, Any]) -> None:
    """Insert a row, unless another writer was first."""
    try:
        with connection.begin_nested():
            connection.execute(insert(table), values)
    except IntegrityError:
        pass


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
        raise unknown(ref, wanted)
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


def graph(connection: Connection, ref: str, wanted: Version = None) -> dict[str, Any]:
    """The graph of a stored workflow, as `compiler.graph.shape` has it. Raises NotFound."""
    return shape(rows.plan(connection, get(connection, ref, wanted)["plan_digest"]))


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
            raise unknown(ref, None)
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


def list_workflows(
    connection: Connection,
    *,
    limit: int,
    after: str | None = None,
    pack: str | None = None,
    within: ColumnElement[bool] | None = None,
) -> list[RowMapping]:
    """Workflows by reference, at their newest revision, without the source; those behind `after`, if `within` holds."""
    query = select(*(definitions.c[name] for name in (*_SHOWN, "version", "revision")))
    if pack is not None:
        query = query.where(definitions.c.pack_ref == pack)
    if after is not None:
        query = query.where(definitions.c.ref > after)
    if within is not None:
        query = query.where(within)
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
