"""What the YAML parser complains about, in words that say what to do."""

from __future__ import annotations

import re
from typing import Any

import yaml

from app.language.model import Mark

_BARE_TEMPLATE = re.compile(r"(?:^|[:,\-\[]\s+)\{[{%]")
_QUOTED_THEN_MORE = re.compile(r"""[:\-]\s+("[^"]*"|'[^']*')\s*[^\s#,\]}]""")

_KNOWN: tuple[tuple[str, str, str], ...] = (
    ("found duplicate", "an anchor is set twice", ""),
    ("could not find expected ':'", "a key without a `:` after it", "write `key: value`"),
    ("mapping values are not allowed", "a `:` where no key can be", "quote the value if it holds `: `"),
    ("found unexpected end of stream", "the text ends inside a quoted value", "close the quote"),
    (
        "found unknown escape character",
        "an escape that YAML does not know",
        "use single quotes, or double the `\\`",
    ),
    ("did not find expected hexdecimal number", "an escape without its hexadecimal digits", ""),
    ("hexadecimal numbers, but found", "an escape without its hexadecimal digits", ""),
    (
        "found invalid Unicode character escape",
        "an escape that is no character",
        "write the character itself",
    ),
    (
        "sequence entries are not allowed",
        "a `- ` where no list can start",
        "put it on a line of its own",
    ),
    ("found a tab character", "a tab where indentation is wanted", "indent with spaces"),
    (
        "did not find expected '-' indicator",
        "a line that is not an entry of the list around it",
        "check indentation",
    ),
    (
        "did not find expected key",
        "a line that does not fit the mapping around it",
        "check indentation and quotes",
    ),
    ("expected ',' or ']'", "a list in brackets that does not end", "close it with `]`"),
    ("expected ',' or '}'", "a mapping in braces that does not end", "close it with `}`"),
    (
        "<document start>",
        "more text after the end of the document",
        "check indentation",
    ),
    ("node content", "a value is missing here", ""),
    ("found incompatible YAML document", "a YAML version that cannot be read", "remove the %YAML line"),
)


def explain(error: yaml.YAMLError, lines: list[str]) -> tuple[Mark, str, str]:
    """Place, message and hint for an error of the parser; `lines` are the source's."""
    problem = _problem(error)
    mark: Any = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if "end of stream" in problem or (mark is not None and mark.line >= len(lines)):
        # There is nothing to see at the end of the text: show where it began.
        mark = getattr(error, "context_mark", None) or mark
    place = Mark(min(mark.line + 1, len(lines)), mark.column + 1) if mark is not None else Mark(1, 1)
    line = lines[place.line - 1] if place.line <= len(lines) else ""
    before = lines[place.line - 2] if 2 <= place.line <= len(lines) + 1 else ""
    message, hint = _words(problem, line, place)
    if _BARE_TEMPLATE.search(line) or (not line.strip() and _BARE_TEMPLATE.search(before)):
        hint = 'quote your template: "{{ … }}"'
    elif _QUOTED_THEN_MORE.search(line):
        hint = "text goes on after the closing quote: quote the whole value"
    context: Any = getattr(error, "context_mark", None)
    if context is not None and context.line + 1 < place.line:
        message += f" (what it belongs to starts at line {context.line + 1})"
    return place, message, hint


def _problem(error: yaml.YAMLError) -> str:
    """In libyaml's words where the parser in Python (`yaml_parser`) says less."""
    problem = str(getattr(error, "problem", "") or error)
    if problem.startswith("expected <block end>"):
        is_mapping = "mapping" in str(getattr(error, "context", ""))
        problem = "did not find expected key" if is_mapping else "did not find expected '-' indicator"
    return problem.replace("'<stream end>'", "the end of stream")


def _words(problem: str, line: str, place: Mark) -> tuple[str, str]:
    if "cannot start any token" in problem:
        character = line[place.column - 1 : place.column]
        if character == "\t":
            return "a tab where indentation is wanted", "indent with spaces"
        return f"no value can start with `{character}`", "quote the value"
    for needle, message, hint in _KNOWN:
        if needle in problem:
            return message, hint
    return f"this is not YAML: {problem}", "check indentation and quotes"
