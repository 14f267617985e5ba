"""Which nodes are meant: named one by one, or chosen by their labels; looked up once."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import literal_column, select

from app.compiler.plan import LOCAL
from app.errors import InvalidInput
from app.services.control import Control
from app.store.prepared import Query
from app.store.tables import Node, table

nodes = table(Node)

_TOLD_AT_MOST = 20


@dataclass(frozen=True, slots=True)
class Targets:
    """On which nodes: exactly one of `names` and `labels`. The rest is as in `core.distributed_shell`.

    With `allow_unknown` names that no node has are rows of the result, as nodes that are away are; all of them must
    not be unknown.
    """

    names: Sequence[str] | None
    labels: Mapping[str, str] | None
    batch: Any = None
    max_failures: int = 0
    allow_unknown: bool = False


class Known(NamedTuple):
    """A node that is not removed."""

    name: str
    state: str
    labels: Mapping[str, str] | None
    shells: Sequence[str]


_known = Query(
    select(*(nodes.c[name] for name in Known._fields)).where(nodes.c.state != literal_column("'removed'")),
    Known,
)


def fleet_now(control: Control) -> dict[str, Known]:
    """The nodes that are not removed, by name."""
    with control.store.glance() as connection:
        return {node.name: node for node in _known.all(connection)}


def labelled(fleet: Mapping[str, Any], labels: Mapping[str, str]) -> list[str]:
    """The active nodes that carry all these labels; `local` is never among them. Raises InvalidInput for none."""
    found = [
        name
        for name, row in fleet.items()
        if name != LOCAL
        and row.state == "active"
        and all((row.labels or {}).get(key) == value for key, value in labels.items())
    ]
    if not found:
        hint = "list them: `muster node list`"
        raise wrong("no active node has these labels", hint, code="no-nodes", pointer="/labels")
    return found


def refuse_unknown(fleet: Container[str], names: Sequence[str], pointer: str) -> None:
    """Raises InvalidInput with a pointer below `pointer` for each name that no node has."""
    missing = [(position, name) for position, name in enumerate(names) if name not in fleet]
    if missing:
        errors = [
            {"pointer": f"{pointer}/{position}", "detail": f"there is no node {name}"}
            for position, name in missing[:_TOLD_AT_MOST]
        ]
        raise InvalidInput(
            f"{len(missing)} of {len(names)} nodes do not exist, {missing[0][1]} first",
            hint="take them out, or send `allow_unknown: true` to have a row for each",
            code="unknown-nodes",
            errors=errors,
        )


def resolve(control: Control, targets: Targets, pointer: str) -> list[str]:
    """The names of the nodes that are meant, in the order given or that of their names.

    `pointer` is where their names stand in the request. Raises InvalidInput: names that no node has (with
    `allow_unknown` only where all are), labels that none has.
    """
    if targets.labels is not None:
        return sorted(labelled(fleet_now(control), targets.labels))
    names = list(targets.names or ())
    with control.store.read() as connection:
        known = set(connection.execute(select(nodes.c.name).where(nodes.c.state != "removed")).scalars())
    if not targets.allow_unknown or known.isdisjoint(names):
        refuse_unknown(known, names, pointer)
    return names


def wrong(detail: str, hint: str, *, code: str, pointer: str) -> InvalidInput:
    """One thing that is wrong, with its place in the request."""
    errors = [{"pointer": pointer, "detail": detail, "hint": hint}]
    return InvalidInput(detail, hint=hint, code=code, errors=errors)
