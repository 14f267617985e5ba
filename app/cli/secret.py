"""`muster secret`: values that jobs get and nobody reads back."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from app.cli.client import api
from app.cli.connection import Call, calls_api
from app.cli.files import MOST_BYTES, read_text
from app.cli.loading import load
from app.cli.options import wants_json
from app.cli.pages import newest
from app.cli.plain import as_json as json_text
from app.cli.plain import safe
from app.cli.terminal import Screen, rows_of
from app.errors import InvalidInput

_LIST = ("name", "version", "users", "updated_by", "updated_at")


@click.group(short_help="Values that jobs get and nobody reads back.")
def secret() -> None:
    """Secrets, which workflows name as `kv.get_secret('name')`. There is no command that prints one."""


@secret.command("set")
@click.argument("name")
@click.option("--file", metavar="FILE", help="Take the value from a file, byte for byte; `-` is stdin.")
@click.option("--user", "users", multiple=True, metavar="LOGIN|ROLE", help="Who may use it; may be repeated.")
@calls_api
def set_(call: Call, name: str, file: str | None, users: Sequence[str]) -> None:
    """Set a secret, and who may use it: every operator if no --user is given.

    The value comes from --file, or from standard input (one line end at its end is left out), or is asked for. It is
    never an argument: those stand in the list of processes.
    """
    body = {"value": _value(file), "users": list(users)}
    found = call.client.call("PUT", api("secrets", name), body=body).data
    for warning in found.get("warnings") or ():
        click.echo(f"warning: {safe(str(warning))}", err=True)
    call.show(found, lambda one: f"set: {safe(name)} version {one.get('version')}")


def _value(file: str | None) -> str:
    if file is None and sys.stdin.isatty():
        return str(click.prompt("value", hide_input=True, confirmation_prompt=True, err=True))
    raw = read_text(file or "-")
    if len(raw) >= MOST_BYTES:
        raise InvalidInput("the value is too large", hint="a secret may have 32 kB")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        hint = "encode what is no text, for example as base64"
        raise InvalidInput("the value is not UTF-8", hint=hint, code="bad-encoding") from None
    return text if file is not None else text.removesuffix("\n").removesuffix("\r")


@secret.command("list")
@click.option("--limit", type=click.IntRange(1, 10_000), default=200, show_default=True, help="How many.")
@calls_api
def list_(call: Call, limit: int) -> None:
    """List secrets: names, versions, and who may use them. No values."""
    items, _ = newest(call.client, api("secrets"), limit)
    if call.json:
        call.show({"items": items}, str)
        return
    Screen().table(_LIST, rows_of([dict(one) for one in items], _LIST))


@secret.command("delete")
@click.argument("name")
@calls_api
def delete(call: Call, name: str) -> None:
    """Forget a secret. Jobs that name it fail from then on."""
    call.client.call("DELETE", api("secrets", name))
    call.show({"name": name, "deleted": True}, lambda one: f"deleted: {safe(name)}")


@secret.command("rotate")
@wants_json
def rotate(as_json: bool) -> int:
    """Put a new key in front of the file of keys and encrypt every secret with it.

    It runs on the control side, with the settings that control workers have. If it was stopped, run it again: it goes
    on, and adds no other key. With several control machines, copy the file to them before they encrypt anything.
    """
    done: Mapping[str, Any] = load("app.cli.rotate:rotate")()
    click.echo(json_text(done) if as_json else _told(done))
    return 1 if done["left"] else 0


def _told(done: Mapping[str, Any]) -> str:
    lines = [
        f"key {done['key']}: {'added' if done['added'] else 'was there, the rotation before is completed'}",
        f"encrypted anew: {done['rows']}",
    ]
    if done["unreadable"]:
        lines.append(f"no key of the list opens {done['unreadable']}: bring back the key that they need")
    if done["left"] > done["unreadable"]:
        lines.append("something was written with another key meanwhile: run it again")
    if done["idle"]:
        where = done["file"] or "MUSTER_SECRET_KEYS"
        lines.append(
            f"no longer needed, but for backups of the database: {', '.join(done['idle'])} in {where}"
        )
    return "\n".join(lines)
