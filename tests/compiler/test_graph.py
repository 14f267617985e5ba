"""Golden graphs: the shape of each workflow, and its drawings in Mermaid, DOT and for a terminal."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.cli import lanes
from app.compiler.build import build
from app.compiler.drawing import dot, mermaid
from app.compiler.graph import shape
from app.language.parse import load_or_raise

CASES = Path(__file__).parents[1] / "cases" / "graph"
WORKFLOWS = yaml.safe_load((CASES / "workflows.yaml").read_text())
GOLDEN = CASES / "golden.json"

HOSTILE = [
    '"]; t0',
    "a\nb",
    "a\\",
    '\\"',
    "</script>",
    "&quot;",
    "#34;",
    "end",
    "\x1b[2J",
    "\u202e",
    "|x|",
    "]]",
    "`",
]


def drawn(graph: dict[str, Any]) -> dict[str, Any]:
    terminal = lanes.draw(graph, lambda text, _: text)
    return {
        "shape": graph,
        "mermaid": mermaid(graph).splitlines(),
        "dot": dot(graph).splitlines(),
        "terminal": terminal,
    }


def golden() -> dict[str, Any]:
    if os.environ.get("MUSTER_TEST_UPDATE"):
        found = {name: drawn(shape(build(load_or_raise(text)))) for name, text in WORKFLOWS.items()}
        GOLDEN.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    return json.loads(GOLDEN.read_text())  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_golden(name: str) -> None:
    assert json.loads(json.dumps(drawn(shape(build(load_or_raise(WORKFLOWS[name])))))) == golden()[name]


MERMAID_LINE = re.compile(
    r'flowchart TD|  t\d+\["[^"\[\]<>\\`|]*<br/>[^"\[\]<>\\`|]*"\]|  t\d+ -->\|"[^"\[\]<>\\`|]*"\| t\d+'
)
DOT_STRING = re.compile(r'"(?:[^"\\\n]|\\["\\n])*"')


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_breaks_out(text: str) -> None:
    """Wherever a text stands, each line keeps its form; and no control character is left."""
    node = {
        "kind": "engine",
        "layer": 0,
        "starts": True,
        "join": "",
        "block": None,
        "children": [],
        "finally": False,
    }
    graph = {
        "workflow": text,
        "nodes": [{**node, "name": text, "action": text}, {**node, "name": "plain", "action": "core.noop"}],
        "edges": [{"from": text, "to": "plain", "on": "decision", "when": [text]}],
    }
    lines = mermaid(graph).splitlines()
    assert len(lines) == 4
    assert all(MERMAID_LINE.fullmatch(line) for line in lines), lines
    plain = [DOT_STRING.sub('""', line) for line in dot(graph).splitlines()]
    assert plain == [
        'digraph "" {',
        "  rankdir=TB;",
        '  node [shape=box, style=""];',
        '  t0 [label="", fillcolor=""];',
        '  t1 [label="", fillcolor=""];',
        '  t0 -> t1 [label="", style=solid];',
        "}",
    ]
    whole = "".join((mermaid(graph), dot(graph), *lanes.draw(graph, lambda text, _: text)))
    assert not set(whole) & {"\x1b", "\u202e"}
