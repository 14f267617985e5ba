"""The text of an allowlist to a policy, with problems at their lines: pure, as the reading of workflows is."""

from __future__ import annotations

from dataclasses import dataclass

from app.allow.policy import Policy
from app.allow.reading import Path, read
from app.language.problems import Problem, TooManyProblems
from app.language.source import Node
from app.language.source import read as read_source


@dataclass(frozen=True, slots=True)
class Loaded:
    """`policy` is None where there is a problem."""

    policy: Policy | None
    problems: tuple[Problem, ...]


def load(text: str | bytes, file: str) -> Loaded:
    """Read an allowlist in YAML. Never raises for any text."""
    root, collector = read_source(text, file)
    if root is None or collector.failed:
        return Loaded(None, collector.sorted())
    places = dict(_places(root))

    def report(path: Path, code: str, message: str, hint: str) -> None:
        node = places[path]
        mark = (node.key or node.mark) if code == "unknown-key" else node.mark
        collector.add(code, message, mark, path=node.pointer, hint=hint)

    try:
        policy = read(root.data(), report)
    except TooManyProblems:
        return Loaded(None, collector.sorted())
    return Loaded(None if collector.failed else policy, collector.sorted())


def _places(root: Node) -> list[tuple[Path, Node]]:
    """Every node by its keys and positions from the top."""
    found: list[tuple[Path, Node]] = []
    open_: list[tuple[Path, Node]] = [((), root)]
    while open_:
        path, node = open_.pop()
        found.append((path, node))
        if node.kind == "map":
            open_ += [((*path, key), child) for key, child in node.value.items()]
        elif node.kind == "list":
            open_ += [((*path, at), child) for at, child in enumerate(node.value)]
    return found
