"""`muster workflow`: what is stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from app.cli import folder
from app.cli import run as running
from app.cli.client import api
from app.cli.connection import Call, calls_api
from app.cli.failures import ApiProblem
from app.cli.files import read_text
from app.cli.given import read_parameters
from app.cli.plain import safe
from app.cli.terminal import Screen, rows_of
from app.language import parse

_LIST = ("ref", "version", "revision", "label", "updated_at")
_VERSIONS = ("revision", "version", "author", "created_at")


@click.group(short_help="Store, show and execute workflows.")
def workflow() -> None:
    """Store, show and execute workflows. A workflow is named `pack.name`."""


@workflow.command("put")
@click.argument("file")
@calls_api
def put(call: Call, file: str) -> None:
    """Store a workflow file as a new revision; an unchanged one makes none."""
    raw = read_text(file)
    known = folder.known_for(file, ())
    found = parse.load_or_raise(raw, "<stdin>" if file == "-" else file, known=known)
    text = raw.decode("utf-8")
    path = api("packs", found.ref.split(".")[0], "workflows")
    try:
        answer = call.client.call("POST", path, body={"definition": text})
    except ApiProblem as error:
        error.file, error.source = file, text
        raise
    word = "stored" if answer.status == 201 else "unchanged"
    call.show(
        answer.data,
        lambda one: (
            f"{word}: {safe(str(one.get('ref')))} version {safe(str(one.get('version')))} "
            f"revision {one.get('revision')}"
        ),
    )


@workflow.command("list")
@click.option("--pack", help="Only this pack.")
@calls_api
def list_(call: Call, pack: str | None) -> None:
    """List the stored workflows."""
    path = api("packs", pack, "workflows") if pack else api("workflows")
    _table(call, call.client.items(path), _LIST)


@workflow.command("show")
@click.argument("ref")
@click.option("--revision", type=int, help="Another revision than the newest.")
@click.option("--source", is_flag=True, help="Print the YAML alone.")
@calls_api
def show(call: Call, ref: str, revision: int | None, source: bool) -> None:
    """Show a stored workflow."""
    found = call.client.get(api("workflows", ref), revision=revision)
    text = str(found.get("source") or "")
    if source and not call.json:
        click.echo(safe(text, keep="\n"), nl=not text.endswith("\n"))
        return
    if call.json:
        call.show(found, str)
        return
    screen = Screen()
    screen.facts(
        {name: value for name, value in found.items() if name not in ("source", "parameters", "output")}
    )
    screen.line("")
    screen.line(safe(text, keep="\n").rstrip("\n"))


@workflow.command("delete")
@click.argument("ref")
@calls_api
def delete(call: Call, ref: str) -> None:
    """Delete a stored workflow with all its revisions; refused while it is executed."""
    call.client.call("DELETE", api("workflows", ref))
    call.show({"ref": ref, "deleted": True}, lambda one: f"deleted: {safe(ref)}")


@workflow.command("versions")
@click.argument("ref")
@calls_api
def versions(call: Call, ref: str) -> None:
    """List the revisions of a stored workflow."""
    _table(call, call.client.items(api("workflows", ref, "versions")), _VERSIONS)


@workflow.command("execute")
@click.argument("ref")
@click.option("--version", help="A version; the newest if not given.")
@click.option("--revision", type=int, help="A revision instead of a version.")
@running.execution_options
@calls_api
def execute(
    call: Call,
    ref: str,
    version: str | None,
    revision: int | None,
    pairs: Sequence[str],
    file: str | None,
    **options: Any,
) -> int:
    """Execute a stored workflow and follow it live, as `muster run REF` does."""
    if version is not None and revision is not None:
        raise click.UsageError("give --version or --revision, not both")
    parameters = read_parameters(pairs, file)
    found = running.post_ref(call.client, ref, parameters, version if revision is None else revision)
    return running.after_start(call, found, options["following"], options["timeout"])


def _table(call: Call, items: list[dict[str, Any]], names: Sequence[str]) -> None:
    if call.json:
        call.show({"items": items}, str)
        return
    Screen().table(names, rows_of(items, names))
