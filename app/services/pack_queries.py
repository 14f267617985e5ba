"""What packs there are, what they hold, and what can be called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, RowMapping, func, select

from app.errors import NotFound
from app.language.actions import ACTIONS
from app.language.pack_files import FOLDERS, KEPT
from app.language.pack_tables import CORE, WORKFLOW
from app.services.packs import no_pack
from app.store.tables import Pack, PackAction, PackFile, WorkflowDefinition, table

packs, files, actions = table(Pack), table(PackFile), table(PackAction)
definitions = table(WorkflowDefinition)

_HEAD: Final = (
    "ref",
    "label",
    "description",
    "version",
    "author",
    "tags",
    "revision",
    "created_at",
    "updated_at",
)
_CORE: Final[Mapping[str, Any]] = {
    "ref": CORE,
    "label": "What Muster runs itself",
    "description": "Built in: it is not registered and cannot be deleted.",
    "version": "",
    "author": "",
    "tags": [],
    "revision": 0,
    "workflows": 0,
    "actions": len(ACTIONS),
}
_MOST: Final = 5000


def list_packs(connection: Connection, within: ColumnElement[bool] | None = None) -> list[dict[str, Any]]:
    """Packs by name, with how many workflows and actions each has; first `core`, which is built in.

    Of the others those for which `within` holds, if that is given.
    """
    counts: list[dict[int, int]] = []
    for of in (definitions, actions):
        query = select(of.c.pack_id, func.count()).where(of.c.enabled).group_by(of.c.pack_id)
        counts.append({row[0]: row[1] for row in connection.execute(query)})
    query = select(packs.c.id, *(packs.c[name] for name in _HEAD)).order_by(packs.c.ref)
    if within is not None:
        query = query.where(within)
    found = [
        {**row, "workflows": counts[0].get(row["id"], 0), "actions": counts[1].get(row["id"], 0)}
        for row in connection.execute(query).mappings()
    ]
    return [dict(_CORE), *found]


def get_pack(connection: Connection, ref: str) -> dict[str, Any]:
    """One pack with its actions, workflows, rules, sensors, tests and files. Raises NotFound."""
    if ref == CORE:
        listed = [_core(name) for name in sorted(ACTIONS)]
        return {**_CORE, **dict.fromkeys(FOLDERS, ()), "actions": listed, "files": []}
    row = connection.execute(select(packs).where(packs.c.ref == ref)).mappings().first()
    if row is None:
        raise no_pack(ref)
    mine = select(actions).where(actions.c.pack_id == row["id"]).order_by(actions.c.ref).limit(_MOST)
    known = select(definitions).where(definitions.c.pack_id == row["id"]).order_by(definitions.c.ref)
    listed_files = select(files.c.path, files.c.bytes, files.c.sha256).where(files.c.pack_id == row["id"])
    kept = [dict(one) for one in connection.execute(listed_files.order_by(files.c.path)).mappings()]
    return {
        **{name: row[name] for name in _HEAD},
        "actions": [_action(one) for one in connection.execute(mine).mappings()],
        "workflows": [_workflow(one) for one in connection.execute(known.limit(_MOST)).mappings()],
        **{
            name: [one["path"] for one in kept if one["path"].startswith(f"{name}/")]
            for name in (*KEPT, "tests")
        },
        "files": kept,
    }


def require(connection: Connection, ref: str) -> None:
    """That there is such a pack, `core` among them. Raises NotFound."""
    if ref != CORE and connection.execute(select(packs.c.id).where(packs.c.ref == ref)).first() is None:
        raise no_pack(ref)


def get_file(connection: Connection, ref: str, path: str) -> str:
    """The text of one file of a pack, as it was registered last. Raises NotFound."""
    query = select(files.c.content).join(packs, packs.c.id == files.c.pack_id)
    text = connection.execute(query.where(packs.c.ref == ref, files.c.path == path)).scalar()
    if text is None:
        require(connection, ref)
        hint = f"list them: `muster pack show {ref}`"
        raise NotFound(f"the pack {ref} has no file of this path", hint=hint, code="unknown-file")
    return str(text)


def list_actions(
    connection: Connection,
    *,
    limit: int,
    after: str | None = None,
    pack: str | None = None,
    within: Callable[[ColumnElement[str]], ColumnElement[bool] | None] | None = None,
) -> list[dict[str, Any]]:
    """What a task can call, by reference, those behind `after`: core actions, actions of packs, workflows.

    `within` makes the condition on their references, if there is one.
    """
    found = [_core(name) for name in ACTIONS if (after is None or name > after) and pack in (None, CORE)]
    for of, shown in ((actions, _action), (definitions, _workflow)):
        query = select(of).where(of.c.enabled)
        if after is not None:
            query = query.where(of.c.ref > after)
        if pack is not None:
            query = query.where(of.c.ref.startswith(f"{pack}.", autoescape=True))
        condition = None if within is None else within(of.c.ref)
        if condition is not None:
            query = query.where(condition)
        rows = connection.execute(query.order_by(of.c.ref).limit(limit)).mappings()
        found += [shown(row) for row in rows]
    return sorted(found, key=lambda one: str(one["ref"]))[:limit]


def get_action(connection: Connection, ref: str) -> dict[str, Any]:
    """One of them, switched off or not. Raises NotFound."""
    if ref in ACTIONS:
        return _core(ref)
    found = []
    for of, shown in ((actions, _action), (definitions, _workflow)):
        row = connection.execute(select(of).where(of.c.ref == ref)).mappings().first()
        found += [] if row is None else [shown(row)]
    if not found:
        raise unknown_action(ref)
    # A name may have moved from one to the other: then only one of them is switched on.
    return max(found, key=lambda one: bool(one["enabled"]))


def unknown_action(ref: str) -> NotFound:
    """That nothing of this name can be called."""
    hint = "list them: GET /actions"
    return NotFound(f"there is no action and no workflow {ref}", hint=hint, code="unknown-action")


def _action(row: RowMapping) -> dict[str, Any]:
    body = row["body"]
    told = {name: value for name, value in body.items() if name not in ("script", "calls")}
    return {
        **told,
        "pack": row["ref"].partition(".")[0],
        "parameters": [_parameter(one) for one in body["parameters"]],
        "is_workflow": body["runner"] == WORKFLOW,
        **{name: row[name] for name in ("enabled", "revision", "created_at", "updated_at")},
    }


def _parameter(data: Mapping[str, Any]) -> dict[str, Any]:
    shown = {name: data[name] for name in ("name", "type", "required", "description") if data[name] != ""}
    if data["has_default"] and data["type"] != "secret":
        shown["default"] = data["default"]
    if data["enum"] is not None and data["type"] != "secret":
        shown["enum"] = data["enum"]
    return shown


def _workflow(row: RowMapping) -> dict[str, Any]:
    told = ("ref", "label", "description", "enabled", "revision", "created_at", "updated_at")
    return {
        **{name: row[name] for name in told},
        "pack": row["pack_ref"],
        "runner": WORKFLOW,
        "parameters": row["param_schema"],
        "output": row["out_schema"],
        "is_workflow": True,
    }


def _core(name: str) -> dict[str, Any]:
    keys = ACTIONS[name].keys
    parameters = [{"name": key.name, "required": key.required, "description": key.doc} for key in keys]
    told = {"ref": name, "pack": CORE, "runner": CORE, "parameters": parameters}
    return {**told, "is_workflow": False, "enabled": True, "revision": 0}
