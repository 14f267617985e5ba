"""`muster run`: execute a file or a stored workflow, and follow it."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from app.cli import follow as live
from app.cli.client import Client, api
from app.cli.connection import Call, calls_api
from app.cli.failures import ApiProblem, TimedOut
from app.cli.files import MOST_BYTES, read_text
from app.cli.plain import as_json, safe
from app.cli.terminal import Screen
from app.errors import InvalidInput
from app.language.names import REF


def execution_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What `run` and `workflow execute` share."""
    for option in (
        click.option("--timeout", type=float, help="Stop following after so many seconds (exit code 124)."),
        click.option(
            "--follow/--no-follow", "following", default=True, help="Show it live until it is over."
        ),
        click.option(
            "--parameters", "file", metavar="FILE.json", help="Parameters as a JSON object; `-` is stdin."
        ),
        click.option(
            "-p", "pairs", multiple=True, metavar="NAME=VALUE", help="A parameter; may be repeated."
        ),
    ):
        command = option(command)
    return command


@click.command(short_help="Execute a workflow file or a stored workflow and follow it.")
@click.argument("target", metavar="FILE|REF")
@execution_options
@calls_api
def run(
    call: Call, target: str, pairs: Sequence[str], file: str | None, following: bool, timeout: float | None
) -> int:
    """Execute a workflow file, or a stored workflow by its `pack.name`, and follow it live.

    Ctrl-C stops following only. Exits with 0 if it completed, with 1 if it failed or was cancelled.
    """
    parameters = read_parameters(pairs, file)
    if target == "-" or Path(target).exists():
        execution = _post_file(call.client, target, parameters)
    elif re.match(REF, target):
        execution = post_ref(call.client, target, parameters)
    else:
        raise InvalidInput(
            f"{target!r} is neither a file nor the name of a workflow", hint="give a path, or `pack.name`"
        )
    return after_start(call, execution, following, timeout)


def after_start(call: Call, execution: Mapping[str, Any], following: bool, timeout: float | None) -> int:
    """Follows what was started, if that is wanted; the exit code."""
    id_ = str(execution["id"])
    if following:
        return show_until_over(call, id_, timeout)
    call.show(execution, lambda one: f"execution={safe(id_)} status={safe(str(one.get('status')))}")
    return 0


def show_until_over(call: Call, execution: str, timeout: float | None) -> int:
    """Follows one execution to its end; the exit code: 0 completed, 1 not. Raises TimedOut."""
    screen = Screen()
    try:
        if call.json:
            live.wait(call.client, execution, timeout=timeout)
        else:
            live.follow(call.client, execution, screen, timeout=timeout)
    except TimedOut:
        raise live.timed_out(execution, timeout) from None
    except KeyboardInterrupt:
        click.echo(live.stopped(safe(execution), "stopped following"), err=True)
        return 130
    found = call.client.get(api("workflow-executions", execution))
    if call.json:
        tasks = call.client.items(api("workflow-executions", execution, "tasks"))
        click.echo(as_json({**found, "tasks": tasks}))
    else:
        _summary(call.client, found, screen)
    return 0 if found.get("status") == "completed" else 1


def _summary(client: Client, found: Mapping[str, Any], screen: Screen) -> None:
    screen.line("")
    live.table(client, str(found["id"]), screen)
    if found.get("error_message"):
        screen.line(f"error: {safe(str(found['error_message']))}")
    if found.get("output"):
        screen.line(f"output: {json.dumps(found['output'], ensure_ascii=True)}")
    degraded = " degraded=true" if found.get("degraded") else ""
    screen.line(f"execution={safe(str(found['id']))} status={safe(str(found.get('status')))}{degraded}")


def read_parameters(pairs: Sequence[str], file: str | None) -> dict[str, Any]:
    """The parameters of a JSON file, then those of `-p`, which win. Raises InvalidInput."""
    given: dict[str, Any] = {}
    if file is not None:
        try:
            text = sys.stdin.read(MOST_BYTES) if file == "-" else Path(file).read_text("utf-8")
            given = json.loads(text, parse_constant=_no_constant)
        except OSError as error:
            raise InvalidInput(f"{file}: {error.strerror}", hint="give the path of a JSON file") from None
        except ValueError as error:
            raise InvalidInput(f"{file} is not JSON: {error}", hint='write {"name": value}') from None
        if not isinstance(given, dict):
            raise InvalidInput(f"{file} holds no JSON object", hint='write {"name": value}')
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise InvalidInput(f"-p {pair!r} is not NAME=VALUE", hint="for example -p version=1.4")
        given[name] = _value(value)
    return given


def _value(text: str) -> Any:
    """Lists and objects are read as JSON; anything else stays text, which the declared type then reads."""
    if text[:1] in ("[", "{"):
        try:
            return json.loads(text, parse_constant=_no_constant)
        except ValueError:
            return text
    return text


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON value")


def _post_file(client: Client, file: str, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        text = read_text(file).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{file} is not UTF-8 at byte {error.start}", hint="save it as UTF-8") from None
    body = {"definition": text, "parameters": dict(parameters)}
    try:
        return client.post_once(api("workflow-executions"), body)
    except ApiProblem as error:
        error.file, error.source = "<stdin>" if file == "-" else file, text
        raise


def post_ref(
    client: Client, ref: str, parameters: Mapping[str, Any], version: str | int | None = None
) -> Mapping[str, Any]:
    """Starts a stored workflow; the execution."""
    body = {"parameters": dict(parameters)} | ({} if version is None else {"version": version})
    return client.post_once(api("workflows", ref, "execute"), body)
