"""Roles, and grants: a role that a person has everywhere, or for some packs or nodes only. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from app.errors import InvalidInput
from app.language.pack_tables import PACK_NAME
from app.services.naming import check_labels

ROLES: Final = ("viewer", "operator", "approver", "author", "admin")

_GIVES: Final = {
    "viewer": frozenset({"viewer"}),
    "operator": frozenset({"viewer", "operator"}),
    "approver": frozenset({"viewer", "approver"}),
    "author": frozenset({"viewer", "operator", "author"}),
    "admin": frozenset(ROLES),
}
"""An operator runs, an approver decides what others ask for and does not run, an author stores."""

MOST_GRANTS: Final = 20
MOST_PACKS: Final = 200


@dataclass(frozen=True, slots=True)
class Grant:
    """A role; for these packs only, on nodes with all these labels only. None narrows nothing."""

    role: str
    packs: frozenset[str] | None = None
    labels: tuple[tuple[str, str], ...] | None = None

    def gives(self, role: str, pack: str | None = None) -> bool:
        """Whether it gives a role; in `pack`, if one is named."""
        return role in _GIVES[self.role] and (pack is None or self.packs is None or pack in self.packs)

    @property
    def is_scoped(self) -> bool:
        """Whether it is for some packs or nodes only."""
        return self.packs is not None or self.labels is not None

    def covers(self, labels: Mapping[str, str]) -> bool:
        """Whether a node with these labels is one of its nodes."""
        return all(labels.get(name) == value for name, value in self.labels or ())

    def to_json(self) -> dict[str, Any]:
        """As it is kept and shown; what narrows nothing is left out."""
        found: dict[str, Any] = {"role": self.role}
        if self.packs is not None:
            found["packs"] = sorted(self.packs)
        if self.labels is not None:
            found["labels"] = dict(self.labels)
        return found


Grants = tuple[Grant, ...]

EVERYWHERE: Final[Mapping[str, Grants]] = {role: (Grant(role),) for role in ROLES}
"""What a person with just a role has."""


def kept(role: str, grants: Any) -> Grants:
    """What the columns of a person's row say; nothing where they make no sense."""
    if grants is None:
        return EVERYWHERE.get(role, ())
    try:
        return tuple(_grant(one) for one in grants)
    except (InvalidInput, TypeError, AttributeError):
        return ()


def columns(role: str | None, grants: Sequence[Any] | None) -> dict[str, Any]:
    """The columns for a role, or for grants as JSON. Raises InvalidInput with pointers."""
    if (role is None) == (grants is None):
        raise _wrong("", "give either `role` or `grants`", code="bad-role")
    if role is not None:
        if role not in ROLES:
            raise _wrong("/role", f"role must be one of {', '.join(ROLES)}", code="bad-role")
        return {"role": role, "grants": None}
    asked = list(grants or ())
    if not 1 <= len(asked) <= MOST_GRANTS:
        raise _wrong("/grants", f"give 1 to {MOST_GRANTS} grants", code="bad-grant")
    found: list[Grant] = []
    for number, one in enumerate(asked):
        grant = _grant(one, f"/grants/{number}")
        if grant not in found:
            found.append(grant)
    # One who has a role everywhere needs no list: an administrator most of all, who is looked for by the role.
    for grant in found:
        if grant.role == "admin" or (len(found) == 1 and not grant.is_scoped):
            return {"role": grant.role, "grants": None}
    return {"role": "", "grants": [one.to_json() for one in found]}


def _grant(one: Any, at: str = "") -> Grant:
    if not isinstance(one, Mapping):
        raise _wrong(at, "a grant is an object with a role", code="bad-grant")
    for name in one:
        if name not in ("role", "packs", "labels"):
            raise _wrong(f"{at}/{str(name)[:80]}", "a grant has role, packs and labels", code="bad-grant")
    role = one.get("role")
    if role not in ROLES:
        raise _wrong(f"{at}/role", f"role must be one of {', '.join(ROLES)}", code="bad-role")
    packs, labels = _packs(one.get("packs"), at), _labels(one.get("labels"), at)
    if role == "admin" and (packs is not None or labels is not None):
        raise _wrong(at, "an administrator is one everywhere: leave out packs and labels", code="bad-grant")
    return Grant(str(role), packs, labels)


def _packs(packs: Any, at: str) -> frozenset[str] | None:
    if packs is None:
        return None
    if not isinstance(packs, list) or not 1 <= len(packs) <= MOST_PACKS:
        raise _wrong(f"{at}/packs", f"packs is a list of 1 to {MOST_PACKS} names", code="bad-grant")
    for number, pack in enumerate(packs):
        if not isinstance(pack, str) or not re.match(PACK_NAME, pack):
            raise _wrong(f"{at}/packs/{number}", "this is not the name of a pack", code="bad-grant")
    return frozenset(packs)


def _labels(labels: Any, at: str) -> tuple[tuple[str, str], ...] | None:
    if labels is None:
        return None
    if not isinstance(labels, Mapping) or not labels:
        raise _wrong(f"{at}/labels", "labels is an object of at least one label", code="bad-grant")
    try:
        check_labels(labels)
    except InvalidInput as problem:
        raise _wrong(f"{at}/labels", problem.message, code="bad-grant") from None
    return tuple(sorted(labels.items()))


def _wrong(pointer: str, detail: str, *, code: str) -> InvalidInput:
    return InvalidInput(detail, code=code, errors=[{"pointer": pointer, "detail": detail}])


# what grants amount to


def may(grants: Grants, role: str, pack: str | None = None) -> bool:
    """Whether some grant gives a role; in `pack`, if one is named, else anywhere at all."""
    return any(one.gives(role, pack) for one in grants)


def may_everywhere(grants: Grants, role: str) -> bool:
    """Whether a grant gives a role without any bounds."""
    return any(one.gives(role) and not one.is_scoped for one in grants)


def packs_of(grants: Grants, role: str) -> frozenset[str] | None:
    """The packs for which they give a role; None for all."""
    found: frozenset[str] = frozenset()
    for one in grants:
        if one.gives(role):
            if one.packs is None:
                return None
            found |= one.packs
    return found


def nodes_of(grants: Grants, role: str, pack: str | None = None) -> Grants | None:
    """The grants that say on which nodes they give a role (in `pack`); None for every node."""
    found = tuple(one for one in grants if one.gives(role, pack))
    return None if any(one.labels is None for one in found) else found


def may_run_on(grants: Grants, pack: str, labels: Mapping[str, str]) -> bool:
    """Whether an operator with these grants may have a job of this pack run on a node with these labels.

    A pack that no grant names is that of a workflow which one of theirs called: then each of their nodes will do.
    """
    wanted = pack if may(grants, "operator", pack) else None
    held = nodes_of(grants, "operator", wanted)
    return held is None or any(one.covers(labels) for one in held)
