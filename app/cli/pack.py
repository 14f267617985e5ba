"""`muster pack`: folders of actions and workflows."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import click

from app.cli import folder, testing
from app.cli.client import api
from app.cli.connection import Call, calls_api
from app.cli.failures import ApiProblem
from app.cli.files import read_text
from app.cli.options import knows_packs, wants_json
from app.cli.plain import as_json as json_text
from app.cli.plain import safe
from app.cli.terminal import Screen, rows_of
from app.errors import InvalidInput, MusterError
from app.language.pack_tables import CORE
from app.language.packs import InvalidPack, Loaded
from app.language.problems import Problem, render_text
from app.language.problems import as_json as problem_json

_LIST = ("ref", "version", "revision", "actions", "workflows", "label")
_ACTIONS = ("ref", "runner", "revision", "enabled", "description")
_KEYS = ("name", "type", "required", "secret", "value", "description")
_WORKFLOWS = ("ref", "revision", "enabled", "label")


@click.group(short_help="Check, register, configure and delete packs.")
def pack() -> None:
    """Check, register, configure and delete packs: folders of actions and workflows."""


@pack.command("check")
@click.argument("paths", nargs=-1, required=True, metavar="DIR...")
@click.option("--no-tests", is_flag=True, help="Do not run the tests of the packs.")
@click.option("--strict", is_flag=True, help="Warnings count as errors.")
@knows_packs
@wants_json
def check(paths: Sequence[str], no_tests: bool, strict: bool, folders: Sequence[str], as_json: bool) -> int:
    """Check packs and run their tests; no server, no nodes. A pack knows those that lie beside it.

    Exits with 2 if a file has an error, with 1 if a test failed.
    """
    found = [(path, _loaded(path, folders)) for path in _each(paths)]
    failed = any(loaded.pack is None or (strict and loaded.problems) for _, loaded in found)
    if not as_json:
        for path, loaded in found:
            _tell(path, loaded)
    tests = [] if no_tests or failed else [name for path, loaded in found for name in _tests(path, loaded)]
    report = testing.run(tests, folders, aloud=not as_json)
    if as_json:
        told = [_told(path, loaded) for path, loaded in found]
        click.echo(json_text({"ok": not failed and not report.code, "packs": told, "tests": report.told}))
    return 2 if failed else report.code


def _each(paths: Sequence[str]) -> list[Path]:
    return [one for path in paths for one in folder.packs_in(Path(path))]


def _loaded(path: Path, folders: Sequence[str]) -> Loaded:
    return folder.load(path, folder.known_for(str(path / "pack.yaml"), folders))


def _tests(path: Path, loaded: Loaded) -> list[str]:
    files = loaded.pack.files if loaded.pack is not None else {}
    return [str(path / name) for name in files if name.startswith("tests/") and name.endswith(".yaml")]


def _told(path: Path, loaded: Loaded) -> dict[str, Any]:
    ref = loaded.pack.ref if loaded.pack is not None else None
    problems = [problem_json(one) for one in loaded.problems]
    return {"path": str(path), "ok": loaded.pack is not None, "ref": ref, "problems": problems}


def _tell(path: Path, loaded: Loaded) -> None:
    if loaded.problems:
        click.echo(safe(render_text(loaded.problems), keep="\n"))
    if loaded.pack is not None:
        held = [_many(len(loaded.pack.actions), "action"), _many(len(loaded.pack.workflows), "workflow")]
        click.echo(f"{safe(str(path))}: ok ({loaded.pack.ref}, {', '.join(held)})")


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


@pack.command("register")
@click.argument("paths", nargs=-1, required=True, metavar="DIR...")
@calls_api
def register(call: Call, paths: Sequence[str]) -> None:
    """Register packs: each is checked as a whole, then kept as a whole or not at all.

    A folder with packs in it stands for all of them but `core`. Packs go before those that use their actions.
    """
    told = []
    for path, files in _in_order([folder_ for folder_ in _each(paths) if not _is_core(folder_, paths)]):
        try:
            answer = call.client.call("POST", api("packs"), body={"files": files}).data
        except ApiProblem as error:
            raise _from_here(error, path, files) from None
        told.append(answer)
        if not call.json:
            _tell_registered(path, answer)
    if call.json:
        call.show(told[0] if len(told) == 1 else {"items": told}, str)


def _is_core(path: Path, named: Sequence[str]) -> bool:
    """Whether it is the built-in pack, met in a folder: named by itself it is refused, as any name that is taken."""
    return path.name == CORE and str(path) not in {os.path.normpath(one) for one in named}


def _in_order(paths: Sequence[Path]) -> list[tuple[Path, Mapping[str, str]]]:
    """The files of each pack, those first whose actions others use. Raises InvalidPack for what cannot be taken."""
    read: dict[Path, Mapping[str, str]] = {}
    for path in paths:
        files, problems = folder.read(path)
        if problems:
            raise InvalidPack([folder.named(one, path) for one in problems])
        read[path] = files
    uses = {
        path: [
            other
            for other in read
            if other.name != path.name and any(f" {other.name}." in text for text in files.values())
        ]
        for path, files in read.items()
    }
    try:
        return [(path, read[path]) for path in TopologicalSorter(uses).static_order()]
    except CycleError:
        return list(read.items())


def _from_here(error: ApiProblem, path: Path, files: Mapping[str, str]) -> MusterError:
    """The server's problems, told of the files as they lie here."""
    found = [one for one in error.errors if one.get("file") and isinstance(one.get("line"), int)]
    if error.code != InvalidPack.code or not found:
        return error
    problems = []
    for one in found:
        lines = files.get(str(one["file"]), "").splitlines()
        at, column = int(one["line"]), int(one.get("column") or 1)
        problem = Problem(
            str(one.get("code") or ""),
            str(one.get("detail") or ""),
            str(one["file"]),
            at,
            column,
            str(one.get("pointer") or ""),
            str(one.get("hint") or ""),
            "warning" if one.get("severity") == "warning" else "error",
            lines[at - 1] if 0 < at <= len(lines) else "",
        )
        problems.append(folder.named(problem, path))
    return InvalidPack(problems)


def _tell_registered(path: Path, done: Mapping[str, Any]) -> None:
    for one in done.get("warnings") or ():
        click.echo(
            safe(f"{path}/{one.get('file')}:{one.get('line')}: warning: {one.get('message')}"), err=True
        )
    changed, gone = done.get("changed") or [], done.get("disabled") or []
    what = [f"new or changed: {', '.join(changed)}"] if changed else []
    what += [f"switched off: {', '.join(gone)}"] if gone else []
    if not what:
        what = [f"{_many(int(done['files']), 'file')} changed" if done.get("files") else "nothing changed"]
    click.echo(safe(f"registered: {done.get('ref')} revision {done.get('revision')} ({'; '.join(what)})"))


@pack.command("list")
@calls_api
def list_(call: Call) -> None:
    """List the packs."""
    items = call.client.items(api("packs"))
    if call.json:
        call.show({"items": items}, str)
        return
    Screen().table(_LIST, rows_of(items, _LIST))


@pack.command("show")
@click.argument("ref")
@click.option("--file", "path", metavar="PATH", help="Print this file of it, as it was registered.")
@calls_api
def show(call: Call, ref: str, path: str | None) -> None:
    """Show a pack: its actions, workflows, rules, sensors and tests."""
    if path is not None:
        text = call.client.call("GET", api("packs", ref, "files", *path.split("/"))).body.decode(
            "utf-8", "replace"
        )
        call.show({"path": path, "text": text}, lambda one: safe(text, keep="\n").rstrip("\n"))
        return
    found = call.client.get(api("packs", ref))
    if call.json:
        call.show(found, str)
        return
    screen = Screen()
    lists = ("actions", "workflows", "rules", "sensors", "tests", "files")
    screen.facts(
        {name: value for name, value in found.items() if name not in lists and value not in ("", [], None)}
    )
    for name, columns in (("actions", _ACTIONS), ("workflows", _WORKFLOWS)):
        if found.get(name):
            screen.line("")
            screen.table(columns, rows_of(found[name], columns))
    for name in ("rules", "sensors"):
        if found.get(name):
            screen.line(safe(f"\n{name} (kept, not run): {', '.join(found[name])}", keep="\n"))


@pack.command("delete")
@click.argument("ref")
@calls_api
def delete(call: Call, ref: str) -> None:
    """Delete a pack with its actions, workflows and configuration; refused while its workflows are executed."""
    call.client.call("DELETE", api("packs", ref))
    call.show({"ref": ref, "deleted": True}, lambda one: f"deleted: {safe(ref)}")


@pack.command("config")
@click.argument("ref")
@click.argument("pairs", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--unset", multiple=True, metavar="KEY", help="Back to the default; may be repeated.")
@click.option("--file", "file", metavar="FILE.json", help="Values as a JSON object; `-` is standard input.")
@calls_api
def config(call: Call, ref: str, pairs: Sequence[str], unset: Sequence[str], file: str | None) -> None:
    """Show the configuration of a pack, or change what is named of it. A VALUE is JSON, or else a text."""
    answer = call.client.call("GET", api("packs", ref, "config"))
    found = answer.data
    given = {**_from_file(file), **_from_pairs(pairs)}
    if given or unset:
        values = {name: value for name, value in {**found["config"], **given}.items() if name not in unset}
        headers = {"If-Match": answer.headers.get("etag", "")}
        found = call.client.call(
            "PUT", api("packs", ref, "config"), body={"config": values}, headers=headers
        ).data
    if call.json:
        call.show(found, str)
        return
    rows = [
        {
            **key,
            "value": found["config"].get(key["name"], key.get("default")),
        }
        for key in found["keys"]
    ]
    Screen().table(_KEYS, rows_of(rows, _KEYS))


def _from_file(file: str | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        found = json.loads(read_text(file))
    except ValueError as error:
        raise InvalidInput(f"{file}: no JSON: {error}", hint="give a JSON object") from None
    if not isinstance(found, dict):
        raise InvalidInput(f"{file}: this is no JSON object", hint='such as {"key": "value"}')
    return found


def _from_pairs(pairs: Sequence[str]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise click.UsageError(f"{pair!r} is not KEY=VALUE")
        try:
            given[name] = json.loads(text)
        except ValueError:
            given[name] = text
    return given
