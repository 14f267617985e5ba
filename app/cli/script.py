"""`muster script`: saved scripts."""

from __future__ import annotations

import click

from app.cli.lazy import LazyGroup

COMMANDS = {
    "run": ("app.cli.script_run:run", "Run a saved script on nodes, live."),
    "executions": ("app.cli.script_run:executions", "List what scripts were run."),
    "results": ("app.cli.script_run:results", "Show what each node answered."),
    "retry": ("app.cli.script_run:retry", "Run a script again where it failed."),
}


@click.group(cls=LazyGroup, lazy=COMMANDS, short_help="Run saved scripts on many nodes.")
def script() -> None:
    """Run saved scripts on many nodes."""
