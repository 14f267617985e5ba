"""The logs of the children on the terminal, each line behind the name of its process."""

from __future__ import annotations

from pathlib import Path

import click

from app.cli.plain import safe

_MOST = 1 << 20
_COLOURS = ("cyan", "green", "yellow", "blue", "magenta", "bright_cyan", "bright_green", "bright_blue")


class Tail:
    """Follows every log of a directory from where it is now."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._at = {path: path.stat().st_size for path in directory.glob("*.log")}
        self._rest: dict[Path, bytes] = {}
        self._colours: dict[str, str] = {}

    def show(self) -> None:
        """Prints what has come since the last time."""
        for path in sorted(self._directory.glob("*.log")):
            for line in self._new_lines(path):
                name = path.stem
                colour = self._colours.setdefault(name, _COLOURS[len(self._colours) % len(_COLOURS)])
                click.echo(click.style(f"{name:<14} │", fg=colour) + f" {safe(line)}")

    def _new_lines(self, path: Path) -> list[str]:
        at = self._at.get(path, 0)
        with path.open("rb") as file:
            if path.stat().st_size < at:
                at = 0
            file.seek(at)
            data = file.read(_MOST)
        self._at[path] = at + len(data)
        *lines, rest = (self._rest.pop(path, b"") + data).split(b"\n")
        if rest:
            self._rest[path] = rest
        return [line.decode("utf-8", "replace").rstrip("\r") for line in lines]
