"""The header of a script's file: YAML in comments between two lines `# ---`, at the top or below the first line.

What a comment begins with (`#`, `REM` or `::`) is the same on each of its lines. The header is no part of the body.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from app.language import source
from app.language.model import Mark
from app.language.problems import Collector, InvalidWorkflow, Problem, shown
from app.language.source import Node

KEYS: Final = (
    *("name", "shell", "description", "tags", "timeout", "parameters", "substitution", "requires_approval"),
    "approval",
)
"""What a header may say: the fields of a script but its body."""

_FENCE = re.compile(r"(#|REM|::)[ \t]*---[ \t]*\r?\n?\Z", re.IGNORECASE)
_SHEBANG = re.compile(r"#!\s*(?:\S*/env\s+(?:-S\s+)?)?(?:\S*/)?([A-Za-z0-9_.-]+)")
_SHELLS: Final = {"pwsh": "powershell", "python3": "python", "mksh": "ksh", "ksh93": "ksh"}


class BadHeader(InvalidWorkflow):
    """A header that cannot be read; `problems` holds each with its place in the file."""

    code = "invalid-script"


@dataclass(frozen=True, slots=True)
class ScriptFile:
    """A script's file: what its header says, and its body; `text` is all of it. Lines count from 1."""

    says: dict[str, Any]
    body: str
    first_line: int
    lines: int
    root: Node | None
    text: str

    def line_of_body(self, line: int) -> int:
        """Where a line of the body stands in the file."""
        return line if line < self.first_line else line + self.lines

    def place(self, pointer: str) -> Mark | None:
        """Where the value at a JSON pointer stands, or the nearest around it; None for what the file does not say."""
        node = self.root
        found: Mark | None = None
        for step in pointer.split("/")[1:]:
            inner: Any = None if node is None else node.value
            if isinstance(inner, dict):
                node = inner.get(step.replace("~1", "/").replace("~0", "~"))
            elif isinstance(inner, list) and step.isdecimal() and int(step) < len(inner):
                node = inner[int(step)]
            else:
                node = None
            if node is None:
                return found
            found = node.key if isinstance(inner, dict) else node.mark
        return found


def read(text: str, file: str) -> ScriptFile:
    """Part the header from the body; a shell that the header does not name is that of the first line (`#!`).

    Raises BadHeader.
    """
    lines = re.findall(r"[^\n]*\n|[^\n]+\Z", text)
    start = next((place for place in (0, 1) if place < len(lines) and _FENCE.match(lines[place])), None)
    says: dict[str, Any] = {}
    root: Node | None = None
    count = 0
    if start is not None:
        end = _end(lines, start, file)
        root = _tree(lines, start, end, file)
        says = {} if root is None else root.data()
        count = end + 1 - start
    shebang = _SHEBANG.match(text)
    if "shell" not in says and shebang:
        says["shell"] = _SHELLS.get(shebang[1], shebang[1])
    first = start or 0
    body = "".join([*lines[:first], *lines[first + count :]])
    return ScriptFile(says, body, first + 1, count, root, text)


def _end(lines: Sequence[str], start: int, file: str) -> int:
    for place in range(start + 1, len(lines)):
        if _FENCE.match(lines[place]):
            return place
        if not _comment(lines[start], lines[place]):
            sign = lines[start].split("-")[0].strip()
            raise _bad(
                file, lines, place, f"the header goes on until a line `{sign} ---`", f"begin it with `{sign}`"
            )
    raise _bad(file, lines, start, "the header is never closed", "write the line with --- again below it")


def _comment(fence: str, line: str) -> str | None:
    """What the line's comment begins with, if it is as in the fence."""
    sign = fence.split("-")[0].strip()
    return line[: len(sign)] if line[: len(sign)].upper() == sign.upper() else None


def _bad(file: str, lines: Sequence[str], place: int, message: str, hint: str) -> BadHeader:
    line = lines[place].rstrip("\r\n")
    return BadHeader([Problem("bad-header", message, file, place + 1, 1, "", hint, "error", line)])


def _tree(lines: Sequence[str], start: int, end: int, file: str) -> Node | None:
    """The header as a tree whose marks are places in the file: what is no YAML becomes blank."""
    sign = len(lines[start].split("-")[0].strip())
    yaml = ["\n"] * (start + 1) + [" " * sign + line[sign:] for line in lines[start + 1 : end]]
    if not "".join(yaml).strip():
        return None
    root, collector = source.read("".join(yaml), file)
    _check(root, collector)
    if collector.failed or root is None:
        raise BadHeader([_as_written(problem, lines) for problem in collector.sorted()])
    return root


def _as_written(problem: Problem, lines: Sequence[str]) -> Problem:
    """The problem with its line as it stands in the file."""
    line = lines[problem.line - 1] if 0 < problem.line <= len(lines) else ""
    return replace(problem, source_line=line.rstrip("\r\n"))


def _check(root: Node | None, collector: Collector) -> None:
    if root is None:
        return
    if root.kind != "map":
        collector.add("wrong-type", "the header must be a mapping", root.mark, hint="write `name: deploy`")
        return
    for name, node in root.value.items():
        if name not in KEYS:
            known = f"known here: {', '.join(KEYS)}"
            hint = collector.did_you_mean(name, KEYS, known)
            collector.add(
                "unknown-key", f"a script has no key {shown(name)}", node.key or node.mark, hint=hint
            )
