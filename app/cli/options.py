"""Options that verbs of all kinds share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def wants_json(command: Command) -> Command:
    """Adds --json as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def knows_packs(command: Command) -> Command:
    """Adds --packs as `folders`."""
    option = click.option(
        "--packs",
        "folders",
        multiple=True,
        metavar="DIR",
        help="A folder of packs whose actions may be called; may be repeated.",
    )
    return option(command)
