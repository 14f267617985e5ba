"""What is found in the text of a saved script: a place, what is wrong there or doubtful, and the way out."""

from __future__ import annotations

import bisect
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from app.language.problems import Severity, shown

MOST: Final = 100
"""Findings of one text; the rest is not told."""

_MESSAGES: Final[dict[str, tuple[Severity, str, str]]] = {
    "lint-single-quotes": (
        "warning",
        "{name} stands in single quotes, in which the shell puts no value",
        "use double quotes if the value was meant",
    ),
    "lint-heredoc": (
        "warning",
        "{name} stands in a here-document with a quoted delimiter, in which the shell puts no value",
        "leave the quotes of the delimiter out if the value was meant",
    ),
    "lint-arithmetic": (
        "error",
        "{name} stands in arithmetic, which a shell evaluates: a text in it can run commands",
        "declare it as an integer, or compute outside of arithmetic",
    ),
    "lint-arithmetic-number": (
        "warning",
        "{name} stands in arithmetic, which takes whole numbers only",
        "declare it as an integer",
    ),
    "lint-arithmetic-output": (
        "warning",
        "{name} is given to a command whose output is evaluated as arithmetic",
        "make sure that the command prints nothing but a number",
    ),
    "lint-subscript": (
        "warning",
        "{name} is a subscript, which a shell evaluates as arithmetic unless the array is associative",
        "use it for associative arrays only",
    ),
    "lint-code": (
        "error",
        "{name} stands in text that is run as code, so that its value would be run",
        "give the value as an argument, or in single quotes where the shell that is called expands it: it is exported",
    ),
    "lint-name": (
        "error",
        "{name} is taken for the name of a variable here, and a shell evaluates such names",
        "write the variable's name out and give it the value",
    ),
    "lint-braces": (
        "warning",
        "{name} stands in a range, which the shell reads before it puts values in",
        "use $(seq …)",
    ),
    "lint-backquotes": (
        "warning",
        "{name} stands in backquotes with escapes, which can be read in more than one way",
        "write $(…) instead of `…`",
    ),
    "lint-command": (
        "warning",
        "{name} is the command itself: whoever gives the value decides what runs",
        "declare `choices`, or write the command out",
    ),
    "lint-unquoted": (
        "warning",
        "{name} stands outside of quotes: its value is split at blanks, and * and ? in it become names of files",
        "put it in double quotes",
    ),
    "lint-too-deep": (
        "warning",
        "{name} is nested too deep here: the rest is not checked",
        "make the script flatter",
    ),
    "lint-percent": (
        "error",
        "{name} is put in before cmd reads the line, so that its value would be run",
        "write it as !name!, which cmd puts in after it has read the line",
    ),
    "lint-not-read": (
        "warning",
        "{name} is no way to write a variable in this shell, so it stays as it is",
        "write it as !name!",
    ),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding; an error refuses the script. `line` and `column` count characters from 1."""

    code: str
    severity: Severity
    message: str
    hint: str
    line: int
    column: int


@dataclass(slots=True)
class Findings:
    """The findings of one text, each place and code once."""

    text: str
    found: dict[tuple[int, str], Finding] = field(default_factory=dict)
    _lines: list[int] = field(default_factory=list)

    def add(self, code: str, place: int, name: str) -> None:
        """Note one at an index of the text, about a reference as it stands there."""
        if len(self.found) >= MOST or (place, code) in self.found:
            return
        if not self._lines:
            self._lines = [0, *(found.end() for found in re.finditer("\n", self.text))]
        line = bisect.bisect_right(self._lines, place)
        severity, message, hint = _MESSAGES[code]
        column = place - self._lines[line - 1] + 1
        told = message.format(name=shown(name))
        self.found[place, code] = Finding(code, severity, told, hint, line, column)

    def sorted(self) -> list[Finding]:
        """All of them by place."""
        return sorted(self.found.values(), key=lambda one: (one.line, one.column))


Lint = Callable[[str, str, dict[str, str]], list[Finding]]
"""(text, shell, types by name) -> findings."""
