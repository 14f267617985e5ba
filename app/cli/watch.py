"""A command that is followed to its end: one stream over many connections, Ctrl-C, and what to exit with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from app.cli import sse
from app.cli.client import Client, Stream, api
from app.cli.failures import TIMED_OUT, ApiProblem
from app.cli.plain import safe

INTERRUPTED = 130


def watch(
    client: Client,
    execution: str,
    place: tuple[str, Mapping[str, Any]],
    take: Callable[[sse.Message], None],
    opened: Stream | None,
) -> bool:
    """Hands every message of the stream at `place` (path and query) on until its end.

    Ctrl-C asks the server to cancel, and the stream goes on to its end; True says that. A second one is raised.
    """
    last = ""
    was_cancelled = False
    while True:
        try:
            for message in sse.follow(client, *place, last, sse.Limits(), opened):
                last = message.id
                take(message)
            return was_cancelled
        except KeyboardInterrupt:
            if was_cancelled:
                raise
            was_cancelled, opened = True, None
            click.echo(f"asking the server to cancel {safe(execution)}; Ctrl-C again leaves it", err=True)
            _cancel(client, execution)


def _cancel(client: Client, execution: str) -> None:
    try:
        client.post(api("workflow-executions", execution, "cancel"), {"reason": "Ctrl-C"})
    except ApiProblem as error:
        if error.status != 409:  # it came to its end in the meantime
            raise


def exit_code_of(units: Sequence[Mapping[str, Any]], *, failed: bool) -> int:
    """0 where it succeeded somewhere and is no failure, 124 where nothing but time was the matter, else 1."""
    statuses = [unit.get("status") for unit in units]
    if not failed and "succeeded" in statuses:
        return 0
    wrong = [status for status in statuses if status not in ("succeeded", "skipped")]
    return TIMED_OUT if wrong and set(wrong) == {"timed_out"} else 1
