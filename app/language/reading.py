"""The state of reading one text, and how messages name what they talk about."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from app.language.known import NOTHING, Known
from app.language.limits import DEFAULT, TextLimits
from app.language.model import Mark
from app.language.problems import Collector, Severity, shown
from app.language.source import Node

BAD: Final = object()
"""What a kind gives when the node holds no usable value; the problem was noted."""


@dataclass(slots=True)
class Use:
    """A text with a template and where it is evaluated, to be checked when the graph is known.

    `after` is true where the task's own result is there (publish, decision, retry.on_error); `item` where a
    loop's `item` and `index` are. `shell` names the shell of a shell text, "" for any other template.
    """

    node: Node
    after: bool = False
    item: bool = False
    shell: str = ""


@dataclass(slots=True)
class Reading:
    """The state of reading one text: problems found, templates met, what place is being read, and what is known of
    what stands outside of the text."""

    collector: Collector
    runnable: bool = True
    known: Known = NOTHING
    limits: TextLimits = DEFAULT
    uses: list[Use] = field(default_factory=list)
    after: bool = False
    item: bool = False

    def error(
        self,
        node: Node,
        code: str,
        message: str,
        hint: str = "",
        *,
        mark: Mark | None = None,
        level: Severity = "error",
    ) -> Any:
        """Note a problem at `node` (or at `mark`); gives BAD, to be returned."""
        if node.kind != "broken":
            self.collector.add(code, message, mark or node.mark, path=node.pointer, hint=hint, severity=level)
        return BAD

    def wrong(self, node: Node, wanted: str, hint: str = "") -> Any:
        """Note that the value at `node` is not `wanted` ("a list of names"); gives BAD."""
        if node.kind == "scalar" and node.value is None:
            message = f"{label(node)} is empty, it must be {wanted}"
            return self.error(node, "wrong-type", message, hint or "give it a value or remove the key")
        return self.error(node, "wrong-type", f"{label(node)} must be {wanted}, not {described(node)}", hint)

    def template(self, node: Node, shell: str = "") -> None:
        """Remember a text with a template for the later checks."""
        self.uses.append(Use(node, self.after, self.item, shell))


def label(node: Node) -> str:
    """What a message calls the node: its key, or `key` item n."""
    if isinstance(node.step, int):
        owner = node.parent
        return f"item {node.step + 1} of {label(owner)}" if owner is not None else f"item {node.step + 1}"
    return f"`{node.step}`" if node.step else "this"


def described(node: Node) -> str:
    if node.kind != "scalar":
        what = "mapping" if node.kind == "map" else "list"
        return f"a {what}" if node.value else f"an empty {what}"
    if isinstance(node.value, bool):
        return node.text
    return f"{'the text' if isinstance(node.value, str) else 'the number'} {shown(node.text)}"
