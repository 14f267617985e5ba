"""What of a task needs the server: people, kept values, other machines. Where a part of a workflow runs by itself, in
one process on whatever machine, this is refused before anything runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from app.language import expressions, handles, shelltext
from app.language.model import Task
from app.language.source import Node

LOCAL: Final = "local"

Chain = tuple[str, ...]

_ACTIONS: Final = {
    "core.approval": ("part-approval", "asks people for an approval"),
    "core.inquiry": ("part-inquiry", "asks people"),
    "core.distributed_shell": ("part-fan-out", "runs on the nodes of a fleet"),
    "core.http": ("part-http", "calls a server from the control side"),
    "core.celery": ("part-celery", "calls another Celery app from the control side"),
}
"""Action -> the code of what refuses it, and what it does that cannot be done without a server."""

_WAY_OUT: Final = "end the part before it, or execute the workflow on a server"
_TEXT_KEYS: Final = ("command", "script")


@dataclass(frozen=True, slots=True)
class Need:
    """One thing that is not to be had, and the node that asks for it. `message` and `hint` are for people."""

    code: str
    message: str
    hint: str
    node: Node


def needs(
    task: Task, node: Node, around: Sequence[Node], secret: Mapping[Chain, str] | None = None
) -> Iterator[Need]:
    """What a task needs of the server, its children not counted.

    `node` is the task as written, `around` what it stands in from the inside out: its block if it has one, then the
    workflow. `secret` are the chains that are secret beside `kv.get_secret` (see `handles.secret_chains`).
    """
    if task.action in _ACTIONS:
        code, what = _ACTIONS[task.action]
        yield Need(code, f"`{task.name}` {what}", _WAY_OUT, node.value.get("action", node))
    if task.type == "workflow":
        message = f"`{task.name}` calls the workflow {task.action}, which the server keeps"
        hint = f"name the folder of its pack (--packs DIR) if it is an action; else {_WAY_OUT}"
        yield Need("part-workflow", message, hint, node.value.get("action", node))
    if "script_ref" in task.input:
        message = f"`{task.name}` runs a saved script, which the server keeps"
        yield Need("part-script", message, "write the script out, or put it into a pack", node)
    yield from _elsewhere(task, node, around)
    yield from _files(task, node, around)
    for key, child in node.value.items():
        if key != "tasks":
            yield from values_needed(child, secret or {}, shell=str(task.input.get("shell", "sh")))


def _elsewhere(task: Task, node: Node, around: Sequence[Node]) -> Iterator[Need]:
    """A block runs nowhere itself: its children say it where they have it from."""
    said = next((one.value["delegate_to"] for one in (node, *around) if "delegate_to" in one.value), None)
    if said is None or task.type == "parallel":
        return
    place = said.value.get("node", said) if said.kind == "map" else said
    if place.kind != "scalar" or place.value != LOCAL:
        hint = f"take `delegate_to` away, or write `delegate_to: {LOCAL}`"
        yield Need("part-delegate", f"`{task.name}` is to run on another node", hint, said)


def _files(task: Task, node: Node, around: Sequence[Node]) -> Iterator[Need]:
    said = next((one.value["workspace"] for one in (node, *around) if "workspace" in one.value), None)
    if said is not None and task.type != "parallel" and _mode(said) != "none":
        hint = "write `workspace: none` on the task; it runs in a directory of its own"
        yield Need("part-workspace", f"`{task.name}` works in the workspace of an execution", hint, said)
    if "artifacts" in node.value:
        message = f"`{task.name}` keeps artifacts, which the server stores"
        yield Need("part-workspace", message, _WAY_OUT, node.value["artifacts"])


def _mode(workspace: Node) -> Any:
    said = workspace.value.get("mode") if workspace.kind == "map" else workspace
    return None if said is None else said.value


def values_needed(node: Node, secret: Mapping[Chain, str], *, shell: str = "") -> Iterator[Need]:
    """What the templates of a value need: kept values, secrets, the configuration of a pack.

    `shell` is the shell of texts that are run by one, "" where none is.
    """
    if node.kind == "scalar":
        yield from _of_text(node, secret, shell if node.step in _TEXT_KEYS else "")
    elif node.kind in ("map", "list"):
        for child in node.value.values() if node.kind == "map" else node.value:
            yield from values_needed(child, secret, shell=shell)


def _of_text(node: Node, secret: Mapping[Chain, str], shell: str) -> Iterator[Need]:
    if not expressions.has_template(node.text):
        return
    for source in _sources(node.text, shell):
        named = handles.named(source, secret)[0]
        if named:
            message = f"a secret is read here: {', '.join(named)}"
            yield Need("part-secret", message, "secrets stay on the server", node)
        for chain in sorted(expressions.references(source)):
            if chain[:2] == ("kv", "get"):
                message = f"the value kept under `{chain[2]}` is read here"
                hint = "read it in `vars` or in a task before, and use that"
                yield Need("part-kv", message, hint, node)
            elif chain[0] == "pack" and not named:
                message = f"`{'.'.join(chain)}` is read here, and the server keeps the configuration of packs"
                hint = "read it in `vars` or in a task before, and use that"
                yield Need("part-config", message, hint, node)


def _sources(text: str, shell: str) -> list[str]:
    """The templates of a text, for a shell each by itself."""
    if not shell:
        return [text]
    try:
        bound = shelltext.bind(text, shell)
    except shelltext.BindError:
        return []
    return [text] if bound.whole else [expression for _, expression in bound.bindings]
