"""`muster up` and `muster demo`: a whole fleet on this machine."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

import app
from app import settings
from app.cli.bring_up import Ready, Wanted, bring_up
from app.cli.client import Client, api
from app.cli.connection import CLIENT_FILE
from app.cli.home import Home
from app.cli.options import wants_json
from app.cli.plain import as_json as json_text
from app.cli.processes import Spec
from app.cli.supervisor import Stopped, Supervisor
from app.compiler.plan import LOCAL
from app.errors import InvalidInput
from app.language.names import NODE, NODE_RULE

DEMO_NODES = ("web-1", "web-2", "web-3")
DEMO_FILE = Path(app.__file__ or ".").resolve().parent.parent / "config" / "examples" / "demo.yaml"
_INTERRUPTED = 130


@click.command(short_help="Run a whole fleet on this machine.")
@click.option("--data", type=click.Path(path_type=Path), help="Its private directory; .muster if not given.")
@click.option("--nodes", default="", metavar="A,B,C", help="More nodes beside `local`.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="The API's port; a free one if not given."
)
@click.option("--flower", is_flag=True, help="Flower too: to look at, for this machine alone.")
@click.option(
    "--external", is_flag=True, help="Use REDIS_URL, DATABASE_URL, CELERY_BROKER_URL of the environment."
)
@click.option("-q", "--quiet", is_flag=True, help="One line when it is ready, and errors.")
@click.option("-v", "--verbose", is_flag=True, help="The logs of all processes.")
@wants_json
def up(
    data: Path | None,
    nodes: str,
    port: int,
    flower: bool,
    external: bool,
    quiet: bool,
    verbose: bool,
    as_json: bool,
) -> int:
    """Run a whole fleet on this machine until Ctrl-C: broker, API, control worker, clock and nodes.

    A redis-server of its own on a private socket and SQLite, unless --external. Everything that dies is
    started again. Ctrl-C cancels the scripts that run and ends every process; the data stays for the next
    `up`.
    """
    began = time.monotonic()
    wanted = Wanted(_names(nodes), port, flower, external)
    home = Home(data or Path(settings.from_environment().data_dir))
    tell = (lambda _: None) if quiet else _tell
    code = _INTERRUPTED
    with Supervisor(home, tell, verbose=verbose) as supervisor, _stopping():
        ready = bring_up(supervisor, wanted, dict(os.environ))
        _say_ready(ready, home, time.monotonic() - began, as_json)
        if ready.flower:
            tell("flower asks for MUSTER_FLOWER_AUTH, else for what flower.auth in the data directory holds")
        if not quiet and not as_json:
            tell(f"clients: set -a; . {home.root / CLIENT_FILE}; set +a   (Ctrl-C ends everything)")
        code = 0
        supervisor.supervise()
        tell("stopping")
    return code


@click.command(short_help="Start a fleet of three nodes, run a workflow across it, stop it.")
@click.option("-v", "--verbose", is_flag=True, help="The logs of all processes.")
@wants_json
def demo(verbose: bool, as_json: bool) -> int:
    """Start a fleet of three nodes in a temporary directory, run a workflow across it, and stop everything.

    Nothing is left, no process and no file. The workflow is config/examples/demo.yaml.
    """
    began = time.monotonic()
    if not DEMO_FILE.exists():
        raise InvalidInput(f"{DEMO_FILE} is not here", hint="run the demo from a checkout of Muster")
    directory = Path(tempfile.mkdtemp(prefix="muster-demo-"))
    found: dict[str, str] = {}
    try:
        home = Home(directory / "fleet")
        with Supervisor(home, _tell, verbose=verbose) as supervisor:
            with _stopping():
                ready = bring_up(supervisor, Wanted(DEMO_NODES, temporary=directory), dict(os.environ))
                if not as_json:
                    _say_ready(ready, home, time.monotonic() - began, as_json)
                    click.echo("")
                supervisor.run(_client(ready, directory, home, as_json))
                found = {} if supervisor.is_stopping else _last_execution(ready)
            was_stopped = supervisor.is_stopping
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return _say_demo(found, was_stopped, time.monotonic() - began, as_json)


def _say_demo(found: dict[str, str], was_stopped: bool, seconds: float, as_json: bool) -> int:
    if was_stopped:
        click.echo("demo: stopped; nothing is left running", err=True)
        return _INTERRUPTED
    ok = found.get("status") == "completed"
    word = "ok" if ok else "failed"
    if as_json:
        click.echo(json_text({"demo": word, **found, "nodes": len(DEMO_NODES), "seconds": round(seconds, 1)}))
    else:
        facts = " ".join(f"{name}={value}" for name, value in found.items())
        click.echo(f"demo: {word} {facts} nodes={len(DEMO_NODES)} seconds={seconds:.1f}")
    return 0 if ok else 1


def _client(ready: Ready, directory: Path, home: Home, quiet: bool) -> Spec:
    """The same `muster run` that a person would type, on this terminal."""
    directory_parameter = f"directory={directory / 'deployed'}"
    argv = [sys.executable, "-m", "app.cli.main", "run", str(DEMO_FILE), "-p", directory_parameter]
    env = {name: value for name, value in os.environ.items() if not name.startswith(settings.PREFIX)}
    env |= {
        settings.environment_name("url"): ready.url,
        settings.environment_name("token"): ready.token,
        "PYTHONPATH": str(DEMO_FILE.parents[2]),
    }
    return Spec("demo", argv, env, directory, home.log("demo") if quiet else None)


def _last_execution(ready: Ready) -> dict[str, str]:
    page = Client(ready.url, ready.token).get(api("workflow-executions"), limit=1)
    return (
        {"execution": one["id"], "status": one["status"]} if (one := next(iter(page["items"]), None)) else {}
    )


def _say_ready(ready: Ready, home: Home, seconds: float, as_json: bool) -> None:
    facts = {"url": ready.url, "nodes": len(ready.nodes), "data": str(home.root)} | {
        "seconds": round(seconds, 1)
    }
    if ready.flower:
        facts["flower"] = ready.flower
    if as_json:
        click.echo(json_text({**facts, "nodes": list(ready.nodes)}))
    else:
        click.echo("ready " + " ".join(f"{name}={value}" for name, value in facts.items()))
    sys.stdout.flush()


def _tell(text: str) -> None:
    click.echo(f"muster: {text}", err=True)


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        if not re.match(NODE, name):
            raise InvalidInput(f"--nodes: {name!r} cannot be a node's name", hint=NODE_RULE)
        if name == LOCAL or names.count(name) > 1:
            why = "is there anyway" if name == LOCAL else "stands there twice"
            raise InvalidInput(f"--nodes: {name!r} {why}", hint="name every other node once")
    return names


@contextmanager
def _stopping() -> Iterator[None]:
    """Being asked to stop while starting is no failure."""
    try:
        yield
    except Stopped as stopped:
        click.echo(f"muster: {stopped.message}", err=True)
