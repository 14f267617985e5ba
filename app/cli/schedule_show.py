"""`muster schedule list`, `show`, `next` and `history`: what there is, when it fires, what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from app.cli.client import api
from app.cli.connection import Call, calls_api
from app.cli.pages import newest
from app.cli.terminal import Screen, rows_of
from app.errors import InvalidInput

_LIST = ("name", "runs", "cron", "zone", "state", "next_run", "last_run", "last")
_NEXT = ("local", "utc")
_HISTORY = ("time", "status", "reason", "execution")
_TOGETHER = ("batch", "max_failures", "waiting", "description")

PATH = ("automation", "schedules")


@click.command("list", short_help="List schedules: when they fire, and how that went.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=200, show_default=True, help="How many.")
@calls_api
def list_(call: Call, limit: int) -> None:
    """List schedules: what they run, when they fire next, and how the last time went."""
    items, _ = newest(call.client, api(*PATH), limit)
    if call.json:
        call.show({"items": items}, str)
        return
    Screen().table(_LIST, rows_of([_line(one) for one in items], _LIST))


def _line(found: Mapping[str, Any]) -> dict[str, Any]:
    reason = found.get("last_reason")
    last = f"{found.get('last_status')}: {reason}" if reason else found.get("last_status")
    state = "on" if found.get("enabled") else "paused"
    shown = {name: _short(found.get(name)) for name in ("next_run", "last_run")}
    return {**found, **shown, "runs": _runs(found), "state": state, "last": last}


def _runs(found: Mapping[str, Any]) -> str:
    what = found.get("workflow") or found.get("script_name") or f"{found.get('script')} (deleted)"
    return f"{what}@{found['version']}" if found.get("version") is not None else str(what)


def _short(moment: Any) -> str:
    """A moment to the second."""
    return f"{str(moment)[:19]}Z" if moment else ""


@click.command("show", short_help="Show a schedule whole.")
@click.argument("name")
@calls_api
def show(call: Call, name: str) -> None:
    """Show a schedule whole."""
    found = call.client.get(api(*PATH, name))
    if call.json:
        call.show(found, str)
        return
    left_out = {"workflow", "script", "script_name", "version", *_TOGETHER}
    facts = {"runs": _runs(found)} | {key: value for key, value in found.items() if key not in left_out}
    facts |= {key: found[key] for key in _TOGETHER if found.get(key)}
    Screen().facts({key: value for key, value in facts.items() if value not in (None, "", {}, [])})


@click.command("next", short_help="Show when a schedule, or an expression, fires next.")
@click.argument("name", required=False)
@click.option("--cron", help="An expression instead of a schedule: five fields.")
@click.option("--zone", default="UTC", show_default=True, help="The zone that --cron is meant in.")
@click.option("--count", type=click.IntRange(1, 50), default=5, show_default=True, help="How many times.")
@calls_api
def next_(call: Call, name: str | None, cron: str | None, zone: str, count: int) -> None:
    """Show when a schedule fires next, on the clock of its zone and in UTC; or when an expression would."""
    if (name is None) == (cron is None):
        raise InvalidInput(
            "give the name of a schedule, or --cron", hint="muster schedule next --cron '0 3 * * *'"
        )
    if name is not None:
        found = call.client.get(api(*PATH, name, "next"), count=count)
    else:
        found = call.client.post(api(*PATH, "check"), {"cron": cron, "zone": zone, "count": count})
    if call.json:
        call.show(found, str)
        return
    times = [{"local": one.get("local"), "utc": _short(one.get("at"))} for one in found.get("items") or ()]
    Screen().table(_NEXT, rows_of(times, _NEXT))


@click.command("history", short_help="Show what became of its times.")
@click.argument("name")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many.")
@calls_api
def history(call: Call, name: str, limit: int) -> None:
    """Show what became of its times, the newest first: fired, queued, skipped or missed, and why."""
    items, _ = newest(call.client, api(*PATH, name, "history"), limit)
    if call.json:
        call.show({"items": items}, str)
        return
    lines = [{**one, "time": _short(one.get("fire_time"))} for one in items]
    Screen().table(_HISTORY, rows_of(lines, _HISTORY))
