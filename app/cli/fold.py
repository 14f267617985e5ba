"""Answers of many nodes, the same ones told once: who said the same, and how the others differ."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from app.cli.plain import safe

STREAMS = ("stdout", "stderr")
_NODES_NAMED = 10
_MOST_LINES = 2000
"""Lines of a stream that are compared: the work grows with the square."""


@dataclass(frozen=True, slots=True)
class Group:
    """Nodes whose command ended alike and wrote the same."""

    nodes: tuple[str, ...]
    status: str
    exit_code: int | None
    error: str
    stdout: str
    stderr: str

    @property
    def ending(self) -> str:
        """How it ended, in words."""
        if self.exit_code is not None:
            return f"exit code {self.exit_code}"
        return f"{self.status} ({self.error})" if self.error else self.status

    def to_json(self) -> dict[str, Any]:
        return {
            "nodes": list(self.nodes),
            "status": self.status,
            "exit_code": self.exit_code,
            "stdout": self.stdout,
            "stderr": self.stderr,
        }


def groups(units: Iterable[Mapping[str, Any]], outputs: Iterable[Mapping[str, Any]]) -> list[Group]:
    """Units of a fan-out by what came of them, the largest group first.

    `outputs` hold the digests of what each job wrote: outputs that differ only where the result's text leaves
    something out are not the same.
    """
    digests = {(row.get("job"), row.get("stream")): row.get("sha256") for row in outputs}
    found: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for unit in units:
        wrote = tuple(digests.get((unit.get("job"), stream)) for stream in STREAMS)
        found.setdefault((unit.get("status"), unit.get("exit_code"), _error(unit), wrote), []).append(unit)
    made = [_group(alike) for alike in found.values()]
    return sorted(made, key=lambda group: (-len(group.nodes), group.nodes))


def _error(unit: Mapping[str, Any]) -> str:
    error = unit.get("error")
    return str(error.get("type") or "") if isinstance(error, dict) else ""


def _group(units: list[Mapping[str, Any]]) -> Group:
    first = units[0]
    result = first.get("result") or {}
    return Group(
        tuple(sorted(str(unit.get("node")) for unit in units)),
        str(first.get("status")),
        first.get("exit_code"),
        _error(first),
        str(result.get("stdout") or ""),
        str(result.get("stderr") or ""),
    )


def summary(found: list[Group]) -> Iterator[str]:
    """`47 the same, 3 differ`, and a line for each group."""
    if not found:
        return
    most, others = len(found[0].nodes), sum(len(group.nodes) for group in found[1:])
    if not others:
        yield f"{most} the same"
        return
    yield f"{most} the same, {others} differ" if most > 1 else f"{most + others} nodes, all different"
    width = len(str(len(found[0].nodes)))
    for group in found:
        yield f"  {len(group.nodes):>{width}}  {safe(group.ending)}: {_named(group.nodes)}"


def _named(nodes: tuple[str, ...]) -> str:
    more = len(nodes) - _NODES_NAMED
    return safe(", ".join(nodes[:_NODES_NAMED])) + (f" and {more} more" if more > 0 else "")


def differences(found: list[Group]) -> Iterator[str]:
    """A unified diff of each group against the largest one."""
    for group in found[1:]:
        for stream in STREAMS:
            one, other = (_lines(getattr(of, stream)) for of in (found[0], group))
            first, second = (f"{stream} of {_named(of.nodes)}" for of in (found[0], group))
            for line in difflib.unified_diff(one, other, first, second, lineterm=""):
                yield safe(line)


def _lines(text: str) -> list[str]:
    return text.splitlines()[:_MOST_LINES]
