"""`muster run --workspace DIR`: the directory's files go along, and on request what became of them comes back."""

from __future__ import annotations

from collections.abc import Sequence

import click

from app.cli import bring_back as back
from app.cli import transfer
from app.cli.connection import Call
from app.cli.plain import safe
from app.cli.run import Start, after_start
from app.files.names import Globs

FAILED = 1
MOST_TOLD = 20
STOPPED = 130


def _tell(left_out: Sequence[str]) -> None:
    if left_out:
        named = ", ".join(map(safe, sorted(left_out)[:MOST_TOLD]))
        rest = f" and {len(left_out) - MOST_TOLD} more" if len(left_out) > MOST_TOLD else ""
        click.echo(f"left out, for they are no files: {named}{rest}", err=True)


def run(
    call: Call,
    start: Start,
    following: bool,
    timeout: float | None,
    *,
    workspace: str,
    include: Sequence[str],
    exclude: Sequence[str],
    bring_back: bool,
) -> int:
    """The exit code: that of following, or 1 where a file that should come back was changed here meanwhile."""
    if bring_back and not following:
        raise click.UsageError(
            "--bring-back waits for the end: leave --no-follow out, or use `muster execution workspace ID --to DIR`"
        )
    uploaded, left_out = transfer.upload(call.client, workspace, Globs(include, exclude))
    _tell(left_out)
    execution = start({"workspace": uploaded.digest})
    id_ = str(execution["id"])
    code = after_start(call, execution, following, timeout)
    if not bring_back:
        return code
    if code == STOPPED:
        click.echo(f"hint: for its files later: muster execution workspace {safe(id_)} --to DIR", err=True)
        return code
    brought = back.bring_back(call.client, id_, workspace, uploaded)
    left = [f"{safe(path)} was changed here meanwhile, and is left alone" for path in brought.conflicts]
    left += [f"{safe(path)} stays, for what would take its place is left alone" for path in brought.held]
    if not call.json:
        facts = f"put={brought.put} removed={brought.gone} conflicts={len(left)}"
        click.echo(f"workspace={safe(workspace)} {facts}")
    for line in left[:MOST_TOLD]:
        click.echo(f"conflict: {line}", err=True)
    if left:
        more = len(left) - MOST_TOLD
        rest = f" (and {more} more)" if more > 0 else ""
        click.echo(
            f"hint: see what the execution has{rest}: muster execution workspace {safe(id_)} --to DIR",
            err=True,
        )
    return FAILED if left else code
