"""Commands whose modules are imported only when they are called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from app.cli.loading import load

Lazy = Mapping[str, tuple[str, str]]
"""Command name -> (`module:attribute`, its line in the list of commands)."""


class LazyGroup(click.Group):
    """Commands by name from `lazy`; help lists them without importing any."""

    def __init__(self, *args: Any, lazy: Lazy, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lazy = dict(lazy)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.lazy:
            return None
        command = load(self.lazy[cmd_name][0])
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.lazy and not args[0].startswith("-"):
            near = load("difflib:get_close_matches")(args[0], self.lazy, n=1)
            known = f"did you mean `{near[0]}`?" if near else f"known: {', '.join(self.lazy)}"
            raise click.UsageError(f"there is no command {args[0]!r} in `{ctx.command_path}`; {known}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in self.lazy.items()])
