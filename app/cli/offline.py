"""What needs no server and no compiler: validate, schema."""

from __future__ import annotations

from collections.abc import Sequence

import click

from app.cli.options import knows_packs, wants_json
from app.cli.plain import as_json as json_text
from app.cli.validating import check
from app.language import pack_tables
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
@knows_packs
@wants_json
def validate(files: Sequence[str], form: str, folders: Sequence[str], as_json: bool) -> int:
    """Check workflow files: every problem with file, line, column and a way out. `-` reads standard input.

    A file of a pack knows that pack and those beside it.
    Exits with 2 if any file has an error; warnings alone do not count.
    """
    return check(files, "json" if as_json else form, folders)


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
