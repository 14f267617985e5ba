"""Canvas data → what is sent: one `node.order` for each line, with the rest of its canvas and that rest's digest.

The digest goes to the job's row. When the canvas comes back from the node, control puts it on again only if it is,
link for link, the one that was sent out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.transport.gate import canvas_digest

Signature = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Member:
    """One line: its first order, the links behind it in order, and the chord that it counts for.

    `size` is how many members the chord has.
    """

    order: Signature
    rest: tuple[Signature, ...]
    body: Signature | None = None
    group_id: str | None = None
    size: int = 0

    @property
    def job(self) -> str:
        return str(self.order["options"]["task_id"])

    @property
    def digest(self) -> str:
        """Over what follows the first `collect`."""
        return rest_digest(self.rest[1:], self.body, self.group_id)


def rest_digest(rest: Sequence[Signature], body: Signature | None, group_id: str | None) -> str:
    """The digest of what a `collect` carries: the links behind it, next one first, and its chord."""
    return canvas_digest(list(reversed(rest)), body, group_id)


def members(canvas: Signature) -> Iterator[Member]:
    """The lines of a chain, group or chord."""
    kind = canvas["subtask_type"]
    if kind == "chain":
        links = canvas["kwargs"]["tasks"]
        yield Member(links[0], tuple(links[1:]))
    elif kind == "group":
        for line in canvas["kwargs"]["tasks"]:
            yield from members(line)
    else:
        header, body = canvas["kwargs"]["header"], canvas["kwargs"]["body"]
        lines = header["kwargs"]["tasks"]
        for line in lines:
            links = line["kwargs"]["tasks"]
            yield Member(links[0], tuple(links[1:]), body, header["options"]["task_id"], len(lines))
