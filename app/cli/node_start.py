"""`muster node start`: this machine's node in the foreground, its worker and its runner, and a port to look at it."""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import click

from app import settings
from app.cli import own_node, runners
from app.cli.client import Client
from app.cli.connection import read_ours
from app.cli.enroll import become, one_time_token
from app.cli.environment import Environments
from app.cli.home import NODE_FILE, NodeHome
from app.cli.listening import answers, listen
from app.cli.options import wants_json
from app.cli.parts import SERVERS, WORKERS
from app.cli.plain import as_json as json_text
from app.cli.processes import Spec
from app.cli.supervisor import Stopped, Supervisor, Tell
from app.compiler.plan import LOCAL
from app.errors import Conflict, InvalidInput, NotFound
from app.language.names import ADDRESS, NODE, NODE_RULE
from app.settings import Settings, environment_name

PORT = 50051
PATIENCE = 60.0
"""Seconds that scripts may go on after the first Ctrl-C, unless it is said."""
LAST_WORDS = 20.0
"""Seconds that scripts which were told to end have for that, and their node for saying how they ended."""
_WORKER = "worker"
_LOOPBACK = ("127.0.0.1", "localhost", "::1", "")
_INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Node:
    """What is to be run: `given` is the environment that names the broker, `address` what workflows call it by."""

    name: str
    directory: Path
    address: str
    slots: int
    patience: float
    given: Mapping[str, str]


@click.command(short_help="Run this machine's node until Ctrl-C.")
@click.option("--name", required=True, help="The node's name, as it is enrolled.")
@click.option(
    "-p",
    "--port",
    type=click.IntRange(0, 65535),
    default=PORT,
    show_default=True,
    help="The port of its address and of /healthz; 0 takes a free one.",
)
@click.option("--bind", default="127.0.0.1", show_default=True, help="Where /healthz is answered.")
@click.option(
    "--address", default="", metavar="HOST:PORT", help="What workflows call it by, if not by its port."
)
@click.option("--dir", "directory", type=click.Path(path_type=Path), help="The node's directory.")
@click.option("--slots", type=click.IntRange(1, 10_000), help="Scripts that run at once; 8 if not given.")
@click.option(
    "--patience",
    type=click.FloatRange(0, 86400),
    default=PATIENCE,
    show_default=True,
    help="Seconds that scripts may go on after the first Ctrl-C.",
)
@click.option(
    "--token", default="", help="Enrol it first, with the one-time token of `muster node token NAME`."
)
@click.option("--token-file", type=click.Path(path_type=Path), help="The same, with the token in a file.")
@click.option("--control", default="", help="The control keys' fingerprint, for --token.")
@click.option("--url", default="", help="The API to enrol with, instead of MUSTER_URL.")
@click.option("-v", "--verbose", is_flag=True, help="The logs of its processes.")
@wants_json
def start(
    name: str,
    port: int,
    bind: str,
    address: str,
    directory: Path | None,
    slots: int | None,
    patience: float,
    token: str,
    token_file: Path | None,
    control: str,
    url: str,
    verbose: bool,
    as_json: bool,
) -> int:
    """Run this machine's node in the foreground: the worker that takes its orders, and the runner of its scripts.

    The machine is enrolled already, or a token is given. REDIS_URL and CELERY_BROKER_URL name the broker;
    beside a `muster up` of this directory nothing needs to be named.

    The first Ctrl-C takes no more orders and lets the scripts that run go on for --patience seconds; the second
    cancels them; the third waits for nothing.
    """
    _check_name(name)
    config = settings.from_environment()
    given = _with_broker(os.environ, Path(config.data_dir))
    root = (directory or _directory(config, name)).absolute()
    _enrolled(name, root, (token, token_file, control), url or given.get(environment_name("url"), ""))
    with _listen(bind, port) as listener:
        found = address or f"{_host(given)}:{listener.getsockname()[1]}"
        node = Node(name, root, _checked(found), slots or config.node_slots, patience, given)
        return _run(node, listener, as_json, verbose)


def _run(node: Node, listener: socket.socket, as_json: bool, verbose: bool) -> int:
    home = NodeHome(node.directory)
    code = _INTERRUPTED
    with Supervisor(home, _tell, verbose=verbose) as supervisor:
        supervisor.guard()
        supervisor.start(*_parts(node, home, listener))
        try:
            supervisor.wait_until(lambda: _is_well(listener), f"node {node.name}")
            _say_ready(node, listener, as_json)
            supervisor.supervise()
            code = 0
        except Stopped as stopped:
            _tell(stopped.message)
        _leave(supervisor, node, _tell)
    return code


def _leave(supervisor: Supervisor[NodeHome], node: Node, tell: Tell) -> None:
    """The worker takes no more orders at once, and ends when the scripts have."""
    left = len(runners.scripts_of(node.directory))
    if left:
        tell(f"scripts that run: {left}; they may go on for {node.patience:g} s; Ctrl-C again cancels them")
    else:
        tell("stopping")
    supervisor.terminate(_WORKER)
    if not supervisor.outlasts(_WORKER, node.patience):
        return
    tell("cancelling the scripts; Ctrl-C again waits for nothing")
    runners.cancel_all(node.directory)
    if supervisor.outlasts(_WORKER, LAST_WORDS, stops=2):
        tell("the node goes without a word of its scripts: it says how they ended when it is started again")


def _parts(node: Node, home: NodeHome, listener: socket.socket) -> tuple[Spec, Spec]:
    environments = Environments(node.given, node.directory)
    env = environments.node(
        node.name,
        node.directory,
        node_address=node.address,
        node_slots=str(node.slots),
        # The supervisor is the one who loses patience; the worker outlasts it by what last words take.
        node_patience=str(node.patience + 2 * LAST_WORDS),
    )
    worker = [sys.executable, "-m", "celery", "-A", "workers.node", "worker"]
    healthz = [sys.executable, "-m", "app.node.healthz", str(listener.fileno())]
    return (
        Spec(_WORKER, worker, env, home.root, home.log(_WORKER), stage=WORKERS),
        Spec("healthz", healthz, env, home.root, home.log("healthz"), (listener.fileno(),), SERVERS),
    )


def _is_well(listener: socket.socket) -> bool:
    host, port = listener.getsockname()[:2]
    host = _reachable(host)
    return answers(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", "/healthz", 200, 5.0)


def _reachable(host: str) -> str:
    """Who listens everywhere is asked here."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def _say_ready(node: Node, listener: socket.socket, as_json: bool) -> None:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    facts = {
        "node": node.name,
        "address": node.address,
        "health": f"http://{shown}:{port}/healthz",
        "slots": node.slots,
        "dir": str(node.directory),
    }
    if as_json:
        click.echo(json_text(facts))
    else:
        click.echo("ready " + " ".join(f"{name}={value}" for name, value in facts.items()))
    sys.stdout.flush()


def _tell(text: str) -> None:
    click.echo(f"muster: {text}", err=True)


# what is given


def _check_name(name: str) -> None:
    if not re.match(NODE, name):
        raise InvalidInput(f"--name: {name!r} cannot be a node's name", hint=NODE_RULE)
    if name == LOCAL:
        raise Conflict(
            "`local` is the control side's own node", hint="`muster up` starts it; choose another name here"
        )


def _directory(config: Settings, name: str) -> Path:
    """Not beside the nodes of `muster up`: those it ends with all of their scripts when it ends."""
    return Path(config.node_dir) if config.node_dir else Path(config.data_dir) / "by-hand" / name


def _with_broker(given: Mapping[str, str], data_dir: Path) -> dict[str, str]:
    """The environment with the broker named: its own, or that of the fleet that `muster up` runs from here.

    Raises InvalidInput where neither names one: a broker that happens to run on this machine is not touched.
    """
    if environment_name("redis_url") in given:
        return dict(given)
    found = read_ours(data_dir / NODE_FILE)
    if environment_name("redis_url") not in found:
        raise InvalidInput(
            "no broker is named",
            hint="set REDIS_URL (and CELERY_BROKER_URL where there is RabbitMQ), or call this from the directory "
            "in which `muster up` runs",
            code="no-broker",
        )
    return found | dict(given)


def _enrolled(name: str, root: Path, token: tuple[str, Path | None, str], url: str) -> None:
    """Sees to it that the directory is this node's. Raises NotFound with what to type where it is nobody's."""
    if own_node.is_enrolled(root, name):
        return
    word, file, control = token
    if not word and file is None:
        raise NotFound(
            f"{root} holds no node",
            hint=f"on the control side `muster node token {name} --json > {name}.token`, then here "
            f"`muster node start --name {name} --token-file {name}.token --url {url or 'URL'}`",
            code="not-enrolled",
        )
    if word and file is not None:
        raise click.UsageError("give one of --token and --token-file")
    if not url:
        raise click.UsageError("--token and --token-file need --url, the API to enrol with")
    told = become(one_time_token(name, word, file, control), Client(url.rstrip("/")), root)
    _tell(f"enrolled: {name} in installation {told['installation']}, control keys {told['control']}")


def _listen(bind: str, port: int) -> socket.socket:
    try:
        return listen(bind, port)
    except OSError as error:
        raise InvalidInput(
            f"{bind}:{port} cannot be listened on: {error.strerror}",
            hint="another node may have it: give another --port, or 0 for a free one",
            code="port-in-use",
        ) from None


def _host(given: Mapping[str, str]) -> str:
    """By what others know this machine: `localhost` where the broker is on it, else its name."""
    host = urlsplit(given[environment_name("redis_url")]).hostname or ""
    return "localhost" if host in _LOOPBACK else socket.gethostname()


def _checked(address: str) -> str:
    port = address.rpartition(":")[2]
    if not re.match(ADDRESS, address) or not 0 < int(port) <= 65535:
        raise InvalidInput(
            f"--address: {address!r} is not HOST:PORT", hint="for example --address web-1.example:50051"
        )
    return address.lower()
