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
            for node in draft.nodes():
                if node.address == place["address"]:
                    return node, None
            return None, error("unknown_node", f"no enrolled node has the address {place['address']!r}")
        place = place.get("node")
    found = draft.node(place) if isinstance(place, str) else None
    if found is None or found.state == "removed":
        return None, error("unknown_node", f"no node named {str(place)[:80]!r} is enrolled")
    return found, None


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
