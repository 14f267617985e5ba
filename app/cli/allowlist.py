"""`muster allowlist`: what may be run on the spot, checked and tried out on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import click

from app.allow import toml
from app.allow.policy import OFF, Asked, Policy, Verdict, digest_of
from app.cli.files import read_text
from app.cli.options import wants_json
from app.cli.plain import as_json as json_text
from app.cli.plain import safe
from app.errors import InvalidInput
from app.language import allowlist as language
from app.language.problems import render_text
from app.settings import from_environment

_REFUSED = 3


@dataclass(frozen=True, slots=True)
class _Read:
    """A file read: its policy, None where it has problems, which are told in `lines` and as JSON."""

    policy: Policy | None
    lines: str
    problems: list[Any]


@click.group(short_help="Check what may be run on the spot, and try commands against it.")
def allowlist() -> None:
    """Check what may be run on the spot, and try commands against it. Nothing is sent anywhere."""


@allowlist.command("check")
@click.argument("file", required=False, metavar="[FILE]")
@wants_json
def check(file: str | None, as_json: bool) -> int:
    """Check an allowlist: every problem with line, column and a way out. A `.toml` file is a node's policy.

    Without FILE it is that of MUSTER_ALLOWLIST, or the one that comes with Muster. Exits with 2 if it has an error.
    """
    name = file or str(from_environment().allowlist_file)
    found = _read(name)
    if as_json:
        click.echo(json_text({"file": name, "ok": found.policy is not None, "problems": found.problems}))
    elif found.policy is None:
        click.echo(safe(found.lines, keep="\n"))
    else:
        count = len(found.policy.entries)
        entries = f"{count} {'entry' if count == 1 else 'entries'}"
        click.echo(f"{safe(name)}: ok ({found.policy.mode}, {entries})")
        if found.policy.mode == OFF:
            click.echo("mode is off: entries are not looked at")
    return 2 if found.policy is None else 0


@allowlist.command("test")
@click.option("--file", help="The allowlist; MUSTER_ALLOWLIST's if not given.")
@click.option("--script", metavar="FILE", help="Try a script instead of a command; `-` reads standard input.")
@click.option("--shell", default="sh", show_default=True, help="The shell that runs the script.")
@click.option("--env", "variables", multiple=True, metavar="NAME=VALUE", help="A variable that is set.")
@click.option("--cwd", metavar="DIR", help="The directory to run in.")
@click.argument("argv", nargs=-1, metavar="-- COMMAND...")
@wants_json
def test(
    file: str | None,
    script: str | None,
    shell: str,
    variables: Sequence[str],
    cwd: str | None,
    argv: Sequence[str],
    as_json: bool,
) -> int:
    """Say which entry allows a command or script, or why none does. Exits with 3 if it is refused.

    What comes after `--` is the command. For a script its digest is printed, for an entry.
    """
    name = file or str(from_environment().allowlist_file)
    if (script is None) == (not argv):
        raise InvalidInput(
            "give either a command after `--` or --script FILE", hint="muster allowlist test -- df -h"
        )
    found = _read(name)
    if found.policy is None:
        click.echo(safe(found.lines, keep="\n"), err=True)
        return 2
    text = None if script is None else _script(script)
    asked = Asked(tuple(argv) if text is None else None, text, shell, _environment(variables), cwd)
    verdict = found.policy.judge(asked)
    _tell(verdict, found.policy, digest_of(text) if text is not None else "", as_json)
    return 0 if verdict.allowed else _REFUSED


def _tell(verdict: Verdict, policy: Policy, digest: str, as_json: bool) -> None:
    entry = verdict.entry.title if verdict.entry is not None else ""
    if as_json:
        found = {"allowed": verdict.allowed, "entry": entry, "why": verdict.why, "mode": policy.mode}
        click.echo(json_text(found | ({"digest": digest} if digest else {})))
        return
    if verdict.allowed:
        note = f": {verdict.entry.note}" if verdict.entry is not None and verdict.entry.note else ""
        click.echo(safe(f"allowed by {entry}{note}"))
    else:
        click.echo(safe(f"not allowed: {verdict.why}"))
    if digest:
        click.echo(f"digest: {digest}")


def _read(name: str) -> _Read:
    text = read_text(name)
    if name.endswith(".toml"):
        policy, told = toml.load(text.decode("utf-8", "replace"))
        lines = [f"{name}: error: {one}" for one in told]
        return _Read(policy, "\n".join(lines), [{"message": one} for one in told])
    loaded = language.load(text, "<stdin>" if name == "-" else name)
    return _Read(loaded.policy, render_text(loaded.problems), [asdict(one) for one in loaded.problems])


def _script(name: str) -> str:
    try:
        return read_text(name).decode()
    except UnicodeDecodeError:
        raise InvalidInput(f"{name} is not UTF-8", hint="a script is text", code="bad-encoding") from None


def _environment(given: Sequence[str]) -> dict[str, str]:
    found = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals:
            raise InvalidInput(f"--env {one!r} is not NAME=VALUE", hint="for example --env TZ=UTC")
        found[name] = value
    return found
