"""Saved scripts as workflows name them: `deploy`, or one version as `deploy@3`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, Row, or_, select

from app.language.model import PinnedScript
from app.store.tables import Script, ScriptVersion, table

scripts, versions = table(Script), table(ScriptVersion)

_AT_ONCE = 500
_COLUMNS = (
    *(scripts.c[name] for name in ("id", "name")),
    *(versions.c[name] for name in ("version", "shell", "body", "parameters")),
    scripts.c.timeout,
    # A version whose values are pasted is approved whatever is said of approvals now.
    or_(scripts.c.requires_approval, versions.c.substitution != "bound").label("requires_approval"),
)


def load(connection: Connection, refs: Iterable[str]) -> dict[str, PinnedScript]:
    """Those that there are, by what they were asked for. At most two statements for 500 of them."""
    wanted = sorted(set(refs))
    if not wanted:
        return {}
    newest = [ref for ref in wanted if "@" not in ref]
    found: dict[str, PinnedScript] = {}
    query = select(*_COLUMNS).join(versions, versions.c.script_id == scripts.c.id)
    for some in _split(newest):
        of_now = query.where(scripts.c.name.in_(some), versions.c.version == scripts.c.version)
        found.update({row.name: _pinned(row) for row in connection.execute(of_now)})
    for some in _split([ref for ref in wanted if "@" in ref]):
        pairs = [ref.partition("@")[::2] for ref in some]
        named = scripts.c.name.in_({name for name, _ in pairs})
        numbered = versions.c.version.in_({int(version) for _, version in pairs})
        for row in connection.execute(query.where(named, numbered)):
            if f"{row.name}@{row.version}" in some:
                found[f"{row.name}@{row.version}"] = _pinned(row)
    return found


def names(connection: Connection, most: int) -> tuple[str, ...]:
    """The names of saved scripts, so many at the most."""
    return tuple(connection.execute(select(scripts.c.name).order_by(scripts.c.name).limit(most)).scalars())


def _split(refs: list[str]) -> Iterable[list[str]]:
    return (refs[start : start + _AT_ONCE] for start in range(0, len(refs), _AT_ONCE))


def _pinned(row: Row[Any]) -> PinnedScript:
    values = row._asdict()
    return PinnedScript(**{**values, "parameters": tuple(values["parameters"])})
