"""What a guide shows: workflows in YAML, commands, and what a terminal said when they were run."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Example:
    """A workflow, and the output shown of `muster run` on it; "" where none is shown."""

    ref: str
    source: str
    shown: str


def section(path: Path, heading: str) -> str:
    """The text below a heading, up to the next one of its level; "" where there is no such heading."""
    level = heading.partition(" ")[0]
    _, _, rest = path.read_text().partition(f"\n{heading}\n")
    return rest.partition(f"\n{level} ")[0]


def examples(path: Path) -> list[Example]:
    """Every whole workflow of a guide."""
    blocks = [(found[1].strip(), found[2]) for found in _FENCE.finditer(path.read_text())]
    shown = [text if kind == "console" and text.startswith("$ muster run ") else "" for kind, text in blocks]
    return [
        Example(text.partition("\n")[0].removeprefix("ref: "), text, after)
        for (kind, text), after in zip(blocks, [*shown[1:], ""], strict=True)
        if kind == "yaml" and text.startswith("ref: ")
    ]


def gist(output: str) -> tuple[list[list[str]], list[str], str]:
    """What is the same each time in the output of `muster run`: the table without durations, who spoke, and the end."""
    lines = output.splitlines()
    heads = [number for number, line in enumerate(lines) if re.match("node +task +status", line)]
    table = [re.split("  +", line)[:4] for line in lines[heads[0] + 1 :] if line.count("  ") >= 3]
    spoke = sorted(line.split()[0] for line in lines if re.match(r"\S+ +│", line))
    return table, spoke, lines[-1].partition(" ")[2]


def sessions(path: Path) -> list[tuple[list[str], list[str]]]:
    """Every `$ muster exec …` of a guide: the words of the command, and the lines that it said."""
    shown = [
        text.splitlines() for info, text in _FENCE.findall(path.read_text()) if info.strip() == "console"
    ]
    found = [(shlex.split(first.removeprefix("$ muster ")), lines) for first, *lines in shown]
    return [(words, lines) for words, lines in found if words[0] == "exec"]


def settled(lines: list[str]) -> list[str]:
    """Lines without durations and the order in which nodes happened to speak."""
    plain = [re.sub(r"\d+\.\d\ds$", "…", line) for line in lines]
    live = [line for line in plain if "│" in line]
    return [*sorted(live), *(line for line in plain if "│" not in line)]
