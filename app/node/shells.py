"""Which interpreters a script may be run by, how each is called, and which files each wants.

A node advertises `available()` in its heartbeats; the runner looks the shell up again when a job starts,
because a package may have come or gone since.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from typing import NamedTuple

from app import powershell
from app.allow import programs

POWERSHELL = "powershell"
CMD = "cmd"


class Shell(NamedTuple):
    """The programs that are this shell, the best first, and the words between one of them and a script's path."""

    programs: tuple[str, ...]
    words: tuple[str, ...] = ()


_SHELLS: dict[str, Shell] = {
    "sh": Shell(("sh",)),
    "bash": Shell(("bash",)),
    "dash": Shell(("dash",)),
    "ksh": Shell(("ksh", "ksh93", "mksh")),
    # Without -f, zsh reads ~/.zshenv, and what runs would depend on whose home it is.
    "zsh": Shell(("zsh",), ("-f",)),
    "python": Shell(("python3",)),
    POWERSHELL: Shell(("pwsh",), ("-NoProfile", "-NonInteractive", "-File")),
    # By its whole name: a program that is only called `cmd` is something else.
    CMD: Shell(("cmd.exe",), ("/V:ON", "/D", "/S", "/C")),
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
    known = _SHELLS.get(shell, Shell(()))
    for program in known.programs:
        found = find(program, search_path)
        if found is not None:
            return [found, *known.words]
    return None


def files_for(shell: str, name: str, body: bytes, variables: Iterable[str]) -> list[tuple[str, bytes]]:
    """The files to write for a script that is called `name`, as pairs of name and content; the last one is run.

    `variables` are the names of the job's own environment variables.
    """
    if shell == POWERSHELL:
        return [(name, body), (powershell.PRELUDE, powershell.prelude(name, variables).encode())]
    if shell == CMD:
        return [(name, b"\r\n".join(body.replace(b"\r\n", b"\n").split(b"\n")))]
    return [(name, body)]


def names_for(shell: str, name: str) -> list[str]:
    """The names of the same files."""
    return [name, powershell.PRELUDE] if shell == POWERSHELL else [name]


def shell_of(name: str) -> Shell | None:
    """The programs and words of the shell called so; None where there is none."""
    return _SHELLS.get(name)


def among(programs: Collection[str]) -> tuple[str, ...]:
    """The shells of a machine that has these programs, in the order of the table."""
    return tuple(name for name, shell in _SHELLS.items() if any(one in programs for one in shell.programs))


def every_program() -> tuple[str, ...]:
    """Every program that is some shell."""
    return tuple(program for shell in _SHELLS.values() for program in shell.programs)


def available(search_path: str | None = None) -> tuple[str, ...]:
    """The shells that this machine has, in the order of the table."""
    path = search_path or own_path()
    return tuple(shell for shell in _SHELLS if command_for(shell, path) is not None)


def own_path() -> str:
    """Where this process, and the scripts that it starts, look for programs."""
    return os.environ.get("PATH") or SEARCH_PATH
