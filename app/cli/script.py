"""`muster script`: saved scripts."""

from __future__ import annotations

import click

from app.cli.lazy import LazyGroup

COMMANDS = {
    "save": ("app.cli.script_save:save", "Save a script, or a new version of it."),
    "check": ("app.cli.script_save:check", "Say what saving a script would say."),
    "list": ("app.cli.script_show:list_", "List the saved scripts."),
    "show": ("app.cli.script_show:show", "Show a saved script."),
    "versions": ("app.cli.script_show:versions", "List the versions of a saved script."),
    "diff": ("app.cli.script_show:diff", "Show what changed between two versions."),
    "rollback": ("app.cli.script_save:rollback", "Make a new version that runs what an old one ran."),
    "delete": ("app.cli.script_save:delete", "Forget a script with all its versions."),
    "run": ("app.cli.script_run:run", "Run a saved script on nodes, live."),
    "executions": ("app.cli.script_run:executions", "List what scripts were run."),
    "results": ("app.cli.script_run:results", "Show what each node answered."),
    "retry": ("app.cli.script_run:retry", "Run a script again where it failed."),
}


@click.group(cls=LazyGroup, lazy=COMMANDS, short_help="Save scripts, and run them on many nodes.")
def script() -> None:
    """Save scripts, and run them on many nodes."""
