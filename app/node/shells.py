"""Which interpreters a script body may be run by, and how each is called.

A node advertises `available()` in its heartbeats; the runner looks the shell up again when a job starts,
because a package may have come or gone since.
"""

from __future__ import annotations

import os

from app.allow import programs

_COMMANDS: dict[str, tuple[str, ...]] = {
    "sh": ("sh",),
    "bash": ("bash",),
    "dash": ("dash",),
    "ksh": ("ksh",),
    # Without -f, zsh reads ~/.zshenv, and what runs would depend on whose home it is.
    "zsh": ("zsh", "-f"),
    "python": ("python3",),
}

SEARCH_PATH = programs.SEARCH_PATH
"""PATH where the runner itself has none."""


def find(command: str, search_path: str) -> str | None:
    """The first executable file called `command` in the colon-separated `search_path`, or None."""
    for directory in search_path.split(":"):
        candidate = os.path.join(directory or ".", command)
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return candidate
    return None


def command_for(shell: str, search_path: str) -> list[str] | None:
    """The words that go before a script's path to run it by `shell`; None where this machine lacks it."""
    words = _COMMANDS.get(shell)
    if words is None:
        return None
    found = find(words[0], search_path)
    return None if found is None else [found, *words[1:]]


def available(search_path: str | None = None) -> tuple[str, ...]:
    """The shells that this machine has, in the order of the table."""
    path = search_path or own_path()
    return tuple(shell for shell in _COMMANDS if command_for(shell, path) is not None)


def own_path() -> str:
    """Where this process, and the scripts that it starts, look for programs."""
    return os.environ.get("PATH") or SEARCH_PATH
