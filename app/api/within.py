"""What a route is about, for people whose role holds for some packs or nodes only: the gate asks before the view.

What is out of their sight is answered as what is not there, in the same words; what they see and may not touch, as
not allowed. Views that list narrow their queries down themselves (`services.scope`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from app.errors import MusterError, NotAllowed
from app.language.pack_tables import CORE
from app.services import (
    adhoc,
    approvals,
    fleet,
    pack_queries,
    packs,
    queries,
    runnable,
    scope,
    script_results,
    scripted,
)
from app.services.people import Person

Check = Callable[[Connection, Person, str, Mapping[str, Any]], None]
"""Is given the role that the route needs, and the parts of its path."""


@dataclass(frozen=True, slots=True)
class Reach:
    """`name` is documented with the route; `check` raises where the person's bounds do not go so far.

    `admits` says who may though they have not the role that the route needs.
    """

    name: str
    check: Check
    admits: Callable[[Connection, Person, Mapping[str, Any]], bool] | None = None


def _held(person: Person, what: str) -> NotAllowed:
    return NotAllowed(
        f"{person.login} is {person.described}, and {what} is not in it",
        hint="ask an administrator: `muster user show` tells what each may",
        code="out-of-scope",
    )


def _everything(_: Connection, person: Person, role: str, __: Mapping[str, Any]) -> None:
    if not person.may_everywhere(role):
        raise NotAllowed(
            f"this needs the role {role} without bounds, and {person.login} is {person.described}",
            hint="ask somebody who has it everywhere",
            code="out-of-scope",
        )


def _anything(_: Connection, __: Person, ___: str, ____: Mapping[str, Any]) -> None:
    return


def _in_pack(person: Person, role: str, pack: str, unknown: MusterError) -> None:
    if not person.may("viewer", pack):
        raise unknown
    if not person.may(role, pack):
        raise _held(person, f"{role} for the pack {pack}")


def _workflow(_: Connection, person: Person, role: str, parts: Mapping[str, Any]) -> None:
    ref = parts["ref"]
    _in_pack(person, role, scope.pack_of(ref), runnable.unknown(ref, None))


def _action(_: Connection, person: Person, role: str, parts: Mapping[str, Any]) -> None:
    ref = parts["ref"]
    if scope.pack_of(ref) != CORE:
        _in_pack(person, role, scope.pack_of(ref), pack_queries.unknown_action(ref))


def _pack(_: Connection, person: Person, role: str, parts: Mapping[str, Any]) -> None:
    if parts["pack"] != CORE:
        _in_pack(person, role, parts["pack"], packs.no_pack(parts["pack"]))


def _into_pack(_: Connection, person: Person, role: str, parts: Mapping[str, Any]) -> None:
    if not person.may(role, parts["pack"]):
        raise _held(person, f"{role} for the pack {parts['pack']}")


def _execution(connection: Connection, person: Person, role: str, parts: Mapping[str, Any]) -> None:
    id_ = parts["id"]
    if not scope.execution(connection, id_, scope.executions_of(person)):
        raise queries.unknown(id_)
    if not scope.execution(connection, id_, scope.executions_of(person, role)):
        raise _held(person, f"{role} for execution {id_}")


def _script_execution(connection: Connection, person: Person, role: str, parts: Mapping[str, Any]) -> None:
    id_ = parts["id"]
    if not scope.execution(connection, id_, scope.executions_of(person)):
        raise script_results.unknown(id_)
    _execution(connection, person, role, parts)


def _of(pack: str) -> Check:
    def check(_: Connection, person: Person, role: str, __: Mapping[str, Any]) -> None:
        if not person.may(role, pack):
            raise _held(person, f"{role} for the pack {pack}")

    return check


def _approval(connection: Connection, person: Person, _: str, parts: Mapping[str, Any]) -> None:
    if not scope.approval(connection, parts["id"], scope.approvals_of(person)):
        raise approvals.unknown(parts["id"])


def _decision(connection: Connection, person: Person, role: str, parts: Mapping[str, Any]) -> None:
    _approval(connection, person, role, parts)
    if scope.is_named(connection, parts["id"], person.login):
        return
    pack = scope.pack_of_approval(connection, parts["id"])
    if not any(person.may(one, pack) for one in (role, "approver")):
        raise _held(person, f"{role} for the pack {pack}")


def _named(connection: Connection, person: Person, parts: Mapping[str, Any]) -> bool:
    return scope.is_named(connection, parts["id"], person.login)


def _answers(connection: Connection, person: Person, parts: Mapping[str, Any]) -> bool:
    return person.may("approver") or _named(connection, person, parts)


def _node(connection: Connection, person: Person, role: str, parts: Mapping[str, Any]) -> None:
    _on_node(connection, person, role, parts["name"], None)


def _on_node(connection: Connection, person: Person, role: str, name: str, pack: str | None) -> None:
    if not scope.node(connection, name, scope.nodes_of(person)):
        raise fleet.unknown(name)
    if not scope.node(connection, name, scope.nodes_of(person, role, pack)):
        raise _held(person, f"{role} on node {name}")


def _command(connection: Connection, person: Person, role: str, parts: Mapping[str, Any]) -> None:
    pack = scope.pack_of(adhoc.REF)
    if not person.may(role, pack):
        raise _held(person, f"{role} for commands (the pack {pack})")
    _on_node(connection, person, role, parts["name"], pack)


def _result(connection: Connection, person: Person, role: str, parts: Mapping[str, Any]) -> None:
    name, id_ = parts["name"], parts["id"]
    on_node = scope.node(connection, name, scope.nodes_of(person, role))
    if not on_node or not scope.execution(connection, id_, scope.executions_of(person, role)):
        raise adhoc.unknown(id_, name)


EVERYTHING = Reach("everything", _everything)
"""Only for people whose role has no bounds: it is about all packs or nodes, or about neither of them."""
ANYTHING = Reach("anything", _anything)
"""For everybody: nothing in it belongs to a pack or node, or the view itself keeps to the person's bounds."""
WORKFLOW = Reach("workflow", _workflow)
ACTION = Reach("action", _action)
PACK = Reach("pack", _pack)
INTO_PACK = Reach("into-pack", _into_pack)
"""The pack is made where there is none, so nobody is told that."""
EXECUTION = Reach("execution", _execution)
SCRIPTS = Reach("scripts", _of(scripted.PACK))
"""Saved scripts: all of them, or none."""
COMMANDS = Reach("commands", _of(scope.pack_of(adhoc.REF)))
SCRIPT_EXECUTION = Reach("execution", _script_execution)
APPROVAL = Reach("approval", _approval)
DECISION = Reach("decision", _decision, _named)
ANSWER = Reach("decision", _decision, _answers)
NODE = Reach("node", _node)
COMMAND = Reach("command", _command)
RESULT = Reach("result", _result)
