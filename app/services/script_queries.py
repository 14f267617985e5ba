"""Saved scripts as they are read: listed, one with its body, what it was before, and how two versions differ."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy import Connection, RowMapping, func, select

from app.language import script_form
from app.language.script_form import Form
from app.services import features
from app.services.control import Control
from app.services.scripts import WHAT_RUNS, changed_fields, unknown
from app.settings import Settings
from app.store.scripts import SavedScript, load
from app.store.tables import Script, ScriptVersion, table

scripts, versions = table(Script), table(ScriptVersion)

MOST_COMPARED = 2000
"""Lines of both versions together, beside those that they begin and end with alike, that are compared one by one."""
_CONTEXT = 3
_UNENDED = "\\ No newline at end of file"

_LISTED = (
    *("id", "name", "description", "tags", "version", "timeout", "requires_approval", "revision"),
    *("updated_by", "created_at", "updated_at"),
)


@dataclass(frozen=True, slots=True)
class Difference:
    """`changed` are the fields of `scripts.WHAT_RUNS` that differ, `text` a unified diff of the bodies."""

    old: SavedScript
    new: SavedScript
    changed: tuple[str, ...]
    text: str


def list_scripts(
    connection: Connection,
    settings: Settings,
    *,
    limit: int,
    after: str | None = None,
    prefix: str = "",
    tag: str | None = None,
) -> list[RowMapping]:
    """Scripts by name: those behind `after` that begin with `prefix` and have the tag. Raises FeatureOff."""
    features.need(settings, features.LIBRARY)
    query = (
        select(*(scripts.c[name] for name in _LISTED), versions.c.shell)
        .join(versions, (versions.c.script_id == scripts.c.id) & (versions.c.version == scripts.c.version))
        .order_by(scripts.c.name)
    )
    if prefix:
        query = query.where(func.substr(scripts.c.name, 1, len(prefix)) == prefix)
    if after is not None:
        query = query.where(scripts.c.name > after)
    if tag is None:
        return list(connection.execute(query.limit(limit)).mappings())
    # Databases look into JSON in ways of their own; there are never so many scripts that it matters.
    with connection.execute(query.execution_options(yield_per=200)) as every:
        return list(islice((row for row in every.mappings() if tag in row["tags"]), limit))


def get(connection: Connection, settings: Settings, script: str, version: int | None = None) -> SavedScript:
    """A script by its id or name, in its newest version or another. Raises FeatureOff and NotFound."""
    features.need(settings, features.LIBRARY)
    found = load(connection, script, version)
    if found is None:
        raise unknown(script, version if version is not None and load(connection, script) else None)
    return found


def list_versions(
    connection: Connection, settings: Settings, script: str, *, limit: int, before: int | None = None
) -> list[RowMapping]:
    """Versions of a script, the newest first, without their bodies. Raises FeatureOff and NotFound."""
    id_ = get(connection, settings, script).id
    query = select(
        *(versions.c[name] for name in ("version", "shell", "digest", "author", "created_at")),
        func.length(versions.c.body).label("characters"),
    ).where(versions.c.script_id == id_)
    if before is not None:
        query = query.where(versions.c.version < before)
    return list(connection.execute(query.order_by(versions.c.version.desc()).limit(limit)).mappings())


def difference(connection: Connection, settings: Settings, script: str, old: int, new: int) -> Difference:
    """What changed from one version to another. Raises FeatureOff and NotFound."""
    left, right = (get(connection, settings, script, number) for number in (old, new))
    changed = tuple(name for name in changed_fields(left, right) if name in WHAT_RUNS)
    names = (f"{left.name} version {old}", f"{right.name} version {new}")
    return Difference(left, right, changed, "\n".join(_unified(left.body, right.body, *names)))


def check(control: Control, form: Form) -> list[dict[str, Any]]:
    """The warnings that saving it would give. Raises FeatureOff and InvalidInput."""
    features.need(control.settings, features.LIBRARY)
    return script_form.check(form).warnings


def _unified(old: str, new: str, old_name: str, new_name: str) -> Iterator[str]:
    """The lines of a unified diff, in a time that grows with the length of the bodies."""
    if old == new:
        return
    left, right = _lines(old), _lines(new)
    most = min(len(left), len(right))
    head = next((place for place in range(most) if left[place] != right[place]), most)
    tail = next((n for n in range(most - head) if left[-1 - n] != right[-1 - n]), most - head)
    start, left_end, right_end = max(0, head - _CONTEXT), len(left) - tail, len(right) - tail
    ends = min(tail, _CONTEXT)
    if left_end - head + right_end - head <= MOST_COMPARED:
        diff = difflib.SequenceMatcher(None, left[head:left_end], right[head:right_end]).get_opcodes()
    else:
        diff = [("replace", 0, left_end - head, 0, right_end - head)]
    codes = [(tag, a + head, b + head, c + head, d + head) for tag, a, b, c, d in diff]
    around = [
        ("equal", start, head, start, head),
        *codes,
        ("equal", left_end, left_end + ends, right_end, right_end + ends),
    ]
    yield f"--- {old_name}"
    yield f"+++ {new_name}"
    for group in _groups([code for code in around if code[1] != code[2] or code[3] != code[4]]):
        yield f"@@ -{_range(group, 1, 2)} +{_range(group, 3, 4)} @@"
        for tag, a, b, c, d in group:
            for sign, lines in (
                ((" ", left[a:b]),) if tag == "equal" else (("-", left[a:b]), ("+", right[c:d]))
            ):
                for line in lines:
                    yield sign + line.removesuffix("\n")
                    if not line.endswith("\n"):
                        yield _UNENDED


_Code = tuple[str, int, int, int, int]


def _groups(codes: Sequence[_Code]) -> Iterator[list[_Code]]:
    """Hunks: changes that are near each other, with a few lines around."""
    group: list[_Code] = []
    for tag, a, b, c, d in codes:
        if tag == "equal" and group and b - a > 2 * _CONTEXT:
            yield [*group, (tag, a, a + _CONTEXT, c, c + _CONTEXT)]
            group = [(tag, b - _CONTEXT, b, d - _CONTEXT, d)]
        else:
            group.append((tag, a, b, c, d))
    if any(code[0] != "equal" for code in group):
        yield group


def _range(group: Sequence[_Code], start: int, end: int) -> str:
    first, last = int(group[0][start]), int(group[-1][end])
    return f"{first + bool(last - first)},{last - first}"


def _lines(text: str) -> list[str]:
    """Lines that end at `\\n` only, each with it."""
    found = text.split("\n")
    return [line + "\n" for line in found[:-1]] + ([found[-1]] if found[-1] else [])
