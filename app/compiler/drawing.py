"""A graph as text for other programs: Mermaid and DOT. Whatever a name, an action or a condition holds stays text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from app.compiler.graph import FAIL

Graph = Mapping[str, Any]
"""As `graph.shape` gives it; nodes with a `status` and edges with a `state` where it is of an execution."""

LONGEST_LABEL = 80
"""Characters of a condition that are drawn."""

_PLAIN = re.compile(r"[^A-Za-z0-9 _.,:=()-]")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
_COLOURS = {
    "succeeded": "#c8e6c9", "failed": "#ffcdd2", "timed_out": "#ffcdd2", "running": "#b3e5fc",
    "waiting": "#fff9c4", "skipped": "#e0e0e0", "cancelled": "#ffe0b2", "not_reached": "#f5f5f5",
    "pending": "#ffffff",
}  # fmt: skip
_ARROWS = {"open": "-->", "fired": "==>", "dead": "-.->"}
_STYLES = {"open": "solid", "fired": "bold", "dead": "dashed"}


def mermaid(graph: Graph) -> str:
    """The graph as a Mermaid flowchart: fired edges thick, dead ones dotted."""
    ids = _ids(graph)
    lines = ["flowchart TD"]
    for node in graph["nodes"]:
        if node["block"] is None:
            lines += _mermaid_node(graph, ids, node)
    if _leads_to_fail(graph):
        lines.append(f'  {ids[FAIL]}(("fail"))')
    for edge in graph["edges"]:
        arrow = _ARROWS[edge.get("state", "open")]
        label = _entities(_edge_label(edge))
        lines.append(f'  {ids[edge["from"]]} {arrow}|"{label}"| {ids[edge["to"]]}')
    return "\n".join((*lines, *_mermaid_classes(graph, ids))) + "\n"


def _mermaid_node(graph: Graph, ids: Mapping[str, str], node: Mapping[str, Any]) -> list[str]:
    label = "<br/>".join(_entities(part) for part in _label(node))
    if not node["children"]:
        return [f'  {ids[node["name"]]}["{label}"]']
    inside = [one for one in graph["nodes"] if one["block"] == node["name"]]
    children = [f"  {line}" for one in inside for line in _mermaid_node(graph, ids, one)]
    return [f'  subgraph {ids[node["name"]]}["{label}"]', *children, "  end"]


def _mermaid_classes(graph: Graph, ids: Mapping[str, str]) -> list[str]:
    members: dict[str, list[str]] = {}
    for node in graph["nodes"]:
        if node.get("status") in _COLOURS:
            members.setdefault(node["status"], []).append(ids[node["name"]])
    return [
        line
        for status, names in members.items()
        for line in (
            f"  classDef {status} fill:{_COLOURS[status]},color:#000000",
            f"  class {','.join(names)} {status}",
        )
    ]


def dot(graph: Graph) -> str:
    """The graph in Graphviz's language: a block is a cluster around its own node and its children."""
    ids = _ids(graph)
    lines = [
        f"digraph {_quoted([graph['workflow']])} {{",
        "  rankdir=TB;",
        '  node [shape=box, style="filled"];',
    ]
    for node in graph["nodes"]:
        if node["block"] is None:
            lines += _dot_node(graph, ids, node)
    if _leads_to_fail(graph):
        lines.append(f'  {ids[FAIL]} [label="fail", shape=doublecircle];')
    for edge in graph["edges"]:
        style, label = _STYLES[edge.get("state", "open")], _quoted([_edge_label(edge)])
        lines.append(f"  {ids[edge['from']]} -> {ids[edge['to']]} [label={label}, style={style}];")
    return "\n".join((*lines, "}")) + "\n"


def _dot_node(graph: Graph, ids: Mapping[str, str], node: Mapping[str, Any]) -> list[str]:
    own = ids[node["name"]]
    colour = _COLOURS.get(node.get("status", ""), "#ffffff")
    line = f'  {own} [label={_quoted(_label(node))}, fillcolor="{colour}"];'
    if not node["children"]:
        return [line]
    inside = [one for one in graph["nodes"] if one["block"] == node["name"]]
    children = [f"  {text}" for one in inside for text in _dot_node(graph, ids, one)]
    return [f"  subgraph cluster_{own} {{", f"  {line}", *children, "  }"]


def _ids(graph: Graph) -> dict[str, str]:
    """Names that no text can break: t0, t1, … in the order of the tasks."""
    return {node["name"]: f"t{at}" for at, node in enumerate(graph["nodes"])} | {FAIL: "end_fail"}


def _leads_to_fail(graph: Graph) -> bool:
    return any(edge["to"] == FAIL for edge in graph["edges"])


def _label(node: Mapping[str, Any]) -> Sequence[str]:
    """The lines inside a box: name, what it is, how it went."""
    about = node["action"] or node["kind"]
    role = "finally" if node["finally"] else f"join {node['join']}" if node["join"] else ""
    return [
        node["name"],
        f"{about}, {role}" if role else about,
        *([_went(node)] if node.get("status") else []),
    ]


def _went(node: Mapping[str, Any]) -> str:
    reason = f" ({node['wait_reason']})" if node.get("wait_reason") else ""
    seconds = node.get("duration")
    return f"{node['status']}{reason}" + ("" if seconds is None else f" {seconds:.2f}s")


def _edge_label(edge: Mapping[str, Any]) -> str:
    text = " or ".join(edge["when"]) or str(edge["on"])
    return text if len(text) <= LONGEST_LABEL else f"{text[: LONGEST_LABEL - 1]}…"


def _entities(text: str) -> str:
    """Text for Mermaid's quotes: all but plain characters as numbered entities."""
    return _PLAIN.sub(lambda found: f"#{ord(found.group())};", _CONTROL.sub(" ", text))


def _quoted(parts: Sequence[str]) -> str:
    r"""Lines as one string of DOT. An `&` would begin an entity, a `\` an escape."""
    whole = (_CONTROL.sub(" ", part).replace("&", "&amp;") for part in parts)
    return '"' + "\\n".join(part.replace("\\", "\\\\").replace('"', '\\"') for part in whole) + '"'
