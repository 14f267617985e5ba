"""`muster script list`, `show`, `versions` and `diff`: saved scripts looked at."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import click

from app.cli.client import api
from app.cli.connection import Call, calls_api
from app.cli.pages import newest
from app.cli.plain import safe
from app.cli.script_save import SCRIPTS
from app.cli.terminal import Screen, rows_of

_LIST = ("name", "shell", "version", "tags", "requires_approval", "updated_by", "updated_at", "description")
_VERSIONS = ("version", "shell", "characters", "author", "created_at", "digest")
_PARAMETERS = ("name", "type", "required", "default", "limits", "description")


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
        screen.table(_PARAMETERS, rows_of([_parameter(one) for one in parameters], _PARAMETERS))
    screen.line("")
    screen.line(safe(body, keep="\n\t").rstrip("\n"))


def _parameter(one: Mapping[str, Any]) -> dict[str, Any]:
    """A parameter for a table: its default as it would be typed, and what its values are held to."""
    default = one.get("default")
    limits = [f"{name} {one[name]}" for name in ("min", "max", "pattern") if one.get(name) is not None]
    if choices := one.get("choices"):
        limits.append(f"one of {' '.join(_typed(choice) for choice in choices)}")
    return {**one, "default": None if default is None else _typed(default), "limits": ", ".join(limits)}


def _typed(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


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
        for line in _change(field, change.get("old"), change.get("new")):
            screen.line(safe(line))
    if text := str(found.get("diff") or ""):
        screen.line(safe(text, keep="\n\t"))
    if not found.get("changed"):
        screen.line(f"versions {old} and {new} run the same")


def _change(field: str, old: Any, new: Any) -> Iterator[str]:
    """What became of a field: of parameters those that are other ones, each on a line of its own."""
    if not (isinstance(old, list) and isinstance(new, list)):
        yield f"{field}: {json.dumps(old)} -> {json.dumps(new)}"
        return
    yield f"{field}:"
    yield from (f"- {json.dumps(one)}" for one in old if one not in new)
    yield from (f"+ {json.dumps(one)}" for one in new if one not in old)
    if sorted(map(json.dumps, old)) == sorted(map(json.dumps, new)):
        yield "  the same ones in another order"


def _table(call: Call, items: Any, names: tuple[str, ...]) -> None:
    if call.json:
        call.show({"items": items}, str)
        return
    Screen().table(names, rows_of([dict(one) for one in items], names))
