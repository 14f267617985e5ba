"""The documents: their files, code blocks, words in backticks, tables and links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from repository import ROOT, named

_FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.M | re.S)
_LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block: `info` are the words behind the fence."""

    path: Path
    line: int
    info: str
    text: str

    @property
    def where(self) -> str:
        return f"{named(self.path)}:{self.line}"


@cache
def documents() -> tuple[Path, ...]:
    return (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md")))


@cache
def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(*names: str) -> Iterator[Block]:
    for path in documents() if not names else [ROOT / name for name in names]:
        text = path.read_text(encoding="utf-8")
        for found in _FENCE.finditer(text):
            yield Block(path, text.count("\n", 0, found.start()) + 1, found[1].strip(), found[2])


def prose(path: Path) -> str:
    """The text without its fenced blocks."""
    return _FENCE.sub("", path.read_text(encoding="utf-8"))


def ticked(name: str) -> set[str]:
    """Every text in single backticks of a document."""
    return set(re.findall(r"`([^`\n]+)`", prose(ROOT / name)))


def rows(name: str) -> Iterator[list[str]]:
    """The cells of every table row of a document, heads and rules left out."""
    for line in prose(ROOT / name).splitlines():
        if line.startswith("|") and not set(line) <= set("|-: "):
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))]


def links(path: Path) -> Iterator[str]:
    """Targets of links that lead to files."""
    for target in _LINK.findall(prose(path)):
        if "://" not in target and not target.startswith(("#", "mailto:")):
            yield target.split("#")[0]
