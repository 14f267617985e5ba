"""Which server a command talks to, and how it prints: what every verb of the API shares."""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from app import settings
from app.cli.client import Client
from app.cli.options import wants_json
from app.cli.plain import as_json
from app.errors import InvalidInput

CLIENT_FILE = "client.env"


@dataclass(frozen=True, slots=True)
class Call:
    """What a verb is handed: the client, and whether its answer is wanted as JSON."""

    client: Client
    json: bool

    def show(self, value: Any, text: Callable[[Any], str]) -> None:
        """Prints the value as JSON, or as `text` makes it."""
        click.echo(as_json(value) if self.json else text(value))


def calls_api(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --url, --token and --json, and hands the verb a `Call` first."""

    @wants_json
    @click.option(
        "--token", default="", help="A token instead of MUSTER_TOKEN (others on the machine may see it)."
    )
    @click.option("--url", default="", help="The server instead of MUSTER_URL.")
    @functools.wraps(command)
    def with_call(url: str, token: str, as_json: bool, **options: Any) -> Any:
        return command(Call(client(url, token), as_json), **options)

    return with_call


def client(url: str = "", token: str = "") -> Client:
    """The client for these, else for the environment's, else for the fleet that `muster up` runs from here.

    Raises InvalidInput where no server is named.
    """
    given = settings.from_environment()
    url, token = url or given.url, token or given.token
    if not url and not token:
        # Both or none: the environment's token must not go to a URL that some directory names.
        url, token = read_client_file(Path(given.data_dir) / CLIENT_FILE)
    if not url:
        raise InvalidInput("no server is named", hint=_whom(Path(given.data_dir)), code="no-server")
    return Client(url.rstrip("/"), token)


def _whom(directory: Path) -> str:
    """What to do where no server is named; `directory` is that of the fleet, if one runs from here."""
    here, _ = read_client_file(directory / CLIENT_FILE)
    if here:
        return f"a token goes only where you say: add --url {here}, or set MUSTER_URL"
    return (
        "start one with `muster up` and call this from the same directory, or set MUSTER_URL and "
        "MUSTER_TOKEN (`muster up` writes both to client.env)"
    )


def read_client_file(path: Path) -> tuple[str, str]:
    """URL and token from a file that `muster up` wrote; both empty unless it is ours alone."""
    values = read_ours(path)
    return values.get("MUSTER_URL", ""), values.get("MUSTER_TOKEN", "")


def read_ours(path: Path) -> dict[str, str]:
    """The NAME=VALUE lines of a file; none of one that is not ours alone."""
    try:
        with path.open(encoding="utf-8") as file:
            found = os.fstat(file.fileno())
            text = file.read(4096)
    except (OSError, UnicodeDecodeError):
        return {}
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        return {}
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
