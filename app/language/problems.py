"""What is wrong with a text, told so that a person can mend it: place, cause, way out.

A `Collector` gathers every problem of one text; `render_text` is for terminals, `render_github` for
annotations of a continuous-integration run, `as_json` for the API. Nothing here decides what is wrong.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from app.errors import InvalidInput
from app.language.model import Mark

MOST_PROBLEMS = 200
"""After so many the reading of a text stops: what follows is rarely news, and each costs time."""

COMPARISONS = 20_000
"""How many names may be compared for `did you mean` while one text is read."""

SHOWN = 60
LINE_SHOWN = 120

Severity = Literal["error", "warning"]

_UNPRINTABLE = re.compile(r"[^\x20-\x7e\xa0-\u2027\u2030-\ufdff\ufe10-\ufffd\U00010000-\U000e0000]")
_BREAK = re.compile(r"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong (or, as a warning, doubtful) at one place.

    `code` is stable. `line` and `column` count characters from 1. `path` is the JSON pointer of the value.
    """

    code: str
    message: str
    file: str
    line: int
    column: int
    path: str = ""
    hint: str = ""
    severity: Severity = "error"
    source_line: str = ""


class InvalidWorkflow(InvalidInput):
    """A workflow that cannot be used; `problems` holds all of them, warnings included."""

    code = "invalid-workflow"

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        errors = [problem for problem in self.problems if problem.severity == "error"] or list(self.problems)
        first = errors[0]
        more = len(errors) - 1
        rest = f" (and {more} more {'problem' if more == 1 else 'problems'})" if more else ""
        super().__init__(
            f"{first.file}:{first.line}:{first.column}: {first.message}{rest}",
            hint=first.hint,
            errors=[as_json(problem) for problem in self.problems],
        )


def as_json(problem: Problem) -> dict[str, Any]:
    """The problem as a JSON object with every field under its own name."""
    return asdict(problem)


def shown(value: object) -> str:
    """A value from a text as it may stand in a message: short, in backticks, nothing that moves a cursor."""
    text = _UNPRINTABLE.sub("·", str(value))
    return f"`{text if len(text) <= SHOWN else text[: SHOWN - 1] + '…'}`"


def render_text(problems: Iterable[Problem]) -> str:
    """For a terminal: `file:line:column: severity: message [code]`, the line, a caret, the hint."""
    return "\n".join(_render_one(problem) for problem in problems)


def _render_one(problem: Problem) -> str:
    place = f"{problem.file}:{problem.line}:{problem.column}"
    out = [f"{place}: {problem.severity}: {problem.message} [{problem.code}]"]
    if problem.source_line.strip():
        column = max(problem.column, 1)
        start = max(0, column - LINE_SHOWN * 2 // 3) if len(problem.source_line) > LINE_SHOWN else 0
        line = _UNPRINTABLE.sub(" ", problem.source_line)[start : start + LINE_SHOWN]
        out += [f"    {line}".rstrip(), f"    {' ' * (column - 1 - start)}^"]
    if problem.hint:
        out.append(f"    hint: {problem.hint}")
    return "\n".join(out)


def render_github(problems: Iterable[Problem]) -> str:
    """Workflow commands that put each problem on its line of a pull request; one line each."""
    return "\n".join(
        f"::{problem.severity} file={_property(problem.file)},line={problem.line},col={problem.column},"
        f"title={_property(problem.code)}::"
        + _data(problem.message + (f" ({problem.hint})" if problem.hint else ""))
        for problem in problems
    )


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


class TooManyProblems(Exception):
    """Raised by `Collector.add` when the text has had enough; the reader of the text catches it."""


class Collector:
    """Every problem of one text, with the lines they stand on."""

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.lines = _BREAK.split(text)
        self._comparisons = COMPARISONS
        self._seen: set[tuple[str, int, int, str]] = set()

    @property
    def failed(self) -> bool:
        """True as soon as one error (not a warning) was found."""
        return any(problem.severity == "error" for problem in self.problems)

    def add(
        self,
        code: str,
        message: str,
        mark: Mark,
        *,
        path: str = "",
        hint: str = "",
        severity: Severity = "error",
    ) -> None:
        """Note one problem; the same one at the same place counts once. Raises TooManyProblems at the cap."""
        seen = (code, mark.line, mark.column, message)
        if seen in self._seen:
            return
        self._seen.add(seen)
        source_line = self.lines[mark.line - 1] if 0 < mark.line <= len(self.lines) else ""
        self.problems.append(
            Problem(code, message, self.file, mark.line, mark.column, path, hint, severity, source_line)
        )
        if len(self.problems) >= MOST_PROBLEMS:
            self.problems.append(
                Problem(
                    "too-many-problems",
                    f"{MOST_PROBLEMS} problems found, reading stopped here",
                    self.file,
                    mark.line,
                    mark.column,
                    hint="mend these first",
                )
            )
            raise TooManyProblems

    def did_you_mean(self, word: str, known: Iterable[str], otherwise: str = "") -> str:
        """A hint naming the nearest of `known`, or `otherwise`; gives up when comparing gets dear."""
        near = self.nearest(word, known)
        return f"did you mean `{near}`?" if near else otherwise

    def nearest(self, word: str, known: Iterable[str]) -> str:
        """The nearest of `known`, or "" if none is near or too many names were compared already."""
        names = list(known)
        self._comparisons -= len(names)
        if self._comparisons < 0 or len(word) > 100:
            return ""
        return nearest(word, names)

    def sorted(self) -> tuple[Problem, ...]:
        """All problems by place."""
        return tuple(sorted(self.problems, key=lambda problem: (problem.line, problem.column)))


def nearest(word: str, known: Iterable[str]) -> str:
    """The name in `known` that `word` was most likely meant to be, or ""."""
    names = list(known)
    folded = word.lower().replace("-", "_")
    if folded in names:
        return folded
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    return close[0] if close else ""
