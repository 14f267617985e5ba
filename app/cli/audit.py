"""`muster audit`: who did what, and what was refused."""

from __future__ import annotations

import click

from app.cli.client import api
from app.cli.connection import Call, calls_api
from app.cli.pages import newest
from app.cli.terminal import Screen, rows_of

_LIST = ("id", "at", "person", "action", "subject", "outcome", "detail")


@click.group(short_help="Look at the audit trail.")
def audit() -> None:
    """Look at the audit trail."""


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
