"""Here-documents of shell text: the operator with its delimiter, and where the document ends."""

from __future__ import annotations

import re
from dataclasses import dataclass

_OPERATOR = re.compile(r"<<(-?)[ \t]*((?:\\.|'[^'\n]*'|\"[^\"\n]*\"|[^\s;&|<>()'\"\\])*)")


@dataclass(frozen=True, slots=True)
class Heredoc:
    """One that is to follow after the line. `strip_tabs` is `<<-`; a shell expands nothing if `quoted`;
    `into_shell` tells that the reading command is a shell."""

    delimiter: str
    quoted: bool
    strip_tabs: bool
    into_shell: bool

    def find_end(self, text: str, start: int) -> tuple[int, int]:
        """Where the document that begins at `start` ends: before its last line, and after it."""
        tabs = "\t*" if self.strip_tabs else ""
        found = re.compile(rf"^{tabs}{re.escape(self.delimiter)}(?:\n|\Z)", re.MULTILINE).search(text, start)
        return (found.start(), found.end()) if found else (len(text), len(text))


def read_heredoc(text: str, start: int, into_shell: bool) -> tuple[Heredoc | None, int]:
    """The here-document whose `<<` stands at `start` (None without a delimiter), and how long `<<X` is."""
    found = _OPERATOR.match(text, start)
    if not found or not found[2]:
        return None, found.end() - start if found else 2
    delimiter = re.sub(r"\\(.)|['\"]", lambda escape: escape[1] or "", found[2])
    quoted = any(char in found[2] for char in "'\"\\")
    return Heredoc(delimiter, quoted, bool(found[1]), into_shell), found.end() - start
