"""Saved scripts as rows: one version of one, with what holds for all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Text, cast, or_, select

from app.store.tables import Script, ScriptVersion, table

scripts, versions = table(Script), table(ScriptVersion)

_VERSION = ("version", "shell", "body", "parameters", "substitution", "digest", "author", "created_at")
_SCRIPT = (
    "id",
    "name",
    "description",
    "tags",
    "timeout",
    "requires_approval",
    "approval",
    "revision",
    "updated_by",
    "updated_at",
)


@dataclass(frozen=True, slots=True)
class SavedScript:
    """One version of a saved script.

    `parameters` are its declarations as JSON. `substitution` is `bound` (values are environment variables) or `text`.
    `timeout` is in seconds. `created_at` and `author` are those of the version; `revision` counts every change of the
    script, also those that make no version, `updated_by` and `updated_at` tell of the last one.
    """

    id: str
    name: str
    description: str
    tags: Sequence[str]
    timeout: float
    requires_approval: bool
    approval: Mapping[str, Any]
    revision: int
    updated_by: str
    updated_at: float
    version: int
    shell: str
    body: str
    parameters: Sequence[Mapping[str, Any]]
    substitution: str
    digest: str
    author: str
    created_at: float


def is_called(script: str) -> ColumnElement[bool]:
    """The script of this id or name: no name looks like an id."""
    return or_(scripts.c.id == script, scripts.c.name == script)


def has_tag(tag: str) -> ColumnElement[bool]:
    """Scripts with a tag; a tag has nothing in it that JSON writes in another way."""
    return cast(scripts.c.tags, Text).contains(f'"{tag}"', autoescape=True)


def newest() -> Select[Any]:
    """Every script in its newest version, with the columns of a SavedScript."""
    return _joined().where(versions.c.version == scripts.c.version)


def _joined() -> Select[Any]:
    columns = (*(scripts.c[name] for name in _SCRIPT), *(versions.c[name] for name in _VERSION))
    return select(*columns).join(versions, versions.c.script_id == scripts.c.id)


def load(connection: Connection, script: str, version: int | None = None) -> SavedScript | None:
    """A version of the script of this id or name, the newest unless another is wanted; None where there is none."""
    wanted = scripts.c.version if version is None else version
    query = _joined().where(is_called(script), versions.c.version == wanted)
    row = connection.execute(query).mappings().first()
    return None if row is None else SavedScript(**row)
