"""Tables drawn for a terminal. Apart from the rest, because rich takes longer to import than a command to run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_table(names: Sequence[str], rows: Sequence[Sequence[str]], styles: Mapping[str, str]) -> None:
    """Rows of texts under names; a text that `styles` knows is shown in its style."""
    table = Table(*names, box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(Text(text, style=styles.get(text, ""), overflow="fold") for text in row))
    Console(highlight=False, markup=False, emoji=False).print(table)
