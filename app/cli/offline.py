"""What needs no server and no compiler: validate, schema."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from app.cli import folder
from app.cli.files import read_text
from app.cli.options import wants_json
from app.cli.plain import as_json as json_text
from app.cli.plain import safe
from app.language import pack_tables, parse, problems
from app.language.schema import workflow_schema


@click.command(short_help="Check workflow files; nothing is sent anywhere.")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "github"]),
    default="text",
    help="How problems are told.",
)
@folder.knows_packs
@wants_json
def validate(files: Sequence[str], form: str, folders: Sequence[str], as_json: bool) -> int:
    """Check workflow files: every problem with file, line, column and a way out. `-` reads standard input.

    A file of a pack knows that pack and those beside it.
    Exits with 2 if any file has an error; warnings alone do not count.
    """
    form = "json" if as_json else form
    shown: list[dict[str, Any]] = []
    failed = False
    for file in files:
        known = folder.known_for(file, folders)
        loaded = parse.load(read_text(file), "<stdin>" if file == "-" else file, known=known)
        failed = failed or loaded.workflow is None
        if form == "json":
            shown.append(_told(file, loaded))
        elif form == "github" and loaded.problems:
            click.echo(problems.render_github(loaded.problems))
        elif form == "text":
            _tell(file, loaded)
    if form == "json":
        click.echo(json_text({"ok": not failed, "files": shown}))
    return 2 if failed else 0


def _told(file: str, loaded: parse.Loaded) -> dict[str, Any]:
    found = [problems.as_json(problem) for problem in loaded.problems]
    ref = loaded.workflow.ref if loaded.workflow else None
    return {"file": file, "ok": loaded.workflow is not None, "ref": ref, "problems": found}


def _tell(file: str, loaded: parse.Loaded) -> None:
    if loaded.problems:
        click.echo(safe(problems.render_text(loaded.problems), keep="\n"))
    if loaded.workflow is not None:
        top = (*loaded.workflow.tasks, *loaded.workflow.finally_)
        count = len(top) + sum(len(task.tasks) for task in top)
        click.echo(f"{safe(file)}: ok ({loaded.workflow.ref}, {count} {'task' if count == 1 else 'tasks'})")


@click.command(short_help="Print the JSON Schema of workflow files, for editors.")
@click.option(
    "--of",
    "what",
    type=click.Choice(["workflow", "pack", "config", "action"]),
    default="workflow",
    show_default=True,
    help="Of a workflow, or of pack.yaml, config.yaml or an action of a pack.",
)
@wants_json
def schema(what: str, as_json: bool) -> None:
    """Print the JSON Schema of workflow files. Editors check and complete with it while you type."""
    click.echo(json_text(workflow_schema() if what == "workflow" else pack_tables.schemas()[what]))
