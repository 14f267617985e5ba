"""One command on many nodes: lines behind the names of their nodes, a table, and who answered the same."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click

from app.cli import fold, sse
from app.cli.client import Client, api
from app.cli.connection import Call
from app.cli.follow import Printer
from app.cli.plain import as_json, safe, seconds
from app.cli.terminal import Screen
from app.cli.watch import INTERRUPTED, exit_code_of, watch

_COLUMNS = ("node", "status", "exit code", "duration")
_PAGE = 200


def on_many(call: Call, body: Mapping[str, Any], folding: bool, diffing: bool) -> int:
    """Runs the command that `body` asks for, and shows it until it is over; the exit code."""
    execution = str(call.client.post_once(api("nodes", "execute"), body)["id"])
    screen = Screen()
    printer = Printer(screen, is_told=False)
    state: dict[str, Any] = {}

    def take(message: sse.Message) -> None:
        if message.event == "end":
            state.update(json.loads(message.data))
        if not call.json:
            printer.take(message)

    place = (api("workflow-executions", execution, "events"), {} if call.json else {"output": 1})
    was_cancelled = watch(call.client, execution, place, take, None)
    units = call.client.items(api("workflow-executions", execution, "tasks"))
    found = fold.groups(units, _digests(call.client, execution)) if folding else []
    if call.json:
        click.echo(
            as_json(
                {"execution": execution, **state, "nodes": units, "groups": [one.to_json() for one in found]}
            )
        )
    else:
        _table(screen, units)
        _folded(screen, found, diffing)
    return INTERRUPTED if was_cancelled else exit_code_of(units, failed=state.get("status") != "completed")


def _digests(client: Client, execution: str) -> list[dict[str, Any]]:
    """What every job's output sums up to, without the texts."""
    found: list[dict[str, Any]] = []
    cursor = None
    while True:
        path = api("workflow-executions", execution, "output")
        page = client.get(path, text=0, limit=_PAGE, cursor=cursor)
        found += page.get("items") or ()
        cursor = page.get("next_cursor")
        if not cursor:
            return found


def _table(screen: Screen, units: Sequence[Mapping[str, Any]]) -> None:
    rows = [
        [unit.get("node"), unit.get("status"), unit.get("exit_code"), seconds(unit.get("duration"))]
        for unit in units
    ]
    screen.line("")
    screen.table(_COLUMNS, rows)
    for unit in units:
        error = unit.get("error")
        if isinstance(error, dict) and error.get("type") not in (None, "exit"):
            screen.line(f"{safe(str(unit.get('node')))}: {safe(str(error.get('message')))}")


def _folded(screen: Screen, found: list[fold.Group], diffing: bool) -> None:
    screen.line("")
    for line in fold.summary(found):
        screen.line(line)
    for line in fold.differences(found) if diffing else ():
        colour = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1])
        screen.line(screen.paint(line, fg=colour) if colour else line)
