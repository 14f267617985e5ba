"""`muster audit`: who did what, what was refused, and whether that is still as it was written."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import click

from app.cli.client import api
from app.cli.connection import Call, calls_api
from app.cli.pages import newest
from app.cli.plain import safe
from app.cli.terminal import Screen, rows_of
from app.errors import InvalidInput

_LIST = ("id", "at", "person", "action", "subject", "outcome", "detail")


@click.group(short_help="Look at the audit trail, verify and export it.")
def audit() -> None:
    """Look at the audit trail, verify and export it. For administrators."""


@audit.command("list")
@click.option("--person", help="Only what this person did.")
@click.option("--action", help="Only this action, such as execution.submit.")
@click.option("--subject", help="Only what was done to this thing: an execution's id, a node, a login.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="How many, newest first."
)
@calls_api
def list_(call: Call, person: str | None, action: str | None, subject: str | None, limit: int) -> None:
    """List who did what, the newest first; refusals too. For administrators."""
    items, cursor = newest(call.client, api("audit"), limit, person=person, action=action, subject=subject)
    if call.json:
        call.show({"items": items, "next_cursor": cursor}, str)
    else:
        Screen().table(_LIST, rows_of(items, _LIST))


@audit.command("verify")
@click.option(
    "--head", metavar="SEQ:HASH", help="A head that was noted earlier: it must be in the chain still."
)
@calls_api
def verify(call: Call, head: str | None) -> int:
    """Check that the audit trail is as it was sealed. Exits with 0 if it is, with 1 if it is not.

    Whoever can write the database can also seal anew what they changed; that shows only against a head that was
    noted elsewhere: print it, keep it, give it with --head.
    """
    if head is not None and not re.fullmatch(r"[0-9]{1,15}:[0-9a-f]{64}", head):
        raise InvalidInput(f"--head {head!r} is not SEQ:HASH", hint="as `muster audit verify` prints it")
    looked, cursor = 0, None
    while True:
        found = call.client.get(api("audit", "verify"), head=head, cursor=cursor)
        looked += int(found["entries"])
        cursor = found["next_cursor"]
        if cursor is None:
            break
    call.show({**found, "entries": looked}, _verdict)
    return 0 if found["ok"] else 1


def _verdict(found: Mapping[str, Any]) -> str:
    head, anchor, wrong = found["head"], found["anchor"], found["first_wrong"]
    lines = [
        f"{'ok' if found['ok'] else 'NOT OK'}: {found['entries']} of {found['sealed']} sealed entries verified"
    ]
    if wrong is not None:
        where = "an entry" if wrong["seq"] is None else f"entry {wrong['seq']}"
        row = "" if wrong["id"] is None else f" (row {wrong['id']})"
        lines.append(f"first wrong: {where}{row}: {wrong['what']}")
    if found["unsealed"]:
        lines.append(f"not sealed yet: {found['unsealed']}")
    if anchor["seq"]:
        lines.append(f"pruned up to: {anchor['seq']}:{anchor['hash']}")
    return safe("\n".join([*lines, f"head: {head['seq']}:{head['hash']}"]), keep="\n")


@audit.command("export")
@click.option("--after", type=click.IntRange(0), default=0, help="Only entries with a number above this.")
@calls_api
def export(call: Call, after: int) -> None:
    """Print sealed entries in the order of the chain, each as a line of JSON with its number and hash."""
    cursor = None
    while True:
        page = call.client.get(api("audit", "sealed"), after=after, limit=200, cursor=cursor)
        for one in page["items"]:
            click.echo(json.dumps(one))
        cursor = page["next_cursor"]
        if cursor is None:
            return
