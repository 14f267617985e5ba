"""`muster graph`: how a file, a stored workflow or an execution looks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from app.cli import lanes
from app.cli.client import api
from app.cli.connection import client
from app.cli.files import read_text
from app.cli.loading import load
from app.cli.options import wants_json
from app.cli.plain import as_json as json_text
from app.cli.plain import safe
from app.cli.terminal import Screen
from app.errors import InvalidInput
from app.language.names import REF

_EXECUTION = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")


@click.command(short_help="Draw the graph of a file, a stored workflow or an execution.")
@click.argument("target", metavar="FILE|REF|EXECUTION")
@click.option("--mermaid", "form", flag_value="mermaid", help="As Mermaid, for Markdown.")
@click.option("--dot", "form", flag_value="dot", help="As DOT, for Graphviz.")
@click.option("--url", default="", help="The server instead of MUSTER_URL.")
@click.option(
    "--token", default="", help="A token instead of MUSTER_TOKEN (others on the machine may see it)."
)
@wants_json
def graph(target: str, form: str | None, url: str, token: str, as_json: bool) -> None:
    """Draw the graph of a workflow file, of a stored workflow by its `pack.name`, or of an execution by its id,
    then with the status of each task and where each edge stands. A file needs no server; `-` reads standard input."""
    if as_json and form is not None:
        raise click.UsageError("give --json, --mermaid or --dot, not two of them")
    if target == "-" or Path(target).exists():
        found = _of_file(target)
        text = load(f"app.compiler.drawing:{form}")(found) if form else ""
    else:
        path, server = _path(target), client(url, token)
        if form:
            found, text = {}, server.call("GET", path, query={"format": form}).body.decode("utf-8", "replace")
        else:
            found, text = server.get(path), ""
    if as_json:
        click.echo(json_text(found))
    elif form:
        click.echo(safe(text, keep="\n"), nl=False)
    else:
        _draw(found)


def _of_file(file: str) -> Mapping[str, Any]:
    """Raises InvalidWorkflow."""
    known = load("app.cli.folder:known_for")(file, ())
    name = "<stdin>" if file == "-" else file
    workflow = load("app.language.parse:load_or_raise")(read_text(file), name, known=known)
    found: Mapping[str, Any] = load("app.compiler.graph:shape")(load("app.compiler.build:build")(workflow))
    return found


def _path(target: str) -> str:
    if _EXECUTION.fullmatch(target):
        return api("workflow-executions", target, "graph")
    if re.match(REF, target):
        return api("workflows", target, "graph")
    raise InvalidInput(
        f"{target!r} is neither a file, nor the name of a workflow, nor the id of an execution",
        hint="give a path, `pack.name`, or an id of `muster execution list`",
    )


def _draw(found: Mapping[str, Any]) -> None:
    screen = Screen()
    head = [safe(str(found.get("workflow")))]
    if found.get("execution"):
        status = str(found.get("status"))
        head += [safe(str(found["execution"])), screen.status(safe(status), status)]
    screen.line("  ".join(head))
    for line in lanes.draw(found, screen.status):
        screen.line(line)
