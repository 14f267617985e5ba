"""`muster prune`: delete what is no longer to be kept."""

from __future__ import annotations

import click

from app.cli.client import api
from app.cli.connection import Call, calls_api

DAY = 86400.0


@click.command("prune")
@click.option(
    "--older-than",
    "days",
    metavar="DAYS",
    type=click.FloatRange(0),
    help="Days; the server's retention if not given.",
)
@calls_api
def prune(call: Call, days: float | None) -> None:
    """Delete executions that ended long ago, with all that hangs on them. The server does so every hour.

    Files of workspaces go a day after nothing names them any more; the server looks for those once a day.

    Output, Idempotency-Keys and refused messages go by their own ages.
    """
    body = {} if days is None else {"older_than": days * DAY}
    call.show(
        call.client.post(api("prune"), body),
        lambda one: (
            f"pruned: {one.get('executions')} executions, {one.get('outputs')} outputs, {one.get('others')} other rows,"
            f" {one.get('snapshots')} snapshots, {one.get('blobs')} files of {one.get('bytes')} bytes"
        ),
    )
