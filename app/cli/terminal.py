"""The screen: colours and drawn tables where there is a terminal, plain columns where there is none."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from app.cli.loading import load
from app.cli.plain import cell, columns

_STATUS = {
    "succeeded": "green",
    "completed": "green",
    "online": "green",
    "ok": "green",
    "failed": "red",
    "fail": "red",
    "timed_out": "red",
    "offline": "red",
    "rejected": "red",
    "unknown": "magenta",
    "warn": "yellow",
    "cancelled": "yellow",
    "waiting": "yellow",
    "running": "cyan",
}


class Screen:
    """Standard output. Colours only on a terminal that has them, and never with NO_COLOR set."""

    def __init__(self) -> None:
        self.is_terminal = sys.stdout.isatty()
        is_plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
        self.has_colour = self.is_terminal and not is_plain

    def paint(self, text: str, **style: Any) -> str:
        """The text in click's styles, or as it is. The text must be safe already."""
        return click.style(text, **style) if self.has_colour else text

    def status(self, text: str, status: str) -> str:
        """A safe text in the colour of a status."""
        colour = _STATUS.get(status)
        return text if colour is None else self.paint(text, fg=colour)

    def line(self, text: str) -> None:
        """One line, out at once: whoever reads a pipe wants it live."""
        click.echo(text, color=self.has_colour)

    def table(self, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Rows under names; values are made safe here."""
        texts = [[cell(value) for value in row] for row in rows]
        if not self.is_terminal:
            self.line(columns(names, texts))
            return
        load("app.cli.drawn:print_table")(names, texts, _STATUS)

    def facts(self, values: Mapping[str, Any]) -> None:
        """Names and values, one a line."""
        width = max((len(name) for name in values), default=0)
        for name, value in values.items():
            self.line(f"{self.paint(name.ljust(width), dim=True)}  {cell(value)}")


def rows_of(items: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[list[Any]]:
    """The values of the items' fields in the order of `names`."""
    return [[item.get(name) for name in names] for item in items]
