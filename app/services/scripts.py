"""Saved scripts: kept in versions that never change. What a script does has a version; how it is run has none."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from app.errors import Conflict, NotFound
from app.ids import ulid
from app.services import audit, features
from app.services.control import Control
from app.services.script_drafts import Checked, Draft, check
from app.store import scripts as rows
from app.store.scripts import SavedScript
from app.store.tables import Script, ScriptVersion, table

scripts, versions = table(Script), table(ScriptVersion)

NEVER: Final = 0
"""The revision that a script has before it is saved for the first time."""


@dataclass(frozen=True, slots=True)
class Saved:
    """What a save came to. `change` is created, version (a new one), updated (how it is run) or none."""

    script: SavedScript
    change: str
    warnings: tuple[Mapping[str, Any], ...] = ()


CREATED, VERSION, UPDATED, NONE = "created", "version", "updated", "none"


def save(control: Control, draft: Draft, person: str, *, expected: int | None = None) -> Saved:
    """Keep a script, as a new version where what it does has changed. Nothing is written where nothing has.

    Raises FeatureOff, InvalidInput with pointers, and Conflict (`revision-conflict`) where `expected` is not its
    revision (`NEVER`: that it is not there).
    """
    features.need(control.settings, features.LIBRARY)
    checked = check(draft)
    try:
        return _save(control, checked, person, expected)
    except IntegrityError:
        raise Conflict(f"{draft.name} was saved by somebody else just now", hint="try again") from None


def _save(control: Control, checked: Checked, person: str, expected: int | None) -> Saved:
    name, now = checked.draft.name, control.clock()
    with audit.writing(control, person, "script.save", name, _told(checked)) as connection:
        row = _locked(connection, name)
        _check_revision(name, row, expected)
        if row is None:
            change, id_, number = CREATED, ulid(now), 1
            first = {"id": id_, "name": name, "created_at": now, "updated_at": now, "updated_by": person}
            connection.execute(insert(Script).values(**first, **checked.rest))
            _keep_version(connection, checked, id_, number, person, now)
        else:
            change = _change(connection, row, checked)
            id_, number = row["id"], row["version"] + (change == VERSION)
            if change == VERSION:
                _keep_version(connection, checked, id_, number, person, now)
            if change != NONE:
                _move_on(connection, row, {**checked.rest, "version": number}, person, now)
        return Saved(_loaded(connection, id_, number), change, checked.warnings)


def _told(checked: Checked) -> dict[str, Any]:
    return {"digest": checked.digest, "requires_approval": checked.draft.requires_approval}


def _locked(connection: Connection, script: str) -> RowMapping | None:
    query = select(scripts).where(rows.is_called(script)).with_for_update()
    return connection.execute(query).mappings().first()


def _check_revision(name: str, row: RowMapping | None, expected: int | None) -> None:
    there = NEVER if row is None else row["revision"]
    if expected is not None and expected != there:
        message = f"{name} is at revision {there}, not {expected}" if there else f"there is no script {name}"
        raise Conflict(message, hint="read it again and repeat the change", code="revision-conflict")


def _change(connection: Connection, row: RowMapping, checked: Checked) -> str:
    newest = _loaded(connection, row["id"], row["version"])
    if newest.digest != checked.digest:
        return VERSION
    return NONE if all(row[name] == value for name, value in checked.rest.items()) else UPDATED


def _keep_version(
    connection: Connection, checked: Checked, script: str, version: int, person: str, now: float
) -> None:
    values = {"script_id": script, "version": version, "digest": checked.digest, **checked.essence}
    connection.execute(insert(ScriptVersion).values(**values, author=person, created_at=now))


def _move_on(
    connection: Connection, row: RowMapping, columns: Mapping[str, Any], person: str, now: float
) -> None:
    more = {"revision": row["revision"] + 1, "updated_by": person, "updated_at": now}
    connection.execute(update(Script).where(scripts.c.id == row["id"]).values(**columns, **more))


def _loaded(connection: Connection, script: str, version: int | None = None) -> SavedScript:
    """Raises NotFound."""
    found = rows.load(connection, script, version)
    if found is None:
        raise unknown(script, version if rows.load(connection, script) else None)
    return found


def unknown(script: str, version: int | None = None) -> NotFound:
    """The error of a script, or of a version of it, that is not there."""
    if version is None:
        return NotFound(
            f"there is no script {script}", hint="list them: `muster script list`", code="unknown-script"
        )
    hint = f"list them: `muster script versions {script}`"
    return NotFound(f"the script {script} has no version {version}", hint=hint, code="unknown-version")


def rollback(
    control: Control, script: str, version: int, person: str, *, expected: int | None = None
) -> Saved:
    """Make what an older version did a new version. Nothing is written where the newest does the same.

    Raises FeatureOff, NotFound and Conflict, as `save` does.
    """
    features.need(control.settings, features.LIBRARY)
    now = control.clock()
    with audit.writing(control, person, "script.rollback", script, {"version": version}) as connection:
        row = _locked(connection, script)
        if row is None:
            raise unknown(script)
        _check_revision(row["name"], row, expected)
        old, newest = _loaded(connection, row["id"], version), _loaded(connection, row["id"])
        if old.digest == newest.digest:
            return Saved(newest, NONE)
        number = row["version"] + 1
        kept = {
            name: getattr(old, name) for name in ("shell", "body", "parameters", "substitution", "digest")
        }
        made = {"script_id": row["id"], "version": number, "author": person, "created_at": now}
        connection.execute(insert(ScriptVersion).values(**made, **kept))
        _move_on(connection, row, {"version": number}, person, now)
        return Saved(_loaded(connection, row["id"]), VERSION)


def remove(control: Control, script: str, person: str, *, expected: int | None = None) -> None:
    """Forget a script with all its versions. Executions keep the body that they ran; schedules of it skip.

    Raises FeatureOff, NotFound, and Conflict where `expected` is not its revision.
    """
    features.need(control.settings, features.LIBRARY)
    with audit.writing(control, person, "script.delete", script) as connection:
        row = _locked(connection, script)
        if row is None:
            raise unknown(script)
        _check_revision(row["name"], row, expected)
        connection.execute(delete(Script).where(scripts.c.id == row["id"]))


def get(connection: Connection, script: str, version: int | None = None) -> SavedScript:
    """A script by its id or name; the newest version of it, or the one asked for. Raises NotFound."""
    return _loaded(connection, script, version)


def list_scripts(
    connection: Connection, *, limit: int, after: str | None = None, prefix: str = "", tag: str = ""
) -> list[SavedScript]:
    """Scripts in their newest version, by name, those behind `after`; with a name that begins so, or with a tag."""
    query = rows.newest().order_by(scripts.c.name)
    if prefix:
        query = query.where(func.substr(scripts.c.name, 1, len(prefix)) == prefix)
    if tag:
        query = query.where(rows.has_tag(tag))
    if after is not None:
        query = query.where(scripts.c.name > after)
    return [SavedScript(**row) for row in connection.execute(query.limit(limit)).mappings()]


def list_versions(
    connection: Connection, script: str, *, limit: int, before: int | None = None
) -> list[RowMapping]:
    """The versions of a script, the newest first, without their bodies. Raises NotFound."""
    found = _loaded(connection, script)
    shown = ("version", "shell", "parameters", "substitution", "digest", "author", "created_at")
    query = select(*(versions.c[name] for name in shown)).where(versions.c.script_id == found.id)
    if before is not None:
        query = query.where(versions.c.version < before)
    return list(connection.execute(query.order_by(versions.c.version.desc()).limit(limit)).mappings())


def diff(connection: Connection, script: str, old: int, new: int) -> dict[str, Any]:
    """What changed between two versions: the bodies as a unified diff, and what else differs. Raises NotFound."""
    before, after = _loaded(connection, script, old), _loaded(connection, script, new)
    lines = difflib.unified_diff(
        before.body.splitlines(keepends=True),
        after.body.splitlines(keepends=True),
        f"{before.name}@{old}",
        f"{after.name}@{new}",
    )
    text = "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end\n" for line in lines)
    changed = {
        name: {"old": getattr(before, name), "new": getattr(after, name)}
        for name in ("shell", "substitution", "parameters")
        if getattr(before, name) != getattr(after, name)
    }
    return {"script": before.name, "old": old, "new": new, "diff": text, "changed": changed}
