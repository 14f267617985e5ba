"""`muster node enroll`: makes this machine a node."""

from __future__ import annotations

import time
from pathlib import Path

import click

from app.cli import own_node
from app.cli.client import Client, api
from app.cli.options import wants_json
from app.cli.plain import as_json as json_text
from app.cli.plain import safe
from app.errors import NotAllowed, Unavailable
from app.transport.keys import Public


@click.command(short_help="Make this machine a node: keys, proof, identity.")
@click.argument("name")
@click.option("--token", required=True, help="The one-time token of `muster node token NAME`.")
@click.option("--url", required=True, help="The API of the control side.")
@click.option(
    "--dir", "directory", required=True, type=click.Path(path_type=Path), help="The node's directory."
)
@click.option(
    "--control", default="", help="The control keys' fingerprint, as `muster node token` printed it."
)
@wants_json
def enroll(name: str, token: str, url: str, directory: Path, control: str, as_json: bool) -> None:
    """Make this machine a node: keys are made in DIR, the server is shown a proof that we hold them, and what
    it answers is pinned there. The worker then starts with MUSTER_NODE=NAME and MUSTER_NODE_DIR=DIR."""
    pair = own_node.keys(directory)
    # The installation's id is not known yet; the token binds the proof to it.
    body = {
        "node": name,
        "token": token,
        "public_keys": pair.public(),
        "proof": pair.prove("", token, name, now=time.time()),
    }
    found = Client(url.rstrip("/")).post(api("nodes", "enroll"), body)
    try:
        installation, keys = str(found["installation"]), found["control_keys"]
        fingerprint = Public.from_json(keys).fingerprint
    except (KeyError, TypeError):
        raise Unavailable(f"{url} did not answer as a Muster API", hint="check --url") from None
    if control and fingerprint != control:
        raise NotAllowed(
            f"the server's control keys have the fingerprint {fingerprint}, not {control}",
            hint="something stands between this machine and the server; nothing was pinned: remove the node "
            "and ask for a new token",
            code="other-control",
        )
    own_node.write(directory, name, installation, keys)
    told = {"node": name, "installation": installation, "control": fingerprint, "directory": str(directory)}
    if as_json:
        click.echo(json_text(told))
        return
    click.echo(f"enrolled: {safe(name)} in installation {safe(installation)}, control keys {fingerprint}")
    click.echo(f"start it: MUSTER_NODE={name} MUSTER_NODE_DIR={directory} celery -A workers.node worker")
