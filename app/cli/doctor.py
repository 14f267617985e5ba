"""`muster doctor`: what could be wrong here, and what to do about it."""

from __future__ import annotations

import email.utils
import platform
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from app import settings
from app.cli import connection, redis_server
from app.cli.client import Client, api
from app.cli.failures import ApiProblem
from app.cli.finding import Finding
from app.cli.loading import load
from app.cli.options import wants_json
from app.cli.plain import as_json as json_text
from app.cli.plain import safe
from app.cli.terminal import Screen
from app.errors import MusterError

LEAST_PYTHON = (3, 11)
LEAST_FREE = 1 << 30
LEAST_FREE_AT_ALL = 64 << 20
CLOCK_WARN, CLOCK_FAIL = 5.0, 60.0
"""Seconds that this clock may differ from the server's: orders and proofs carry times."""
_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command(short_help="Check this machine and the server, and say what to do next.")
@click.option("--token", default="", help="A token instead of MUSTER_TOKEN.")
@click.option("--url", default="", help="The server instead of MUSTER_URL.")
@wants_json
def doctor(url: str, token: str, as_json: bool) -> int:
    """Check this machine and the server: each line is ok, warn or fail, with what to do next.

    Exits with 1 if anything fails.
    """
    found = [*_here(), *_there(url, token)]
    failed = any(one.status == "fail" for one in found)
    if as_json:
        click.echo(json_text({"ok": not failed, "checks": [asdict(one) for one in found]}))
        return int(failed)
    screen = Screen()
    for one in found:
        status = screen.paint(f"{one.status:<4}", fg=_COLOURS[one.status])
        screen.line(f"{status}  {one.name:<12}  {safe(one.detail)}")
        if one.hint:
            screen.line(f"{'':<20}{safe(one.hint)}")
    return int(failed)


def _here() -> Iterator[Finding]:
    try:
        given = settings.from_environment()
        yield Finding("settings", "ok", "every MUSTER_ variable is known")
    except MusterError as error:
        given = settings.Settings()
        yield Finding("settings", "fail", error.message, error.hint)
    yield _python()
    yield _redis_server()
    yield _disk(Path(given.data_dir))
    yield _database(given)
    yield from _secret_keys(given)
    if given.broker.startswith(("amqp", "pyamqp")):
        yield _rabbit(given)


def _rabbit(given: settings.Settings) -> Finding:
    try:
        # Its client takes longer to load than all the rest, and people's machines need none.
        check = load("app.cli.rabbit_check:check")
    except ImportError:
        return Finding("broker", "warn", "not looked at: its client is not installed", "install muster[node]")
    found: Finding = check(given.broker, given.node)
    return found


def _python() -> Finding:
    version = platform.python_version()
    if sys.version_info < LEAST_PYTHON:
        return Finding(
            "python", "fail", version, f"install Python {'.'.join(map(str, LEAST_PYTHON))} or newer"
        )
    return Finding("python", "ok", version)


def _redis_server() -> Finding:
    try:
        found = redis_server.find()
    except MusterError as error:
        return Finding("redis-server", "warn", f"{error.message}; `muster up` needs one", error.hint)
    return Finding("redis-server", "ok", f"{'.'.join(map(str, found.version))} at {found.path}")


def _disk(directory: Path) -> Finding:
    place = directory.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    detail = f"{free >> 20} MB free at {place}"
    if free < LEAST_FREE:
        status = "fail" if free < LEAST_FREE_AT_ALL else "warn"
        return Finding("disk", status, detail, "free some space, or set MUSTER_DATA_DIR to a larger disk")
    return Finding("disk", "ok", detail)


def _database(given: settings.Settings) -> Finding:
    if not given.database.startswith("sqlite:///"):
        return Finding("database", "ok", "a server (asked through the API below)")
    path = Path(given.database.removeprefix("sqlite:///"))
    if not path.exists():
        return Finding("database", "ok", f"none at {path} yet", "`muster up` makes it")
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=5)) as database:
            broken = database.execute("PRAGMA quick_check(1)").fetchone()[0]
            revision = database.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.Error as error:
        return Finding("database", "fail", f"{path}: {error}", "restore it from a backup, or start a new one")
    if broken != "ok":
        return Finding("database", "fail", f"{path}: {broken}", "restore it from a backup")
    return Finding("database", "ok", f"{path}, schema {revision[0] if revision else 'none'}")


def _secret_keys(given: settings.Settings) -> Iterator[Finding]:
    """Where the API and control run there is a file; on other machines there is none to look at."""
    path = given.secret_keys_path
    if given.secret_keys:
        yield Finding("secret keys", "ok", "in MUSTER_SECRET_KEYS")
    elif path.exists():
        mode = path.stat().st_mode & 0o777
        if mode & 0o077:
            yield Finding("secret keys", "fail", f"{path} has mode {mode:o}", f"chmod 600 {path}")
        else:
            yield Finding("secret keys", "ok", f"{path}, for its owner alone")
    elif (Path(given.data_dir) / "control.keys").exists() or given.secret_keys_file:
        yield Finding(
            "secret keys", "warn", f"{path} is not there: no secret can be used", "`muster setup` makes it"
        )


def _there(url: str, token: str) -> Iterator[Finding]:
    try:
        client = connection.client(url, token)
        before = time.time()
        answer = client.call("GET", "/healthz")
    except MusterError as error:
        yield Finding("api", "fail", error.message, error.hint)
        return
    yield Finding("api", "ok", f"{client.url} answers in {(time.time() - before) * 1000:.0f} ms")
    yield _clock(answer.headers.get("date", ""), time.time())
    for check in (_token, _ready, _nodes):
        finding = _checked(check, client)
        yield finding
        if check is _token and finding.status == "fail":
            return


def _checked(check: Callable[[Client], Finding], client: Client) -> Finding:
    name = check.__name__.removeprefix("_")
    try:
        return check(client)
    except MusterError as error:
        return Finding(name, "fail", error.message, error.hint)


def _clock(date: str, now: float) -> Finding:
    try:
        there = email.utils.parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError):
        return Finding("clock", "warn", "the server did not say what time it is")
    # The header has whole seconds, cut: half a second is the best guess.
    apart = abs(now - there - 0.5)
    detail = f"{apart:.0f} s apart from the server's"
    if apart > CLOCK_WARN:
        return Finding(
            "clock", "fail" if apart > CLOCK_FAIL else "warn", detail, "set up time synchronisation"
        )
    return Finding("clock", "ok", detail)


def _token(client: Client) -> Finding:
    found = client.call("GET", "/version").data
    return Finding("token", "ok", f"valid; Muster {found.get('version')}, Celery {found.get('celery')}")


def _ready(client: Client) -> Finding:
    try:
        client.call("GET", "/readyz")
    except ApiProblem as error:
        checks = error.problem.get("checks") or [one.get("detail") for one in error.errors] or error.message
        return Finding("server", "fail", f"not ready: {checks}", "see the logs of the API and of the broker")
    return Finding("server", "ok", "database, Redis and schema are ready")


def _nodes(client: Client) -> Finding:
    found = client.items(api("nodes"))
    away = [one for one in found if not one.get("online")]
    detail = f"{len(found) - len(away)} of {len(found)} online"
    if not found:
        return Finding("nodes", "warn", "none is enrolled", "`muster node token NAME` makes a token for one")
    if away:
        return Finding("nodes", "fail" if len(away) == len(found) else "warn", detail, _what_to_do(away))
    return Finding("nodes", "ok", detail)


def _what_to_do(away: list[dict[str, Any]]) -> str:
    ssh = [one for one in away if isinstance(one.get("ssh"), dict)]
    untrusted = [one for one in ssh if not one["ssh"].get("host_key")]
    ways = (
        ("start the workers of {}, or remove the nodes", [one for one in away if one not in ssh]),
        ("trust the host keys of {}: `muster node trust NAME`", untrusted),
        (
            "see why {} cannot be reached: `muster node show NAME`",
            [one for one in ssh if one not in untrusted],
        ),
    )
    return "; ".join(way.format(_names(nodes)) for way, nodes in ways if nodes)


def _names(nodes: list[dict[str, Any]]) -> str:
    more = f" and {len(nodes) - 5} more" if len(nodes) > 5 else ""
    return ", ".join(str(one["name"]) for one in nodes[:5]) + more
