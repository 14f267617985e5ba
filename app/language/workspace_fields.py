"""What a workflow says of files: `workspace`, as one word or as a table, and the patterns in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from app.language import names
from app.language.fields import Choice, Key, Kind, ListOf, Schema, Table, Text
from app.language.reading import BAD, Reading
from app.language.source import Node

MODES: Final = ("none", "push", "pull", "sync")
MERGES: Final = ("fail", "per_node")

PATTERNS: Final = ListOf(
    Text(names.GLOB, names.GLOB_RULE, most=names.MOST_GLOB_CHARACTERS),
    least=1,
    most=names.MOST_GLOBS,
    single=True,
)
_TABLE: Final = Table(
    "`workspace`",
    [
        Key("mode", Choice(MODES), "Which way files go; sync if not given."),
        Key("include", PATTERNS, "Only the files that one of these patterns takes; all if not given."),
        Key("exclude", PATTERNS, "None of the files that one of these patterns takes."),
    ],
    elsewhere={"path": "the files come from `muster run --workspace DIR`, or from earlier tasks"},
)


@dataclass(frozen=True)
class Workspace(Kind):
    """`none`, `push`, `pull` or `sync`, or a mapping that says more; read as a mapping."""

    def read(self, r: Reading, node: Node) -> Any:
        if node.kind == "map":
            values = _TABLE.read(r, node)
            return BAD if values is BAD else {"mode": "sync", **values}
        mode = Choice(MODES).read(r, node)
        return BAD if mode is BAD else {"mode": mode}

    def schema(self) -> Schema:
        return {"anyOf": [Choice(MODES).schema(), _TABLE.schema()]}
