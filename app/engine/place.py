"""Where a job runs: a node by name, by address or by labels, that has what the job needs (semantics, Placement)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from app.compiler.plan import IO, LOCAL, PlanTask
from app.engine.context import error
from app.engine.draft import Draft
from app.engine.state import Node

_ON_CONTROL = Node(IO, shells=())


def find_place(
    draft: Draft, task: PlanTask, place: Any, given: Mapping[str, Any]
) -> tuple[Node | None, Mapping[str, Any] | None]:
    """The node for a job with this input, or the error that says why there is none. A call needs no node."""
    if task.is_call:
        return _ON_CONTROL, None
    node, problem = _locate(draft, place)
    if task.scripted:
        shell = draft.plan.actions[task.action]["runner"]
    elif task.action in ("core.shell", "core.script"):
        shell = given.get("shell", "sh")
    else:
        return node, problem
    if node is None or not node.shells:
        return node, problem
    if shell in node.shells or (not task.scripted and isinstance(given.get("command"), list)):
        return node, None
    has = ", ".join(node.shells)
    return None, error("no_shell", f"node {node.name} has no {shell}; it advertises {has}")


def _locate(draft: Draft, place: Any) -> tuple[Node | None, Mapping[str, Any] | None]:
    """The node that `delegate_to` means, or the error that says why there is none."""
    if isinstance(place, Mapping):
        if "labels" in place:
            wanted = dict(place["labels"])
            for node in matching(draft, wanted):
                return node, None
            return None, error("no_nodes", f"no active node has the labels {wanted}")
        if "address" in place:
            return _only(addressed(draft.nodes(), str(place["address"])), str(place["address"]))
        place = place.get("node")
    found = draft.node(place) if isinstance(place, str) else None
    if found is None or found.state == "removed":
        return None, error("unknown_node", f"no node named {str(place)[:80]!r} is enrolled")
    return found, None


def _only(found: list[Node], address: str) -> tuple[Node | None, Mapping[str, Any] | None]:
    """An address is a node's own word, so two may say the same; which of them is meant is nobody's guess."""
    shown = repr(address[:255])
    if not found:
        return None, error(
            "unknown_node",
            f"no enrolled node has the address {shown}; `muster node list` shows who has which",
        )
    if len(found) > 1:
        names = ", ".join(node.name for node in found[:5])
        return None, error("ambiguous_node", f"more than one node has the address {shown}: {names}")
    return found[0], None


def addressed(nodes: Iterable[Node], address: str) -> list[Node]:
    """Those of these nodes that advertise this HOST:PORT. Names of machines know no case."""
    return [node for node in nodes if node.state != "removed" and node.address == address.lower()]


def matching(draft: Draft, labels: Mapping[str, Any]) -> list[Node]:
    """Active nodes that carry all these labels, by name; `local` is never matched."""
    return carrying(draft.nodes(), labels)


def carrying(nodes: Iterable[Node], labels: Mapping[str, Any]) -> list[Node]:
    """Those of these nodes that are active and carry all these labels; `local` is never matched."""
    return [
        node
        for node in nodes
        if node.name != LOCAL
        and node.state == "active"
        and all(node.labels.get(key) == str(value) for key, value in labels.items())
    ]
