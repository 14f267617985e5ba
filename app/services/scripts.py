"""Saved scripts: kept with every version that they had, brought back to one of them, forgotten."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from app.errors import Conflict, NotFound
from app.ids import ulid
from app.language import script_form
from app.language.script_form import Checked, Form
from app.services import audit, features
from app.services.control import Control
from app.services.kv import NEVER
from app.store.scripts import SavedScript, load
from app.store.tables import Script, ScriptVersion, table
from app.transport.messages import canonical

scripts, versions = table(Script), table(ScriptVersion)

WHAT_RUNS = ("shell", "body", "parameters", "substitution")
"""What a version holds; a change of it makes a new one."""
BESIDE = ("name", "description", "tags", "timeout", "requires_approval", "approval")
"""What holds for all versions."""


@dataclass(frozen=True, slots=True)
class Saved:
    """What came of it. `changed` are the fields that are different now; none of them where nothing had to be stored."""

    id: str
    name: str
    version: int
    revision: int
    is_new: bool
    changed: tuple[str, ...]
    warnings: list[dict[str, Any]]


def save(
    control: Control, form: Form, person: str, *, script: str = "", expected: int | None = None
) -> Saved:
    """Keep a script under its name; with `script`, an id, that one, which may get another name by it.

    What runs is kept as a new version if it changed. With `expected` the script must have that revision (NEVER: there
    is none). Raises FeatureOff, InvalidInput (everything that is wrong), NotFound and Conflict.
    """
    features.need(control.settings, features.LIBRARY)
    checked = script_form.check(form)
    told: dict[str, Any] = {}
    with audit.writing(control, person, "script.save", form.name, told) as connection:
        saved = _keep(control, connection, form, checked, person, script, expected)
        told.update(_told(saved))
    return saved


def roll_back(
    control: Control, script: str, version: int, person: str, *, expected: int | None = None
) -> Saved:
    """Make a new version of a script, by its id or name, that runs what an old one ran.

    Raises FeatureOff, NotFound, InvalidInput (the old one would not be taken today) and Conflict.
    """
    features.need(control.settings, features.LIBRARY)
    told: dict[str, Any] = {"to": version}
    with audit.writing(control, person, "script.rollback", script, told) as connection:
        row = _locked(connection, scripts.c.id == script, scripts.c.name == script)
        if row is None:
            raise unknown(script)
        old = load(connection, row["id"], version)
        if old is None:
            raise unknown(script, version)
        form = Form(**{name: getattr(old, name) for name in (*WHAT_RUNS, *BESIDE)})
        saved = _keep(control, connection, form, script_form.check(form), person, row["id"], expected)
        told.update(_told(saved))
    return saved


def remove(control: Control, script: str, person: str, *, expected: int | None = None) -> None:
    """Forget a script, by its id or name, with all its versions. Executions keep what they run.

    Raises FeatureOff, NotFound, and Conflict where `expected` is not its revision.
    """
    features.need(control.settings, features.LIBRARY)
    with audit.writing(control, person, "script.delete", script) as connection:
        row = _locked(connection, scripts.c.id == script, scripts.c.name == script)
        if row is None:
            raise unknown(script)
        _expect(row["name"], row["revision"], expected)
        connection.execute(delete(ScriptVersion).where(versions.c.script_id == row["id"]))
        connection.execute(delete(Script).where(scripts.c.id == row["id"]))


def unknown(script: str, version: int | None = None) -> NotFound:
    """There is no such script, or no such version of it."""
    if version is not None:
        hint = f"`muster script versions {script}`"
        return NotFound(f"the script {script} has no version {version}", hint=hint, code="unknown-version")
    hint = "list them: `muster script list`"
    return NotFound(f"there is no script {script}", hint=hint, code="unknown-script")


def digest_of(shell: str, body: str, parameters: Any, substitution: str) -> str:
    """The digest of what a version runs."""
    return hashlib.sha256(canonical([shell, body, parameters, substitution])).hexdigest()


def _keep(
    control: Control,
    connection: Connection,
    form: Form,
    checked: Checked,
    person: str,
    script: str,
    expected: int | None,
) -> Saved:
    form = replace(form, parameters=checked.parameters, tags=list(form.tags), approval=dict(form.approval))
    row = _locked(connection, scripts.c.id == script if script else scripts.c.name == form.name)
    if row is None and script:
        raise unknown(script)
    if row is None:
        _expect(form.name, NEVER, expected)
        made = _make(control, connection, form, checked, person)
        if made is not None:
            return made
        # Another writer was first, and has committed by now.
        row = _locked(connection, scripts.c.name == form.name)
        if row is None:
            raise Conflict(f"{form.name} was saved and deleted by others just now", hint="try again")
    _expect(row["name"], row["revision"], expected)
    return _change(control, connection, row, form, checked, person)


def _locked(connection: Connection, *conditions: Any) -> RowMapping | None:
    query = select(scripts).where(or_(*conditions)).with_for_update()
    return connection.execute(query).mappings().first()


def _expect(name: str, revision: int, expected: int | None) -> None:
    if expected is not None and expected != revision:
        raise Conflict(
            f"{name} is at revision {revision}, not {expected}",
            hint="read it again and repeat the change",
            code="revision-conflict",
        )


def _make(
    control: Control, connection: Connection, form: Form, checked: Checked, person: str
) -> Saved | None:
    """None where the name is taken by now."""
    now = control.clock()
    row = {
        "id": ulid(now),
        **{name: getattr(form, name) for name in BESIDE},
        "version": 1,
        "revision": 1,
        "updated_by": person,
        "created_at": now,
        "updated_at": now,
    }
    try:
        with connection.begin_nested():
            connection.execute(insert(Script), row)
    except IntegrityError:
        return None
    _add_version(connection, row["id"], 1, form, person, now)
    return Saved(row["id"], form.name, 1, 1, True, (*BESIDE, *WHAT_RUNS), checked.warnings)


def _change(
    control: Control, connection: Connection, row: RowMapping, form: Form, checked: Checked, person: str
) -> Saved:
    now = control.clock()
    newest = load(connection, row["id"])
    assert newest is not None, "a script has a version"
    changed = changed_fields(newest, form)
    if not changed:
        return Saved(row["id"], form.name, row["version"], row["revision"], False, (), checked.warnings)
    version = row["version"] + bool(set(changed) & set(WHAT_RUNS))
    written = {
        **{name: getattr(form, name) for name in BESIDE},
        "version": version,
        "revision": row["revision"] + 1,
        "updated_by": person,
        "updated_at": now,
    }
    try:
        with connection.begin_nested():
            connection.execute(update(Script).where(scripts.c.id == row["id"]).values(written))
    except IntegrityError:
        raise Conflict(
            f"another script is called {form.name}", hint="choose another name", code="name-taken"
        ) from None
    if version != row["version"]:
        _add_version(connection, row["id"], version, form, person, now)
    return Saved(row["id"], form.name, version, row["revision"] + 1, False, changed, checked.warnings)


def changed_fields(old: SavedScript, new: Form | SavedScript) -> tuple[str, ...]:
    """The names of what is different, in the order of BESIDE and WHAT_RUNS."""
    return tuple(
        name for name in (*BESIDE, *WHAT_RUNS) if _plain(getattr(old, name)) != _plain(getattr(new, name))
    )


def _plain(value: Any) -> Any:
    """As canonical JSON, in which 1 and 1.0, and true and 1, are not the same."""
    return value if isinstance(value, str | float) else canonical(value)


def _add_version(
    connection: Connection, script: str, version: int, form: Form, person: str, now: float
) -> None:
    values = {
        "script_id": script,
        "version": version,
        **{name: getattr(form, name) for name in WHAT_RUNS},
        "digest": digest_of(form.shell, form.body, form.parameters, form.substitution),
        "author": person,
        "created_at": now,
    }
    connection.execute(insert(ScriptVersion), values)


def _told(saved: Saved) -> Mapping[str, Any]:
    return {
        "id": saved.id,
        "version": saved.version,
        "revision": saved.revision,
        "changed": list(saved.changed),
    }
