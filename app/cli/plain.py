"""Text that other machines wrote, made harmless for a terminal; and values as columns, durations, JSON."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from typing import Any

# C0 and C1 controls, line separators, and the characters that turn the direction of text.
_HARMFUL = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)


def safe(text: str, *, keep: str = "") -> str:
    """The text with every character that could move a cursor or colour a screen written out as an escape.

    Tabs stay, and the characters in `keep`.
    """
    return _HARMFUL.sub(
        lambda found: found.group() if found.group() in keep else _escape(found.group()), text
    )


def _escape(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"


def cell(value: Any) -> str:
    """A value as it stands in a table: short, on one line."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ",".join(f"{safe(str(key))}={cell(one)}" for key, one in sorted(value.items())) or "-"
    if isinstance(value, list) and any(isinstance(one, dict) for one in value):
        return " ".join(f"{{{cell(one)}}}" for one in value)
    if isinstance(value, list):
        return ",".join(cell(one) for one in value) or "-"
    if isinstance(value, float):
        return f"{value:g}"
    return safe(str(value))


def seconds(value: Any) -> str:
    """A duration in seconds for people."""
    if not isinstance(value, int | float):
        return "-"
    if value < 60:
        return f"{value:.2f}s" if value < 10 else f"{value:.1f}s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s"


def columns(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned columns, two spaces apart, nothing cut: for pipes and files."""
    lines = [list(names), *[list(row) for row in rows]]
    widths = [max(len(line[at]) for line in lines) for at in range(len(names))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def as_json(value: Any) -> str:
    """JSON for people and programs: indented, in ASCII, so that no control character gets through."""
    return json.dumps(value, indent=2, ensure_ascii=True)


def say(line: str) -> None:
    """One line to standard output, out at once: whoever reads a pipe wants it live."""
    if sys.stdout is not None:  # it was closed by whoever started us (`>&-`)
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
