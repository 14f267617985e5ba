"""`muster schedule add`, `pause`, `resume` and `delete`: schedules made, held and forgotten."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from app.cli.client import api
from app.cli.connection import Call, calls_api
from app.cli.failures import ApiProblem
from app.cli.given import read_parameters
from app.cli.node import labels_of
from app.cli.plain import safe
from app.cli.remote import batch_of
from app.cli.schedule_show import PATH
from app.errors import InvalidInput

_USAGE = "muster schedule add nightly --workflow demo.backup --cron '0 3 * * *' --zone Europe/Berlin"


def _described(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say what runs, where, when, and what becomes of times that cannot be kept."""
    for option in (
        click.option("--description", default="", help="What it is for."),
        click.option("--jitter", type=float, help="Fire up to so many seconds later; 0."),
        click.option(
            "--overlap",
            type=click.Choice(["allow", "skip", "queue", "cancel"]),
            help="Where the execution before is not over; skip.",
        ),
        click.option("--grace", type=float, metavar="SECONDS", help="What is longer ago is missed; 3600."),
        click.option(
            "--most", type=click.IntRange(1, 100), help="How many `--misfire all` makes up for; 10."
        ),
        click.option(
            "--misfire",
            type=click.Choice(["skip", "once", "all"]),
            help="Times that nobody was there to see: none, the newest, all; once.",
        ),
        click.option("--max-failures", type=click.IntRange(0), help="Failed nodes that are put up with; 0."),
        click.option("--batch", metavar="N,N%,…", help="How many nodes at once; the last entry repeats."),
        click.option(
            "--secret",
            "secrets",
            multiple=True,
            metavar="NAME=SECRET",
            help="A secret parameter, by the name of a kept secret; may be repeated.",
        ),
        click.option("--parameters", "file", metavar="FILE.json", help="Parameters as a JSON object."),
        click.option(
            "-p", "pairs", multiple=True, metavar="NAME=VALUE", help="A parameter; may be repeated."
        ),
        click.option("--label", "labels", multiple=True, metavar="K=V", help="The nodes with this label."),
        click.option(
            "--on", "nodes", multiple=True, metavar="NODE,…", help="The nodes that a script runs on."
        ),
        click.option("--version", help="A version of what it runs; the newest if not given."),
        click.option(
            "--zone", default="UTC", show_default=True, help="The time zone, such as Europe/Berlin."
        ),
        click.option("--cron", required=True, help="When: minute, hour, day of month, month, day of week."),
        click.option("--script", help="The saved script that it runs."),
        click.option("--workflow", help="The stored workflow that it runs."),
    ):
        command = option(command)
    return command


@click.command("add", short_help="Make a schedule, or write one anew.")
@click.argument("name")
@_described
@click.option("--paused", is_flag=True, help="Make it, and let it not fire yet.")
@click.option("--replace", is_flag=True, help="Write it anew where there is one of this name.")
@calls_api
def add(call: Call, name: str, **options: Any) -> None:
    """Make a schedule of a workflow or of a script. All of it is looked at before it is kept.

    Its executions are for whoever makes it. What is not said has its default; see the guide to schedules.
    """
    body = _body(name, options)
    found = _written(call, name, body) if options["replace"] else call.client.post(api(*PATH), body)
    call.show(found, _line)


def _written(call: Call, name: str, body: Mapping[str, Any]) -> Any:
    try:
        return call.client.call("PUT", api(*PATH, name), body=body).data
    except ApiProblem as problem:
        if problem.code != "unknown-schedule":
            raise
    return call.client.post(api(*PATH), body)


def _body(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    if (options["workflow"] is None) == (options["script"] is None):
        raise InvalidInput("give either --workflow or --script", hint=_USAGE)
    named = {name: {"secret": secret} for name, secret in _pairs("--secret", options["secrets"]).items()}
    body = {
        "name": name,
        "workflow": options["workflow"],
        "script": options["script"],
        "cron": options["cron"],
        "zone": options["zone"],
        "version": _version(options),
        "host_ids": [name for some in options["nodes"] for name in some.split(",") if name] or None,
        "labels": labels_of(options["labels"]) or None,
        "parameters": _parameters(options) | named,
        "batch": batch_of(options["batch"]),
        "max_failures": options["max_failures"],
        "misfire": options["misfire"],
        "misfire_most": options["most"],
        "misfire_grace": options["grace"],
        "overlap": options["overlap"],
        "jitter": options["jitter"],
        "description": options["description"],
        "enabled": False if options["paused"] else None,
    }
    return {key: value for key, value in body.items() if value is not None}


def _parameters(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the file, then those of -p. No parameter of a script is a list or an object, so its texts stay texts."""
    if options["script"] is None:
        return read_parameters(options["pairs"], options["file"])
    return read_parameters((), options["file"]) | _pairs("-p", options["pairs"])


def _pairs(option: str, pairs: Sequence[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise InvalidInput(f"{option} {pair!r} is not NAME=VALUE", hint=_USAGE)
        found[name] = value
    return found


def _version(options: Mapping[str, Any]) -> str | int | None:
    """Of a script the number; of a workflow the text, as `muster workflow execute --version` has it."""
    text: str | None = options["version"]
    is_number = text is not None and text.isdecimal() and text.isascii() and len(text) < 10
    return int(text) if text is not None and options["script"] is not None and is_number else text


def _line(found: Mapping[str, Any]) -> str:
    state = "" if found.get("enabled") else " paused"
    due = f" next={safe(str(found['next_run'])[:19])}Z" if found.get("next_run") else ""
    return f"schedule={safe(str(found.get('name')))}{due}{state}"


@click.command("pause", short_help="Let a schedule fire no more, for now.")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@calls_api
def pause(call: Call, names: Sequence[str]) -> None:
    """Let schedules fire no more, for now. What they started goes on; a tick that waits is skipped."""
    for name in names:
        call.show(call.client.post(api(*PATH, name, "disable")), _line)


@click.command("resume", short_help="Let a schedule fire again.")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@calls_api
def resume(call: Call, names: Sequence[str]) -> None:
    """Let schedules fire again, from their next times on. What would have been meanwhile is not made up for."""
    for name in names:
        call.show(call.client.post(api(*PATH, name, "enable")), _line)


@click.command("delete", short_help="Forget a schedule and its history.")
@click.argument("name")
@calls_api
def delete(call: Call, name: str) -> None:
    """Forget a schedule and its history. Its executions stay."""
    call.client.call("DELETE", api(*PATH, name))
    call.show({"name": name, "deleted": True}, lambda one: f"deleted: {safe(name)}")
