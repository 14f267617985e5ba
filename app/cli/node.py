"""`muster node`: the machines of the fleet."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import click

from app.cli.client import api
from app.cli.connection import Call, calls_api
from app.cli.lazy import LazyGroup
from app.cli.plain import safe
from app.cli.terminal import Screen
from app.errors import InvalidInput

_LIST = (
    "name",
    "online",
    "state",
    "transport",
    "slots",
    "free",
    "open_jobs",
    "labels",
    "address",
    "last_seen",
)

COMMANDS = {
    "token": ("app.cli.node:token", "Make a one-time token that enrols one node."),
    "enroll": ("app.cli.enroll:enroll", "Make this machine a node: keys, proof, identity."),
    "start": ("app.cli.node_start:start", "Run this machine's node until Ctrl-C."),
    "add": ("app.cli.node_ssh:add", "Add a machine that has only an SSH server."),
    "trust": ("app.cli.node_ssh:trust", "Trust the host key of an SSH node."),
    "list": ("app.cli.node:list_", "List the nodes."),
    "show": ("app.cli.node:show", "Show one node."),
    "drain": ("app.cli.node:drain", "Give a node nothing new; what runs goes on."),
    "undrain": ("app.cli.node:undrain", "Give a drained node work again."),
    "remove": ("app.cli.node:remove", "Remove a node; its keys are no longer trusted."),
}


@click.group(cls=LazyGroup, lazy=COMMANDS, short_help="Enrol nodes, list, drain and remove them.")
def node() -> None:
    """Enrol nodes, list, drain and remove them."""


@click.command("token", short_help="Make a one-time token that enrols one node.")
@click.argument("name")
@click.option(
    "--label", "labels", multiple=True, metavar="KEY=VALUE", help="A label of the node; may be repeated."
)
@click.option(
    "--lifetime", type=click.IntRange(1), default=900, show_default=True, help="Seconds that it is valid."
)
@click.option("--replace", is_flag=True, help="The node is known already and gets new keys.")
@calls_api
def token(call: Call, name: str, labels: Sequence[str], lifetime: int, replace: bool) -> None:
    """Make a one-time token that enrols one node; shown once. Prints the command to type on that machine."""
    body = {"node": name, "labels": labels_of(labels), "lifetime": lifetime, "replace": replace}
    found = call.client.post(api("nodes", "tokens"), body)
    call.show(found, lambda one: _told(call.client.url, one))


def _told(url: str, found: dict[str, Any]) -> str:
    words = [
        "muster",
        "node",
        "enroll",
        str(found.get("node")),
        "--url",
        url,
        "--token",
        str(found.get("token")),
    ]
    if found.get("control"):
        words += ["--control", str(found["control"])]
    command = safe(shlex.join([*words, "--dir", f"/var/lib/muster-node/{found.get('node')}"]))
    return f"on the node, before {safe(str(found.get('expires_at')))}:\n\n  {command}\n"


def labels_of(pairs: Sequence[str]) -> dict[str, str]:
    """KEY=VALUE pairs as a mapping. Raises InvalidInput for one that is none."""
    labels = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise InvalidInput(f"--label {pair!r} is not KEY=VALUE", hint="for example --label role=web")
        labels[key] = value
    return labels


@click.command("list", short_help="List the nodes.")
@calls_api
def list_(call: Call) -> None:
    """List the nodes: whether they are online, what they hold, when they were last heard of; and how the connection to
    those over SSH does."""
    items = call.client.items(api("nodes"))
    if call.json:
        call.show({"items": items}, str)
        return
    has_ssh = any(one.get("transport") == "ssh" for one in items)
    names = (*_LIST, "breaker") if has_ssh else _LIST
    Screen().table(names, [[_cell(one, name) for name in names] for one in items])


def _cell(node: dict[str, Any], name: str) -> Any:
    if name == "online":
        return "online" if node.get("online") else "offline"
    if name == "breaker":
        return _breaker(node)
    return node.get(name)


def _breaker(node: dict[str, Any]) -> str:
    """One word for the connection of an SSH node."""
    found, ssh = node.get("breaker"), node.get("ssh")
    if not isinstance(found, dict) or not isinstance(ssh, dict):
        return ""
    if not ssh.get("host_key"):
        return "untrusted"
    is_well = found.get("state") != "closed" or not found.get("error")
    return str(found.get("state")) if is_well else "failing"


@click.command("show", short_help="Show one node.")
@click.argument("name")
@calls_api
def show(call: Call, name: str) -> None:
    """Show one node."""
    found = call.client.get(api("nodes", name))
    if call.json:
        call.show(found, str)
    else:
        Screen().facts(found)


@click.command("drain", short_help="Give a node nothing new; what runs goes on.")
@click.argument("name")
@calls_api
def drain(call: Call, name: str) -> None:
    """Give a node nothing new; what runs there goes on."""
    _drain(call, name, True)


@click.command("undrain", short_help="Give a drained node work again.")
@click.argument("name")
@calls_api
def undrain(call: Call, name: str) -> None:
    """Give a drained node work again."""
    _drain(call, name, False)


def _drain(call: Call, name: str, wanted: bool) -> None:
    found = call.client.post(api("nodes", name, "drain"), {"drain": wanted})
    word = "draining" if wanted else "active"
    call.show(found or {"name": name, "state": word}, lambda one: f"node={safe(name)} state={word}")


@click.command("remove", short_help="Remove a node; its keys are no longer trusted.")
@click.argument("name")
@click.option("--force", is_flag=True, help="Though it holds jobs: nobody will know how they end.")
@calls_api
def remove(call: Call, name: str, force: bool) -> None:
    """Remove a node; its keys are no longer trusted. Refused while it holds jobs, unless --force."""
    call.client.call("DELETE", api("nodes", name), query={"force": 1 if force else None})
    call.show({"name": name, "removed": True}, lambda one: f"removed: {safe(name)}")
