"""`muster node enroll`: makes this machine a node."""

from __future__ import annotations

import time
from pathlib import Path

import click

from app.cli import own_node
from app.cli.client import Client, api
from app.cli.options import wants_json
from app.cli.own_node import OneTimeToken
from app.cli.plain import as_json as json_text
from app.cli.plain import safe
from app.errors import NotAllowed, Unavailable
from app.transport.keys import Public


@click.command(short_help="Make this machine a node: keys, proof, identity.")
@click.argument("name")
@click.option("--token", default="", help="The one-time token of `muster node token NAME`.")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    help="A file with what `muster node token NAME --json` printed, instead.",
)
@click.option("--url", required=True, help="The API of the control side.")
@click.option(
    "--dir", "directory", required=True, type=click.Path(path_type=Path), help="The node's directory."
)
@click.option(
    "--control", default="", help="The control keys' fingerprint, as `muster node token` printed it."
)
@click.option("--if-needed", is_flag=True, help="Do nothing where DIR holds this node already.")
@wants_json
def enroll(
    name: str,
    token: str,
    token_file: Path | None,
    url: str,
    directory: Path,
    control: str,
    if_needed: bool,
    as_json: bool,
) -> None:
    """Make this machine a node: keys are made in DIR, the server is shown a proof that we hold them, and what
    it answers is pinned there. The worker then starts with MUSTER_NODE=NAME and MUSTER_NODE_DIR=DIR."""
    if bool(token) == (token_file is not None):
        raise click.UsageError("give one of --token and --token-file")
    if if_needed and own_node.is_enrolled(directory, name):
        told = {"node": name, "enrolled": "already", "directory": str(directory)}
        click.echo(json_text(told) if as_json else f"enrolled already: {safe(name)} in {directory}")
        return
    given = one_time_token(name, token, token_file, control)
    told = become(given, Client(url.rstrip("/")), directory)
    if as_json:
        click.echo(json_text(told))
        return
    click.echo(
        f"enrolled: {safe(name)} in installation {safe(told['installation'])}, control keys {told['control']}"
    )
    click.echo(f"start it: MUSTER_NODE={name} MUSTER_NODE_DIR={directory} celery -A workers.node worker")


def one_time_token(name: str, token: str, token_file: Path | None, control: str) -> OneTimeToken:
    """The token as typed, or the one in the file. Raises UsageError, NotFound, InvalidInput."""
    if token_file is None:
        return OneTimeToken(name, token, control)
    given = own_node.read_token(token_file, name)
    if control and given.control != control:
        raise click.UsageError(f"--control is not the fingerprint in {token_file}")
    return given


def become(given: OneTimeToken, client: Client, directory: Path) -> dict[str, str]:
    """Keys, proof, and what the server answers, pinned. Raises NotAllowed for other control keys than named."""
    name = given.node
    pair = own_node.keys(directory)
    # The installation's id is not known yet; the token binds the proof to it.
    body = {
        "node": name,
        "token": given.token,
        "public_keys": pair.public(),
        "proof": pair.prove("", given.token, name, now=time.time()),
    }
    found = client.post(api("nodes", "enroll"), body)
    try:
        installation, keys = str(found["installation"]), found["control_keys"]
        fingerprint = Public.from_json(keys).fingerprint
    except (KeyError, TypeError):
        raise Unavailable(f"{client.url} did not answer as a Muster API", hint="check --url") from None
    if given.control and fingerprint != given.control:
        raise NotAllowed(
            f"the server's control keys have the fingerprint {fingerprint}, not {given.control}",
            hint="something stands between this machine and the server; nothing was pinned: remove the node "
            "and ask for a new token",
            code="other-control",
        )
    own_node.write(directory, name, installation, keys)
    return {
        "node": name,
        "installation": installation,
        "control": fingerprint,
        "directory": str(directory),
    }
