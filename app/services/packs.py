"""Packs: registered from their files all or nothing, listed, shown and deleted."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from app.compiler.build import build
from app.engine.status import EXECUTION_OVER
from app.errors import Conflict, InvalidInput, NotAllowed, NotFound
from app.language.known import Known, action_to_json, digest_of, parameter_to_json
from app.language.model import Action, Workflow
from app.language.pack_tables import CORE
from app.language.packs import InvalidPack, Pack, load, load_or_raise
from app.services import audit, library
from app.services.control import Control
from app.services.runnable import known_to, with_names
from app.store.tables import Execution, PackAction, PackFile, WorkflowDefinition, table
from app.store.tables import Pack as PackRow

packs, files, actions = table(PackRow), table(PackFile), table(PackAction)
definitions, executions = table(WorkflowDefinition), table(Execution)

MOST_NAMED = 20
"""Executions that a refusal names."""


@dataclass(slots=True)
class Registered:
    """What a registration changed: actions and workflows that are new or different, and those that are gone.

    `revision` is the pack's; `warnings` are doubtful places in its files.
    """

    ref: str
    revision: int = 0
    created: bool = False
    changed: list[str] = field(default_factory=list)
    disabled: list[str] = field(default_factory=list)
    files: int = 0
    warnings: list[Any] = field(default_factory=list)


def register(control: Control, given: Mapping[str, str], author: str) -> Registered:
    """Read a pack from its files by path, and keep it with all its actions and workflows.

    What is as it was stays as it is; what is no longer in the files is switched off. Raises InvalidPack with every
    problem, InvalidInput for the pack core, and Conflict where a name is taken.
    """
    with control.store.read() as connection:
        pack, warnings = _read(connection, given)
    if pack.ref == CORE:
        message = f"the pack {CORE} is built in: it cannot be registered"
        raise InvalidInput(message, hint="choose another `ref`", code="built-in-pack")
    now = control.clock()
    with audit.writing(control, author, "pack.register", pack.ref) as connection:
        pack_id = library.pack_row(connection, pack.ref, now)
        row = connection.execute(select(packs).where(packs.c.id == pack_id)).one()
        done = Registered(pack.ref, row.revision, created=not row.revision, warnings=warnings)
        _retire(connection, pack_id, pack, done, now)
        revisions = {
            ref: _keep_action(connection, pack_id, action, done, now) for ref, action in pack.actions.items()
        }
        for ref, packed in sorted(pack.workflows.items()):
            library.refuse_action(connection, ref)
            workflow = _revised(packed.workflow, revisions)
            text = library.Text(workflow, build(workflow), packed.text, author)
            if library.keep(connection, pack_id, text, now, registered=True).created:
                done.changed.append(ref)
        done.files = _keep_files(connection, pack_id, pack.files)
        about = _about(pack)
        if (
            done.changed
            or done.disabled
            or done.files
            or any(getattr(row, name) != about[name] for name in about)
        ):
            done.revision += 1
            told = {**about, "revision": done.revision, "updated_at": now}
            connection.execute(update(packs).where(packs.c.id == pack_id).values(told))
    return done


def _read(connection: Connection, given: Mapping[str, str]) -> tuple[Pack, list[Any]]:
    texts = [text for path, text in given.items() if path.endswith(".yaml")]
    known = _beside(known_to(connection, *texts), given)
    loaded = load(given, known)
    if loaded.pack is None and any(one.code == "unknown-action" for one in loaded.problems):
        load_or_raise(given, with_names(connection, known))
    if loaded.pack is None:
        raise InvalidPack(loaded.problems)
    return loaded.pack, list(loaded.problems)


def _beside(known: Known, given: Mapping[str, str]) -> Known:
    """Without what the database has of the pack itself: that comes from its files."""
    head = load({path: text for path, text in given.items() if path == "pack.yaml"}).pack
    own = f"{head.ref}." if head is not None else "."
    return Known(
        {ref: one for ref, one in known.actions.items() if not ref.startswith(own)},
        frozenset(ref for ref in known.workflows if not ref.startswith(own)),
        known.configs,
        known.complete,
    )


def _revised(workflow: Workflow, revisions: Mapping[str, int]) -> Workflow:
    """With the revisions that the actions of its own pack have got."""
    used = (replace(one, revision=revisions.get(one.ref, one.revision)) for one in workflow.actions)
    return replace(workflow, actions=tuple(used))


def _about(pack: Pack) -> dict[str, Any]:
    schema = [{**parameter_to_json(one), "secret": one.secret} for one in pack.config]
    return {
        "label": pack.label,
        "description": pack.description,
        "version": pack.version,
        "author": pack.author,
        "tags": list(pack.tags),
        "config_schema": schema,
    }


def _retire(connection: Connection, pack_id: int, pack: Pack, done: Registered, now: float) -> None:
    """Switch off what came with an earlier registration and is no longer there."""
    gone = select(actions.c.ref).where(actions.c.pack_id == pack_id, actions.c.enabled)
    for ref in connection.execute(gone.order_by(actions.c.ref)).scalars().all():
        if ref not in pack.actions:
            connection.execute(
                update(actions).where(actions.c.ref == ref).values(enabled=False, updated_at=now)
            )
            done.disabled.append(ref)
    mine = (definitions.c.pack_id == pack_id, definitions.c.registered, definitions.c.enabled)
    for ref in (
        connection.execute(select(definitions.c.ref).where(*mine).order_by(definitions.c.ref)).scalars().all()
    ):
        if ref not in pack.workflows:
            switched = update(definitions).where(definitions.c.ref == ref)
            connection.execute(switched.values(enabled=False, updated_at=now))
            done.disabled.append(ref)


def _keep_action(connection: Connection, pack_id: int, action: Action, done: Registered, now: float) -> int:
    """Gives the action\'s revision."""
    taken = select(definitions.c.id).where(definitions.c.ref == action.ref, definitions.c.enabled)
    if connection.execute(taken).first() is not None:
        raise Conflict(
            f"{action.ref} is a workflow that was stored by itself",
            hint=f"choose another name, or delete it: `muster workflow delete {action.ref}`",
            code="name-taken",
        )
    found = connection.execute(select(actions).where(actions.c.ref == action.ref)).first()
    values = {"digest": digest_of(action), "body": action_to_json(action), "enabled": True, "updated_at": now}
    if found is None:
        revision = 1
        more = {"ref": action.ref, "pack_id": pack_id, "revision": revision, "created_at": now}
        connection.execute(insert(actions).values({**values, **more}))
    elif found.body != values["body"] or not found.enabled:
        revision = found.revision + (found.body != values["body"])
        connection.execute(
            update(actions).where(actions.c.id == found.id).values(**values, revision=revision)
        )
    else:
        return int(found.revision)
    done.changed.append(action.ref)
    return int(revision)


def _keep_files(connection: Connection, pack_id: int, given: Mapping[str, str]) -> int:
    """How many files are new, different or gone."""
    known: dict[str, str] = {
        row.path: row.sha256
        for row in connection.execute(select(files.c.path, files.c.sha256).where(files.c.pack_id == pack_id))
    }
    wanted = {path: hashlib.sha256(text.encode()).hexdigest() for path, text in given.items()}
    stale = [path for path, digest in known.items() if wanted.get(path) != digest]
    fresh = [path for path, digest in wanted.items() if known.get(path) != digest]
    if stale:
        connection.execute(delete(files).where(files.c.pack_id == pack_id, files.c.path.in_(stale)))
    for path in fresh:
        text = given[path]
        values = {"pack_id": pack_id, "path": path, "sha256": wanted[path], "content": text}
        connection.execute(insert(files).values(**values, bytes=len(text.encode())))
    return len({*stale, *fresh})


def delete_pack(control: Control, ref: str, person: str) -> None:
    """Forget a pack with its actions, workflows, files and configuration; executions keep what they pinned.

    Raises NotFound, NotAllowed for the pack core, and Conflict naming the executions of its workflows that are not
    over.
    """
    with audit.writing(control, person, "pack.delete", ref) as connection:
        if ref == CORE:
            raise NotAllowed(f"the pack {CORE} is built in", hint="it stays", code="built-in-pack")
        pack_id = connection.execute(select(packs.c.id).where(packs.c.ref == ref).with_for_update()).scalar()
        if pack_id is None:
            raise no_pack(ref)
        running = (
            select(executions.c.id)
            .where(executions.c.workflow_ref.startswith(f"{ref}.", autoescape=True))
            .where(executions.c.status.not_in(EXECUTION_OVER))
            .order_by(executions.c.id)
            .limit(MOST_NAMED + 1)
        )
        found = connection.execute(running).scalars().all()
        if found:
            more = ", …" if found[MOST_NAMED:] else ""
            raise Conflict(
                f"workflows of {ref} are being executed: {', '.join(found[:MOST_NAMED])}{more}",
                hint="wait for these executions or cancel them",
                code="pack-busy",
            )
        connection.execute(delete(packs).where(packs.c.id == pack_id))


def no_pack(ref: str) -> NotFound:
    """That there is no such pack."""
    return NotFound(f"there is no pack {ref}", hint="list them: `muster pack list`", code="unknown-pack")
