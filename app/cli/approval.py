"""`muster approval`: what waits for people, and their word."""

from __future__ import annotations

import json
from typing import Any

import click

from app.cli import approval_shown
from app.cli.client import api
from app.cli.connection import Call, calls_api
from app.cli.plain import safe
from app.cli.terminal import Screen, rows_of

_LIST = ("id", "kind", "workflow", "task", "requester", "status", "expires_at", "prompt")


@click.group(short_help="Decide what executions wait for.")
def approval() -> None:
    """Decide what executions wait for."""


@approval.command("list")
@click.option(
    "--status",
    type=click.Choice(["pending", "approved", "rejected", "answered", "expired", "closed"]),
    default="pending",
    show_default=True,
    help="Which of them.",
)
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="How many.")
@calls_api
def list_(call: Call, status: str, limit: int) -> None:
    """List the questions that wait for somebody: the inbox."""
    items = call.client.items(api("automation", "approvals"), status=status, limit=limit)
    if call.json:
        call.show({"items": items}, str)
        return
    Screen().table(_LIST, rows_of(items, _LIST))


@approval.command("show")
@click.argument("id_", metavar="ID")
@calls_api
def show(call: Call, id_: str) -> None:
    """Show a question: what would run where, who may decide, and what was said."""
    found = call.client.get(api("automation", "approvals", id_))
    if call.json:
        call.show(found, str)
        return
    approval_shown.show(Screen(), found)


@approval.command("approve")
@click.argument("id_", metavar="ID")
@click.option("--reason", default="", help="Why; kept with the decision.")
@calls_api
def approve(call: Call, id_: str, reason: str) -> None:
    """Approve. With a quorum the execution goes on once so many people have."""
    _decide(call, id_, "approve", {"reason": reason})


@approval.command("reject")
@click.argument("id_", metavar="ID")
@click.option("--reason", default="", help="Why; kept with the decision.")
@calls_api
def reject(call: Call, id_: str, reason: str) -> None:
    """Reject. One person is enough."""
    _decide(call, id_, "reject", {"reason": reason})


@approval.command("answer")
@click.argument("id_", metavar="ID")
@click.argument("answer", metavar="JSON")
@click.option("--reason", default="", help="Why; kept with the answer.")
@calls_api
def answer_(call: Call, id_: str, answer: str, reason: str) -> None:
    """Answer an inquiry with a JSON value, such as '{"version": "1.4"}'."""
    try:
        value = json.loads(answer)
    except ValueError as error:
        raise click.BadParameter(f"no JSON: {error}", param_hint="JSON") from None
    _decide(call, id_, "answer", {"answer": value, "reason": reason})


def _decide(call: Call, id_: str, verb: str, body: dict[str, Any]) -> None:
    found = call.client.post(api("automation", "approvals", id_, verb), body)
    call.show(found, lambda one: f"approval={safe(id_)} status={safe(str(one.get('status')))}")
