"""Tables drawn for a terminal. Apart from the rest, because rich takes longer to import than a command to run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.cli.plain import columns

_PROSE = 20
_BETWEEN = 3


def print_table(names: Sequence[str], rows: Sequence[Sequence[str]], styles: Mapping[str, str]) -> None:
    """Rows of texts under names; a text that `styles` knows is shown in its style.

    Only texts with blanks are broken over lines: an id stays whole, so that it can be copied. Where there is no room
    for that the columns are printed as into a pipe, and the terminal breaks the lines.
    """
    console = Console(highlight=False, markup=False, emoji=False)
    prose = [any(" " in row[at] for row in rows) for at in range(len(names))]
    widths = [max(len(name), *(len(row[at]) for row in rows), 0) for at, name in enumerate(names)]
    least = [
        min(width, max(_PROSE, len(name))) if is_prose else width
        for name, width, is_prose in zip(names, widths, prose, strict=True)
    ]
    if sum(least) + _BETWEEN * len(names) > console.width:
        console.print(Text(columns(names, rows)), soft_wrap=True)
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for name, is_prose in zip(names, prose, strict=True):
        table.add_column(name, no_wrap=not is_prose)
    for row in rows:
        table.add_row(*(Text(text, style=styles.get(text, ""), overflow="fold") for text in row))
    console.print(table)
