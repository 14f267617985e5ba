"""A graph drawn for a terminal: tasks in the order of their layers, edges as lanes on their left that lead down."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from app.cli.plain import safe, seconds

MOST_LANES = 24
"""With more edges side by side than this, lanes would be harder to follow than the names beside them."""

_LONGEST_CONDITION = 40
_MARKS = {
    "running": "◐", "waiting": "◔", "succeeded": "●", "failed": "✖", "timed_out": "✖",
    "skipped": "◌", "cancelled": "■", "not_reached": "·",
}  # fmt: skip
_UP, _DOWN, _LEFT, _RIGHT = 1, 2, 4, 8
_JOINTS = {
    0: " ", _UP: "╵", _DOWN: "╷", _UP | _DOWN: "│", _LEFT | _RIGHT: "─",
    _UP | _LEFT: "╯", _UP | _RIGHT: "╰", _DOWN | _LEFT: "╮", _DOWN | _RIGHT: "╭",
    _UP | _DOWN | _LEFT: "┤", _UP | _DOWN | _RIGHT: "├",
    _UP | _LEFT | _RIGHT: "┴", _DOWN | _LEFT | _RIGHT: "┬", _UP | _DOWN | _LEFT | _RIGHT: "┼",
}  # fmt: skip

Graph = Mapping[str, Any]
Paint = Callable[[str, str], str]
"""(text, status) -> the text in the colour of the status, or as it is."""


def draw(graph: Graph, paint: Paint) -> list[str]:
    """The lines. Texts of the graph are made safe here; what is missing in it is left out."""
    nodes = [node for node in graph.get("nodes") or () if isinstance(node, dict) and node.get("name")]
    edges = [edge for edge in graph.get("edges") or () if isinstance(edge, dict) and edge.get("from")]
    rows = _rows(nodes, edges, paint)
    width = max((len(row.lanes) for row in rows), default=0)
    if width > 2 * MOST_LANES:
        return [f"{row.mark or ' '}  {row.text}" for row in rows]
    return [f"{row.lanes.ljust(width)}  {row.text}".rstrip() for row in rows]


class _Row(NamedTuple):
    """`mark` is what stands there alone where lanes would be too many."""

    lanes: str
    mark: str
    text: str


def _rows(nodes: Sequence[Graph], edges: Sequence[Graph], paint: Paint) -> list[_Row]:
    top = [node for node in nodes if not node.get("block")]
    top.sort(key=lambda node: (bool(node.get("finally")), node.get("layer") or 0))
    names = {node["name"] for node in top}
    longest = max((len(node["name"]) for node in nodes), default=0)
    out: dict[str, list[Graph]] = {}
    for edge in edges:
        out.setdefault(edge["from"], []).append(edge)
    lanes = _Lanes()
    rows: list[_Row] = []
    for node in top:
        leaving = out.get(node["name"], [])
        mark = _mark(node)
        rows.append(_Row(lanes.arrive(node["name"], mark), mark, _about(node, longest, paint)))
        beside = lanes.passing(bool(leaving))
        children = [one for one in nodes if one.get("block") == node["name"]]
        rows += [_Row(beside, "", f"  {_mark(one)} {_about(one, longest, paint)}") for one in children]
        targets = list(dict.fromkeys(edge["to"] for edge in leaving if edge.get("to") in names))
        line = lanes.leave(targets)
        if leaving:
            rows.append(_Row(line, "", f"  {_edges(leaving)}"))
    return rows


class _Lanes:
    """Which task each column leads to. Edges to one task share a column."""

    def __init__(self) -> None:
        self.to: list[str | None] = []
        self.at = 0

    def arrive(self, name: str, mark: str) -> str:
        """The line of a task: its lane ends here, or it gets a free column."""
        self.at = self.to.index(name) if name in self.to else self._free()
        self.to[self.at] = None
        return self._line(lambda column: mark if column == self.at else self._bar(column))

    def passing(self, goes_on: bool) -> str:
        """A line between a task and its edges."""
        return self._line(lambda column: "│" if column == self.at and goes_on else self._bar(column))

    def leave(self, targets: Sequence[str]) -> str:
        """The line on which the edges of the last task part, or join lanes that are there."""
        before = [column == self.at or to is not None for column, to in enumerate(self.to)]
        columns = []
        for target in targets:
            if target not in self.to:
                self.to[self._free() if self.to[self.at] is not None else self.at] = target
            columns.append(self.to.index(target))
        before += [False] * (len(self.to) - len(before))
        low, high = min([self.at, *columns]), max([self.at, *columns])
        before[self.at] = bool(columns)

        def joint(column: int) -> str:
            up, down = before[column], self.to[column] is not None
            return _JOINTS[
                _UP * up + _DOWN * down + _LEFT * (low < column <= high) + _RIGHT * (low <= column < high)
            ]

        line = self._line(joint, (low, high))
        while self.to and self.to[-1] is None:
            self.to.pop()
        return line

    def _free(self) -> int:
        if None not in self.to:
            self.to.append(None)
        return self.to.index(None)

    def _bar(self, column: int) -> str:
        return " " if self.to[column] is None else "│"

    def _line(self, cell: Callable[[int], str], across: tuple[int, int] = (0, 0)) -> str:
        return "".join(
            cell(column) + ("─" if across[0] <= column < across[1] else " ") for column in range(len(self.to))
        ).rstrip()


def _mark(node: Graph) -> str:
    return _MARKS.get(str(node.get("status")), "○")


def _about(node: Graph, longest: int, paint: Paint) -> str:
    """Name, action, and how it went."""
    status = str(node.get("status") or "")
    reason = f" ({node['wait_reason']})" if node.get("wait_reason") else ""
    words = [
        safe(str(node.get("action") or node.get("kind") or "")),
        *(["finally"] if node.get("finally") else []),
        *([f"join {safe(str(node['join']))}"] if node.get("join") else []),
        *([paint(safe(f"{status}{reason}"), status)] if status else []),
        *([seconds(node["duration"])] if node.get("duration") is not None else []),
        *_units(node),
        *([f"{node['attempts']} attempts"] if _tried_again(node) else []),
    ]
    return f"{safe(node['name']).ljust(longest)}  {'  '.join(words)}"


def _units(node: Graph) -> list[str]:
    units = node.get("units") or {}
    total = units.get("total") or 0
    return [f"{units.get('over')}/{total}"] if total > 1 else []


def _tried_again(node: Graph) -> bool:
    return bool(node.get("retry_count"))


def _edges(leaving: Sequence[Graph]) -> str:
    """Where it goes on from a task; edges of one kind that stand alike are told together."""
    alike: dict[tuple[str, str], list[str]] = {}
    for edge in leaving:
        when = safe(" or ".join(str(one) for one in edge.get("when") or ()))
        if len(when) > _LONGEST_CONDITION:
            when = f"{when[: _LONGEST_CONDITION - 1]}…"
        state = f" ({safe(str(edge['state']))})" if edge.get("state") else ""
        label = f"{safe(str(edge.get('on')))}{f' {when}' if when else ''}"
        alike.setdefault((label, state), []).append(safe(str(edge.get("to"))))
    return "; ".join(f"{label} → {', '.join(to)}{state}" for (label, state), to in alike.items())
