"""`muster schedule`: what starts by itself."""

from __future__ import annotations

import click

from app.cli.lazy import LazyGroup

COMMANDS = {
    "add": ("app.cli.schedule_add:add", "Make a schedule, or write one anew."),
    "list": ("app.cli.schedule_show:list_", "List schedules: when they fire, and how that went."),
    "show": ("app.cli.schedule_show:show", "Show a schedule whole."),
    "next": ("app.cli.schedule_show:next_", "Show when a schedule, or an expression, fires next."),
    "history": ("app.cli.schedule_show:history", "Show what became of its times."),
    "pause": ("app.cli.schedule_add:pause", "Let a schedule fire no more, for now."),
    "resume": ("app.cli.schedule_add:resume", "Let a schedule fire again."),
    "delete": ("app.cli.schedule_add:delete", "Forget a schedule and its history."),
}


@click.group(cls=LazyGroup, lazy=COMMANDS, short_help="What starts by itself, and when.")
def schedule() -> None:
    """What starts by itself, and when: workflows and saved scripts by cron, each in a time zone."""
