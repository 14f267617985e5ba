"""`muster script save`, `check`, `rollback` and `delete`: saved scripts made, brought back, forgotten."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import click

from app.cli.client import api
from app.cli.connection import Call, calls_api
from app.cli.failures import ApiProblem
from app.cli.files import MOST_BYTES, read_text
from app.cli.plain import safe
from app.errors import Conflict, InvalidInput
from app.language import front_matter
from app.language.front_matter import ScriptFile
from app.language.problems import Problem, render_text

SCRIPTS = ("automation", "scripts")

_OTHER_ENDS = re.compile("\r(?!\n)|[\v\f\x1c-\x1e\x85\u2028\u2029]")


@click.command("save")
@click.argument("file")
@click.option("--name", help="Its name, whatever its header says.")
@click.option(
    "--if-version",
    type=click.IntRange(0),
    metavar="N",
    help="Only if this is its newest version; 0: there is none.",
)
@calls_api
def save(call: Call, file: str, name: str | None, if_version: int | None) -> None:
    """Save a script: a new one, or a new version of the one that has its name.

    What it is called, its parameters and the like stand in its header, YAML in comments between two lines `# ---`.
    """
    found, body = _read(file, name)
    headers = {} if if_version is None else _only_if(call, str(body["name"]), if_version)
    try:
        answer = _send(call, file, found, body, "", headers)
    except ApiProblem as error:
        if error.status == 412 and if_version is not None:
            raise _changed(str(body["name"]), if_version) from None
        raise
    call.show(answer, _told)


def _told(one: Mapping[str, Any]) -> str:
    changed = ", ".join(str(name) for name in one.get("changed") or ())
    more = f" changed={changed}" if one.get("result") == "updated" else ""
    return safe(f"{one.get('result')}: {one.get('name')} version {one.get('version')}{more}")


@click.command("check")
@click.argument("file")
@click.option("--name", help="Its name, whatever its header says.")
@calls_api
def check(call: Call, file: str, name: str | None) -> None:
    """Say what saving a script would say; nothing is saved."""
    found, body = _read(file, name)
    answer = _send(call, file, found, body, "check", {})
    call.show(answer, lambda one: f"{safe(_shown(file))}: {_counted(len(one.get('warnings') or ()))}")


def _counted(warnings: int) -> str:
    return f"{warnings or 'no'} warning{'' if warnings == 1 else 's'}"


def _read(file: str, name: str | None) -> tuple[ScriptFile, dict[str, Any]]:
    raw = read_text(file)
    file = _shown(file)
    if len(raw) >= MOST_BYTES:
        raise InvalidInput(f"{file} is too large", hint="a script has 500,000 bytes at the most")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{file} is not UTF-8 at byte {error.start}", hint="save it as UTF-8") from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise InvalidInput(
            f"{file} holds the character NUL in line {line}", hint="a script is text: remove it"
        )
    found = front_matter.read(text, file)
    body = {**found.says, "body": found.body}
    if name is not None:
        body["name"] = name
    if "name" not in body:
        raise InvalidInput(
            f"{file} does not say what the script is called",
            hint="give --name, or begin the file with `# ---`, `# name: deploy`, `# ---`",
        )
    if "shell" not in body:
        raise InvalidInput(
            f"{file} does not say what runs the script", hint="begin it with `#!/bin/sh`, or say `shell: sh`"
        )
    return found, body


def _shown(file: str) -> str:
    return "<stdin>" if file == "-" else file


def _only_if(call: Call, name: str, version: int) -> dict[str, str]:
    if version == 0:
        return {"If-None-Match": "*"}
    answer = call.client.call("GET", api(*SCRIPTS, name))
    newest = answer.data.get("version")
    if newest != version:
        raise _changed(name, version, newest)
    tag = next((value for key, value in answer.headers.items() if key.lower() == "etag"), "")
    return {"If-Match": tag}


def _changed(name: str, version: int, newest: Any = None) -> Conflict:
    """That it is not at this version; `newest` is the one that it is at, where that is known."""
    name = safe(name)
    if version == 0:
        message = f"there is a script {name} already"
    elif newest is None:
        message = f"{name} was changed while this was sent"
    else:
        message = f"{name} is at version {newest}, not {version}"
    hint = f"`muster script versions {name}` lists what there is"
    if version and isinstance(newest, int) and version < newest:
        hint = f"`muster script diff {name} {version} {newest}` tells what changed"
    return Conflict(message, hint=hint, code="version-changed")


def _send(
    call: Call, file: str, found: ScriptFile, body: dict[str, Any], verb: str, headers: Mapping[str, str]
) -> Any:
    """The answer; warnings go to stderr. They and errors get the places in the file that they are about."""
    path = api(*SCRIPTS, *([verb] if verb else []))
    try:
        answer = call.client.call("POST", path, body=body, headers=headers).data
    except ApiProblem as error:
        for one in error.errors:
            _place(one, found)
        error.file, error.source = _shown(file), _printed(found.text)
        raise
    warnings = [one for one in answer.get("warnings") or () if isinstance(one, dict)]
    for one in warnings:
        _place(one, found)
    if warnings and not call.json:
        lines = _printed(found.text).splitlines()
        click.echo(safe(render_text(_problem(one, file, lines) for one in warnings), keep="\n"), err=True)
    return answer


def _printed(text: str) -> str:
    """The text with blanks for all that ends a line for Python, and not for a shell: so lines count alike."""
    return _OTHER_ENDS.sub(" ", text)


def _place(one: dict[str, Any], found: ScriptFile) -> None:
    if isinstance(one.get("line"), int):
        one["line"] = found.line_of_body(one["line"])
    elif mark := found.place(str(one.get("pointer") or "")):
        one["line"], one["column"] = mark.line, mark.column


def _problem(one: Mapping[str, Any], file: str, lines: list[str]) -> Problem:
    line, column = int(one.get("line") or 1), int(one.get("column") or 1)
    text = lines[line - 1] if 0 < line <= len(lines) else ""
    return Problem(
        str(one.get("code") or "invalid-script"),
        str(one.get("detail")),
        _shown(file),
        line,
        column,
        hint=str(one.get("hint") or ""),
        severity="warning",
        source_line=text,
    )


@click.command("rollback")
@click.argument("name")
@click.argument("version", type=click.IntRange(1))
@calls_api
def rollback(call: Call, name: str, version: int) -> None:
    """Make a new version that runs what an old one ran."""
    answer = call.client.post(api(*SCRIPTS, name, "rollback"), {"version": version})
    call.show(answer, _told)


@click.command("delete")
@click.argument("name")
@calls_api
def delete(call: Call, name: str) -> None:
    """Forget a script with all its versions; executions keep what they ran."""
    call.client.call("DELETE", api(*SCRIPTS, name))
    call.show({"name": name, "deleted": True}, lambda one: f"deleted: {safe(name)}")
