"""`muster kv`: values that every workflow may read."""

from __future__ import annotations

import json
from typing import Any

import click

from app.cli.client import api
from app.cli.connection import Call, calls_api
from app.cli.files import read_text
from app.cli.pages import newest
from app.cli.plain import as_json, safe
from app.cli.terminal import Screen, rows_of
from app.errors import InvalidInput

_LIST = ("key", "revision", "updated_by", "updated_at", "expires_at", "value")


@click.group(short_help="Values under keys, for workflows to read.")
def kv() -> None:
    """Values under keys, which workflows read as `kv.get('key')`. What nobody may see is for `muster secret`."""


@kv.command("list")
@click.option("--prefix", default="", help="Only keys that begin with this.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=200, show_default=True, help="How many.")
@calls_api
def list_(call: Call, prefix: str, limit: int) -> None:
    """List keys with their values."""
    items, _ = newest(call.client, api("kv"), limit, prefix=prefix or None)
    if call.json:
        call.show({"items": items}, str)
        return
    Screen().table(_LIST, rows_of([dict(one) for one in items], _LIST))


@kv.command("get")
@click.argument("key")
@calls_api
def get(call: Call, key: str) -> None:
    """Print what is under a key: a text as it is, anything else as JSON."""
    found = call.client.get(api("kv", key))
    call.show(found, lambda one: _text(one.get("value")))


def _text(value: Any) -> str:
    return safe(value, keep="\n") if isinstance(value, str) else as_json(value)


@kv.command("set")
@click.argument("key")
@click.argument("value", required=False)
@click.option("--file", metavar="FILE", help="Take the value from a file; `-` is stdin.")
@click.option("--text", "is_text", is_flag=True, help="The value is a text, though it could be read as JSON.")
@click.option("--expires-in", type=float, metavar="SECONDS", help="Forget it after so many seconds.")
@calls_api
def set_(
    call: Call, key: str, value: str | None, file: str | None, is_text: bool, expires_in: float | None
) -> None:
    """Keep VALUE under KEY: JSON where it is JSON, otherwise a text. VALUE `-` is standard input."""
    if (value is None) == (file is None):
        raise InvalidInput("give either VALUE or --file", hint="muster kv set app/port 8080")
    read = file or ("-" if value == "-" else None)
    text = _read(read) if read is not None else str(value)
    body = {"value": text if is_text else _parsed(text), "expires_in": expires_in}
    found = call.client.call("PUT", api("kv", key), body=body).data
    call.show(found, lambda one: f"set: {safe(key)} revision {one.get('revision')}")


def _read(file: str) -> str:
    try:
        return read_text(file).decode()
    except UnicodeDecodeError:
        raise InvalidInput(
            f"{file} is not UTF-8", hint="a value is text or JSON", code="bad-encoding"
        ) from None


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return text


def _no_constant(name: str) -> None:
    raise ValueError(name)


@kv.command("delete")
@click.argument("key")
@calls_api
def delete(call: Call, key: str) -> None:
    """Forget what is under a key."""
    call.client.call("DELETE", api("kv", key))
    call.show({"key": key, "deleted": True}, lambda one: f"deleted: {safe(key)}")
