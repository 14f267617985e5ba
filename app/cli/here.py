"""`muster run` without a server: the options that ask for it, and the way there."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from app.cli import options
from app.cli.given import read_parameters
from app.cli.loading import load
from app.errors import InvalidInput

_HERE = ("entry_point", "exit_point", "given", "left", "actions")
_SHARED = ("target", "pairs", "file", "following", "timeout", "as_json")
"""What `run` takes in either case."""


def may_run_here(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds what makes `run` do without a server; the command itself is called only where none of it was asked for.

    It stands above `calls_api`.
    """

    @click.option("--entry-point", metavar="TASK", help="Here, without a server: begin with this task.")
    @click.option("--exit-point", metavar="TASK", help="Here, without a server: stop before this task.")
    @click.option("--input", "given", metavar="IN.json", help="Here: the state that it begins with.")
    @click.option(
        "--output", "left", metavar="OUT.json", help="Here: where to write the state that it leaves."
    )
    @click.option(
        "--actions", metavar="FILE.json", help="Here: the actions of packs that there are, as JSON."
    )
    @options.knows_packs
    @functools.wraps(command)
    def run(folders: tuple[str, ...], **given: Any) -> Any:
        here = {name: given.pop(name) for name in _HERE}
        if any(value is not None for value in here.values()):
            return _run(folders, here, given)
        if folders:
            raise InvalidInput(
                "--packs is for a file that is run here",
                hint="the server knows its packs: `muster pack list`",
            )
        return command(**given)

    return run


def _run(folders: tuple[str, ...], here: dict[str, Any], given: dict[str, Any]) -> int:
    """What that takes is imported only now."""
    for name, value in given.items():
        if value and name not in _SHARED:
            option = f"--{name.replace('_', '-')}"
            raise InvalidInput(f"{option} is for a server, and this is run here", hint=f"leave out {option}")
    asked = load("app.cli.part_run:Asked")(
        given["target"],
        entry=here["entry_point"] or "",
        exit=here["exit_point"] or "",
        given=here["given"] or "",
        left=here["left"] or "",
        parameters=read_parameters(given["pairs"], given["file"]),
        folders=folders,
        actions=here["actions"] or "",
        timeout=given["timeout"],
        following=given["following"],
        json=given["as_json"],
    )
    return int(load("app.cli.part_run:run_part")(asked))
