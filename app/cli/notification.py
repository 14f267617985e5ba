"""`muster notification`: what people outside were told by webhook and e-mail, or could not be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from app.cli.client import api
from app.cli.connection import Call, calls_api
from app.cli.pages import newest
from app.cli.terminal import Screen, rows_of

_LIST = ("id", "kind", "about", "status", "attempts", "created_at", "sent_at", "error")


@click.group(short_help="See what people outside were told.")
def notification() -> None:
    """See what people outside were told by webhook and e-mail. For administrators."""


@notification.command("list")
@click.option(
    "--status",
    type=click.Choice(["pending", "sent", "failed", "unwanted"]),
    help="Only those; failed: given up, unwanted: there was nowhere to send them.",
)
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="How many, newest first."
)
@calls_api
def list_(call: Call, status: str | None, limit: int) -> None:
    """List what people were told, the newest first, and why it could not be sent."""
    items, cursor = newest(call.client, api("automation", "notifications"), limit, status=status)
    if call.json:
        call.show({"items": items, "next_cursor": cursor}, str)
        return
    Screen().table(_LIST, rows_of([{**one, "about": _about(one)} for one in items], _LIST))


def _about(one: Mapping[str, Any]) -> Any:
    """What it tells of: an approval, a schedule by its name, or how many questions more an execution asks."""
    data = one.get("data") or {}
    if data.get("more"):
        return f"{data['more']} more of {data.get('execution')}"
    return data.get("approval") or data.get("name") or one.get("subject")
