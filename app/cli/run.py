"""`muster run`: execute a file or a stored workflow, and follow it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from app.cli import follow as live
from app.cli.client import Client, api
from app.cli.connection import Call, calls_api
from app.cli.failures import ApiProblem, TimedOut
from app.cli.files import read_text
from app.cli.given import read_parameters
from app.cli.here import may_run_here
from app.cli.loading import load
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
@click.option("--workspace", metavar="DIR", help="Give it the files of this directory.")
@click.option("--include", multiple=True, metavar="GLOB", help="Of them only these; may be repeated.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="But not these; may be repeated.")
@click.option("--bring-back", is_flag=True, help="Do in DIR afterwards what it did to the files.")
@may_run_here
@calls_api
def run(
    call: Call,
    target: str,
    pairs: Sequence[str],
    file: str | None,
    following: bool,
    timeout: float | None,
    **files: Any,
) -> int:
    """Execute a workflow file, or a stored workflow by its `pack.name`, and follow it live.

    Ctrl-C stops following only. Exits with 0 if it completed, with 1 if it failed or was cancelled, or if a file that
    should be brought back was changed here meanwhile.

    With --entry-point, --exit-point, --input or --output a file is run on this machine, in this process, without a
    server: from one task up to another, which is not run. Then Ctrl-C and --timeout end it, and every script.
    """
    parameters = read_parameters(pairs, file)
    start = _starter(call.client, target, parameters)
    if files["workspace"] is not None:
        return int(load("app.cli.run_files:run")(call, start, following, timeout, **files))
    if files["include"] or files["exclude"] or files["bring_back"]:
        raise click.UsageError("--include, --exclude and --bring-back are about --workspace DIR")
    return after_start(call, start({}), following, timeout)


Start = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Starts an execution with what more its request holds."""


def _starter(client: Client, target: str, parameters: Mapping[str, Any]) -> Start:
    if target == "-" or Path(target).exists():
        return partial(_post_file, client, target, parameters)
    if re.match(REF, target):
        return lambda more: post_ref(client, target, parameters, more=more)
    raise InvalidInput(
        f"{target!r} is neither a file nor the name of a workflow", hint="give a path, or `pack.name`"
    )


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


def _post_file(
    client: Client, file: str, parameters: Mapping[str, Any], more: Mapping[str, Any]
) -> Mapping[str, Any]:
    try:
        text = read_text(file).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{file} is not UTF-8 at byte {error.start}", hint="save it as UTF-8") from None
    body = {"definition": text, "parameters": dict(parameters), **more}
    try:
        return client.post_once(api("workflow-executions"), body)
    except ApiProblem as error:
        error.file, error.source = "<stdin>" if file == "-" else file, text
        raise


def post_ref(
    client: Client,
    ref: str,
    parameters: Mapping[str, Any],
    version: str | int | None = None,
    more: Mapping[str, Any] | None = None,
) -> Mapping[str, Any]:
    """Starts a stored workflow; the execution. `more` is what else the request holds."""
    body = {"parameters": dict(parameters), **(more or {})}
    body |= {} if version is None else {"version": version}
    return client.post_once(api("workflows", ref, "execute"), body)
