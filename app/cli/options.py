"""Options that verbs of all kinds share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def wants_json(command: Command) -> Command:
    """Adds --json as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)
