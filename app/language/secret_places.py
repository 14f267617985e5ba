"""Where secrets may stand in a task: each is put in at the last moment, where no list of processes shows it."""

from __future__ import annotations

from typing import Final

from app.language.graph import Draft
from app.language.source import Node

_PROCESS: Final = frozenset({"env", "stdin"})
_SCRIPT: Final = _PROCESS | {"parameters"}
_HOLDERS: Final[dict[str, frozenset[str]]] = {
    "core.shell": _PROCESS,
    "core.script": _SCRIPT,
    "core.distributed_shell": _SCRIPT,
    "core.http": frozenset({"headers", "body", "json"}),
}
"""Core action -> the keys of its input that secrets may be in. Shell text may too, as it is bound and not pasted."""

_MAPS: Final = frozenset({"env", "headers"})
_TEXTS: Final = frozenset({"command", "script"})
_VALUES: Final = "parameters"
_IN_ENV: Final = (
    "give it in `env` or `stdin`, or write it in the text of a `script`: `{{ … }}` there is bound"
)
_NOWHERE: Final = (
    "secrets may stand in `env`, `stdin` and shell text, in `headers`, `body` and `json` of core.http, and be given "
    "on as a secret parameter of a workflow"
)


def may_hold(action: str, key: str) -> bool:
    """Whether secrets may be in this key of the input of an action. Of workflows and packs: in every key."""
    return key in _HOLDERS.get(action, ()) if action.startswith("core.") else True


def problem(draft: Draft | None, node: Node, *, whole: bool, bound: bool) -> tuple[str, str] | None:
    """Why a text with a secret may not stand at `node`, and the way out; None if it may.

    `whole`: the text is nothing but the secret; `bound`: it is shell text whose values go into the environment.
    """
    path = _path(draft, node)
    if draft is None or len(path) < 2 or path[0] != "input":
        place = f"in `{path[0]}`" if path and isinstance(path[0], str) else "here"
        return f"a secret cannot stand {place}", _NOWHERE
    key, action = str(path[1]), draft.task.action
    if draft.task.type == "workflow":
        if len(path) == 2 and whole:
            return None
        return (
            "a secret is given on to a workflow whole, as the value of one parameter",
            'write `name: "{{ … }}"` under `input`; that parameter must have `type: secret`',
        )
    if key in _TEXTS and action in _HOLDERS:
        if bound:
            return None
        return "a secret cannot be a word of a command: every user of the node could read it", _IN_ENV
    if key == _VALUES and may_hold(action, key):
        if len(path) == 3 and whole:
            return None
        return (
            "a secret is given to a saved script whole, as the value of one parameter",
            'write `name: "{{ … }}"` under `parameters`; that parameter must have `type: secret`',
        )
    if may_hold(action, key):
        if key not in _MAPS or len(path) > 2:
            return None
        return f"`{key}` as a whole cannot be a secret", f"give its values one by one under `{key}:`"
    return _elsewhere(action, key)


def _elsewhere(action: str, key: str) -> tuple[str, str]:
    if action == "core.celery":
        hint = "let the foreign task fetch it; what Celery sends lies readable in a broker"
    elif action == "core.http":
        hint = "send it in `headers`, `body` or `json`: addresses end up in logs on the way"
    elif action == "core.echo":
        hint = "what is echoed becomes a result, which anybody may read"
    else:
        hint = _NOWHERE
    return f"a secret cannot stand in `{key}` of {action or 'this task'}", hint


def _path(draft: Draft | None, node: Node) -> list[str | int]:
    """The steps from the task, or from the root, to the node."""
    steps: list[str | int] = []
    at: Node | None = node
    while at is not None and at.parent is not None and (draft is None or at is not draft.node):
        steps.append(at.step)
        at = at.parent
    return steps[::-1]
