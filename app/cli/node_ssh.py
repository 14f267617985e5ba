"""`muster node add` and `trust`: machines that have only an SSH server."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

import click

from app.cli.client import api
from app.cli.connection import Call, calls_api
from app.cli.node import labels_of
from app.cli.plain import safe
from app.errors import InvalidInput, Unavailable

PATIENCE = 15.0
"""Seconds that `trust` waits for the gateway to see the host key of a node that was just added."""
_LOOK_EVERY = 0.3


@click.command("add", short_help="Add a machine that has only an SSH server.")
@click.argument("name")
@click.option(
    "--ssh", "address", required=True, metavar="USER@HOST[:PORT]", help="Where it is, and who logs in."
)
@click.option("--key", required=True, metavar="SECRET", help="The secret that holds the private key.")
@click.option(
    "--label", "labels", multiple=True, metavar="KEY=VALUE", help="A label of the node; may be repeated."
)
@click.option("--slots", type=click.IntRange(1, 64), help="Scripts that run at once; 4 if not given.")
@click.option(
    "--backend",
    type=click.Choice(["asyncssh", "openssh"]),
    help="openssh uses the program ssh with the site's configuration.",
)
@click.option("--workdir", metavar="DIR", help="Where jobs have their directories there.")
@click.option("--replace", is_flag=True, help="The node is known already and is reached in another way.")
@calls_api
def add(call: Call, name: str, address: str, key: str, labels: Sequence[str], **more: Any) -> None:
    """Add a machine that has only an SSH server. It gets work once its host key is trusted (`muster node trust`)."""
    body = {"name": name, "transport": "ssh", "address": address, "key": key, "labels": labels_of(labels)}
    given = {option: value for option, value in more.items() if value is not None}
    found = call.client.post(api("nodes"), {**body, **given})
    call.show(found, _added)


def _added(node: dict[str, Any]) -> str:
    name, ssh = safe(str(node.get("name"))), node.get("ssh") or {}
    place = f"{ssh.get('user')}@{node.get('address')}"
    told = f"added: {name} at {safe(place)}"
    if ssh.get("host_key"):
        return f"{told}, host key {safe(ssh['host_key'])}"
    return f"{told}\nnext, once its host key has been seen: muster node trust {name}"


@click.command("trust", short_help="Trust the host key of an SSH node.")
@click.argument("name")
@click.option(
    "--fingerprint", default="", metavar="SHA256:…", help="The one that it must be; nothing is asked."
)
@click.option("--yes", is_flag=True, help="Trust what it shows, whatever that is.")
@calls_api
def trust(call: Call, name: str, fingerprint: str, yes: bool) -> None:
    """Trust the host key that an SSH node shows. Its fingerprint is told, and on a terminal you are asked: compare it
    with what `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` prints on that machine."""
    node = _seen(call, name)
    ssh = node["ssh"]
    offered = str(ssh["offered_key"])
    if not fingerprint and not yes and offered != ssh.get("host_key"):
        _ask(name, ssh)
    found = call.client.post(api("nodes", name, "trust"), {"fingerprint": fingerprint or offered})
    call.show(found, lambda one: f"trusted: {safe(name)} with the host key {safe(one['ssh']['host_key'])}")


def _seen(call: Call, name: str) -> dict[str, Any]:
    """The node, once a host key of it was seen. Raises Unavailable where none is in time."""
    end = time.monotonic() + PATIENCE
    while True:
        node: dict[str, Any] = call.client.get(api("nodes", name))
        ssh = node.get("ssh")
        if not isinstance(ssh, dict):
            raise InvalidInput(f"{name} has a worker: no host key is asked of it", code="not-ssh")
        if ssh.get("offered_key"):
            return node
        if time.monotonic() > end:
            why = (node.get("breaker") or {}).get("error") or "nobody has looked yet"
            raise Unavailable(
                f"no host key of {name} was seen: {why}",
                hint="the gateway fetches it: `celery -A workers.remote worker`, which `muster up` starts by itself",
                code="no-host-key",
            )
        time.sleep(_LOOK_EVERY)


def _ask(name: str, ssh: dict[str, Any]) -> None:
    """Raises UsageError where there is nobody to ask, ClickException for a no."""
    offered, trusted = safe(ssh["offered_key"]), safe(ssh.get("host_key") or "")
    if not sys.stdin.isatty():
        raise click.UsageError(
            f"{name} shows the host key {offered}: give it with --fingerprint, or say --yes"
        )
    click.echo(f"{safe(name)} shows the host key {offered}", err=True)
    if trusted:
        click.secho(f"IT IS ANOTHER ONE THAN THAT WHICH IS TRUSTED, {trusted}", fg="red", err=True)
    if not click.confirm("trust it?", err=True):
        raise click.ClickException("it is not trusted; nothing was changed")
