"""Where `workspace`, `artifacts` and `merge` mean something."""

from __future__ import annotations

from typing import Final

from app.language.problems import shown
from app.language.reading import Reading
from app.language.source import Node

_KEYS: Final = ("workspace", "artifacts", "merge")
_ON_NODES: Final = frozenset({"core.shell", "core.script", "core.echo", "core.distributed_shell"})


def check(r: Reading, node: Node, kind: str, action: str, *, scripted: bool, is_child: bool) -> None:
    """Note what is said of files at a task that has none, or to no effect.

    `kind` and `action` are the task's; `scripted`: it is an action of a pack that runs a script.
    """
    runs_on_nodes = scripted or action in _ON_NODES or kind == "parallel"
    for key in _KEYS:
        found = node.value.get(key)
        if found is None or runs_on_nodes or not action or _is_none(found):
            continue
        what = (
            "a called workflow has files of its own"
            if kind == "workflow"
            else f"{shown(action)} runs on none"
        )
        hint = "remove it, or put it on a task that runs a script"
        r.error(
            found, "bad-combination", f"`{key}` is for tasks that run on a node: {what}", hint, mark=found.key
        )
    merge = node.value.get("merge")
    several = "with_items" in node.value or kind in ("parallel", "distributed_shell") or is_child
    if merge is not None and runs_on_nodes and not several:
        message = "`merge` has no effect on a task with one job"
        hint = "it is for fan-outs, loops and parallel blocks"
        r.error(merge, "no-effect", message, hint, mark=merge.key, level="warning")


def _is_none(node: Node) -> bool:
    return node.kind == "scalar" and node.text == "none"
