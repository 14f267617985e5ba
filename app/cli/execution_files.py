"""`muster execution workspace`, `artifacts`, `artifact`: the files of an execution."""

from __future__ import annotations

import hashlib
import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import click

from app.cli.client import Client, api
from app.cli.connection import Call, calls_api
from app.cli.loading import load
from app.cli.plain import safe
from app.cli.terminal import Screen, rows_of
from app.errors import Conflict, InvalidInput, NotAllowed, NotFound, Unavailable

_STEPS = ("seq", "task", "node", "added", "changed", "deleted", "bytes", "at")
_ARTIFACTS = ("id", "task", "node", "kind", "path", "size", "sha256")
_SIGNS = (("added", "+"), ("changed", "~"), ("deleted", "-"))


@click.command("workspace")
@click.argument("id_", metavar="ID")
@click.option("--to", "directory", metavar="DIR", help="Make this directory with the files as they are now.")
@click.option("--paths", is_flag=True, help="Tell the paths that each job changed.")
@calls_api
def workspace(call: Call, id_: str, directory: str | None, paths: bool) -> None:
    """Tell what the jobs of an execution did to its files, or bring them here.

    DIR must not be there, or be empty.
    """
    if directory is not None:
        found = load("app.cli.bring_back:take_out")(call.client, id_, directory)
        told = {"directory": directory, "files": len(found.files), "bytes": found.bytes}
        call.show(told, lambda one: f"workspace={safe(directory)} files={one['files']} bytes={one['bytes']}")
        return
    state = _whole(call.client, id_, paths)
    if call.json:
        call.show(state, str)
        return
    screen = Screen()
    screen.facts({name: state.get(name) for name in ("snapshot", "files", "bytes")})
    if state["steps"]:
        screen.line("")
        screen.table(_STEPS, rows_of(state["steps"], _STEPS))
    for step in state["steps"] if paths else ():
        _tell_paths(screen, step)


def _whole(client: Client, id_: str, paths: bool) -> dict[str, Any]:
    """The state with all of its steps."""
    where, query = api("workflow-executions", id_, "workspace"), {"limit": 200, "paths": int(paths) or None}
    found = client.get(where, **query)
    page = found
    while page.get("next_cursor"):
        page = client.get(where, **query, cursor=page["next_cursor"])
        found["steps"] += page["steps"]
    return {**found, "next_cursor": None}


def _tell_paths(screen: Screen, step: Mapping[str, Any]) -> None:
    screen.line("")
    screen.line(
        screen.paint(f"{step['seq']} {safe(str(step['task']))} on {safe(str(step['node']))}", dim=True)
    )
    told: Mapping[str, Any] = step.get("paths") or {}
    for name, sign in _SIGNS:
        for path in told.get(name) or ():
            screen.line(f"{sign} {safe(str(path))}")
        more = int(step.get(name) or 0) - len(told.get(name) or ())
        if more > 0:
            screen.line(f"{sign} and {more} more")


@click.command("artifacts")
@click.argument("id_", metavar="ID")
@calls_api
def artifacts(call: Call, id_: str) -> None:
    """List the files that the tasks of an execution keep, and what failed tasks had changed (`kept`)."""
    items = _artifacts(call.client, id_)
    if call.json:
        call.show({"items": items}, str)
        return
    Screen().table(_ARTIFACTS, rows_of(items, _ARTIFACTS))


def _artifacts(client: Client, id_: str, **query: Any) -> list[dict[str, Any]]:
    where, items, cursor = api("workflow-executions", id_, "artifacts"), list[dict[str, Any]](), None
    while True:
        page = client.get(where, limit=200, cursor=cursor, **query)
        items += page["items"]
        cursor = page.get("next_cursor")
        if cursor is None:
            return items


@click.command("artifact")
@click.argument("id_", metavar="ID")
@click.argument("named", metavar="PATH|ARTIFACT")
@click.option("-o", "--output", metavar="FILE", help="Write it there instead of to standard output.")
@calls_api
def artifact(call: Call, id_: str, named: str, output: str | None) -> None:
    """Write an artifact's bytes, by its path or its id, to a file or to standard output."""
    found = _named(call.client, id_, named)
    if output is None and sys.stdout.isatty():
        raise InvalidInput("standard output is a terminal", hint="give -o FILE, or a pipe")
    where = api("workflow-executions", id_, "artifacts", str(found["id"]))
    if output is None:
        _write(call.client, where, found, sys.stdout.buffer)
        return
    _save(call.client, where, found, Path(output))
    call.show({**found, "file": output}, lambda one: f"file={safe(output)} bytes={one['size']}")


def _named(client: Client, id_: str, named: str) -> dict[str, Any]:
    items = _artifacts(client, id_, path=named) or [
        one for one in _artifacts(client, id_) if one["id"] == named
    ]
    if not items:
        raise NotFound(
            f"execution {safe(id_)} has no artifact {safe(named)}",
            hint=f"`muster execution artifacts {safe(id_)}` lists them",
            code="unknown-artifact",
        )
    if len(items) > 1:
        ids = ", ".join(
            f"{one['id']} ({safe(str(one['task']))} on {safe(str(one['node']))})" for one in items[:5]
        )
        raise Conflict(f"{len(items)} jobs kept a file of this path", hint=f"name one by its id: {ids}")
    return items[0]


def _save(client: Client, where: str, found: Mapping[str, Any], path: Path) -> None:
    """Writes it aside, checked, and then in the place of what was there."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with aside.open("xb") as file:
            _write(client, where, found, file)
        aside.chmod(int(found["mode"]) & 0o777 & ~_umask())
        aside.replace(path)
    except OSError as error:
        raise NotAllowed(
            f"{path}: {error.strerror}", hint="give a file in a directory where this user may write"
        ) from None
    finally:
        aside.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _write(client: Client, where: str, found: Mapping[str, Any], out: BinaryIO) -> None:
    digest = hashlib.sha256()
    for piece in load("app.cli.transfer:pieces")(client, where, int(found["size"]), {}):
        digest.update(piece)
        out.write(piece)
    out.flush()
    if digest.hexdigest() != found["sha256"]:
        raise Unavailable("what came is not the file that was kept", hint="try again", code="broken-download")
