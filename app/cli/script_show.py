"""`muster script list`, `show`, `versions` and `diff`: saved scripts looked at."""

from __future__ import annotations

import sys
from typing import Any

import click

from app.cli.client import api
from app.cli.connection import Call, calls_api
from app.cli.pages import newest
from app.cli.plain import as_json, safe
from app.cli.script_save import SCRIPTS
from app.cli.terminal import Screen, rows_of

_LIST = ("name", "shell", "version", "tags", "requires_approval", "updated_by", "updated_at", "description")
_VERSIONS = ("version", "shell", "characters", "author", "created_at", "digest")
_PARAMETERS = ("name", "type", "required", "default", "description")


@click.command("list")
@click.option("--prefix", default="", help="Only names that begin with this.")
@click.option("--tag", help="Only those with this tag.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=200, show_default=True, help="How many.")
@calls_api
def list_(call: Call, prefix: str, tag: str | None, limit: int) -> None:
    """List the saved scripts."""
    items, _ = newest(call.client, api(*SCRIPTS), limit, prefix=prefix or None, tag=tag)
    _table(call, items, _LIST)


@click.command("show")
@click.argument("name")
@click.option("--version", type=click.IntRange(1), help="Another version than the newest.")
@click.option("--source", is_flag=True, help="Print the body alone.")
@calls_api
def show(call: Call, name: str, version: int | None, source: bool) -> None:
    """Show a saved script: what it takes, how it is run, its body."""
    more = () if version is None else ("versions", str(version))
    found = call.client.get(api(*SCRIPTS, name, *more))
    if call.json:
        call.show(found, str)
        return
    body = str(found.get("body") or "")
    if source:
        keep = "\n\t" if sys.stdout.isatty() else "\n\t\r"
        click.echo(safe(body, keep=keep), nl=False)
        return
    screen = Screen()
    rest = {key: value for key, value in found.items() if key not in ("body", "parameters")}
    screen.facts({key: value for key, value in rest.items() if value not in (None, [], {}, "")})
    if parameters := found.get("parameters"):
        screen.line("")
        screen.table(_PARAMETERS, rows_of([dict(one) for one in parameters], _PARAMETERS))
    screen.line("")
    screen.line(safe(body, keep="\n\t").rstrip("\n"))


@click.command("versions")
@click.argument("name")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="How many.")
@calls_api
def versions(call: Call, name: str, limit: int) -> None:
    """List the versions of a saved script, the newest first."""
    items, _ = newest(call.client, api(*SCRIPTS, name, "versions"), limit)
    _table(call, items, _VERSIONS)


@click.command("diff")
@click.argument("name")
@click.argument("old", type=click.IntRange(1))
@click.argument("new", type=click.IntRange(1), required=False)
@calls_api
def diff(call: Call, name: str, old: int, new: int | None) -> None:
    """Show what changed from one version to another, or to the newest."""
    if new is None:
        new = int(call.client.get(api(*SCRIPTS, name))["version"])
    found = call.client.get(api(*SCRIPTS, name, "versions", str(old), "diff", str(new)))
    if call.json:
        call.show(found, str)
        return
    screen = Screen()
    for field, change in (found.get("fields") or {}).items():
        screen.line(safe(f"{field}: {as_json(change.get('old'))} -> {as_json(change.get('new'))}"))
    if text := str(found.get("diff") or ""):
        screen.line(safe(text, keep="\n\t"))
    if not found.get("changed"):
        screen.line(f"versions {old} and {new} run the same")


def _table(call: Call, items: Any, names: tuple[str, ...]) -> None:
    if call.json:
        call.show({"items": items}, str)
        return
    Screen().table(names, rows_of([dict(one) for one in items], names))
