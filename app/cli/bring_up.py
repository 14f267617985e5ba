"""Brings a fleet up on this machine: what is started in which order, and when it counts as ready."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from app.cli import environment, parts, redis_server
from app.cli.client import Client, api
from app.cli.environment import Environments
from app.cli.failures import TimedOut
from app.cli.home import Home
from app.cli.listening import answers, listen
from app.cli.prepare import prepare
from app.cli.supervisor import Supervisor
from app.compiler.plan import LOCAL
from app.errors import Conflict, MusterError, Unavailable
from app.settings import environment_name

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Wanted:
    """`port` 0 takes a free one; `external` uses the broker and database that the environment names.
    `temporary` is a directory that goes with the fleet, even if that is killed.
    """

    nodes: tuple[str, ...] = ()
    port: int = 0
    flower: bool = False
    external: bool = False
    temporary: Path | None = None


@dataclass(frozen=True, slots=True)
class Ready:
    """A fleet that answers: `nodes` are all of its nodes."""

    url: str
    token: str = field(repr=False)
    nodes: tuple[str, ...]
    flower: str = ""


def bring_up(supervisor: Supervisor[Home], wanted: Wanted, given: Mapping[str, str]) -> Ready:
    """Starts everything and waits until every node is online. `given` is the caller's environment.

    Raises Unavailable with the end of the log of what does not come up, Conflict for a port in use, Stopped.
    """
    home = supervisor.home
    with _listen(wanted.port) as listener:
        url = f"http://{HOST}:{listener.getsockname()[1]}"
        environments = replace(_broker(supervisor, wanted, given), api_url=url)
        settings = environments.settings()
        names = (*([LOCAL] if settings.local_node else []), *wanted.nodes)
        prepared = prepare(settings, home, names)
        if environments.redis_url:
            socket_path = environments.redis_url.removeprefix(_SCHEME)
            supervisor.wait_until(lambda: redis_server.answers(socket_path), "the broker")
        descriptor = os.dup(listener.fileno())
        supervisor.start(
            parts.api(home, environments, descriptor, settings.api_threads),
            parts.control(home, environments, wanted.flower),
            parts.io(home, environments, wanted.flower),
            *(parts.node(name, home, environments, wanted.flower) for name in names),
            parts.beat(home, environments),
        )
    client = Client(url, prepared.token, timeout=5.0)
    supervisor.wait_until(lambda: _is_healthy(client), "the API")
    supervisor.wait_until(lambda: set(names) <= _online(client), "the nodes")
    home.write_client_file(url, prepared.token)
    home.write_node_file({**environments.broker(), environment_name("url"): url})
    # It takes 100 MB, and few fleets have machines that it is for.
    impatient = Client(url, prepared.token, timeout=1.0)
    supervisor.start_when(lambda: _has_ssh(impatient), parts.gateway(home, environments, wanted.flower))
    flower = ""
    if wanted.flower:
        # After the workers: it looks at them when it starts.
        bind = f"{HOST}:{_free_port()}"
        supervisor.start(parts.flower(bind, home, environments))
        supervisor.wait_until(lambda: answers(bind, "/", 401, 2.0), "Flower")
        flower = f"http://{bind}"
    return Ready(url, prepared.token, names, flower)


_SCHEME = "redis+socket://"


def _broker(supervisor: Supervisor[Home], wanted: Wanted, given: Mapping[str, str]) -> Environments:
    home = supervisor.home
    if wanted.external:
        supervisor.guard()
        return environment.external(given, home.root)
    server = redis_server.find()
    sockets = home.socket_directory()
    supervisor.guard(sockets, *([wanted.temporary] if wanted.temporary else []))
    environments = Environments(given, home.root, f"{_SCHEME}{sockets / 'redis.sock'}")
    configuration = home.redis / "redis.conf"
    redis_server.write_configuration(configuration, str(sockets / "redis.sock"), home.redis)
    supervisor.start(parts.broker(server.path, configuration, home, environments))
    return environments


def _listen(port: int) -> socket.socket:
    try:
        return listen(HOST, port)
    except OSError as error:
        raise Conflict(
            f"{HOST}:{port} cannot be listened on: {error.strerror}",
            hint="give another --port, or leave it out for a free one",
            code="port-in-use",
        ) from None


def _free_port() -> int:
    with _listen(0) as listener:
        port: int = listener.getsockname()[1]
    return port


def _is_healthy(client: Client) -> bool:
    try:
        return client.call("GET", "/healthz").status == 200
    except (Unavailable, TimedOut):
        return False


def _has_ssh(client: Client) -> bool:
    """Whether there is a node that is reached over SSH; no while the API does not say."""
    try:
        return any(one.get("transport") == "ssh" for one in client.items(api("nodes")))
    except MusterError:
        return False


def _online(client: Client) -> set[str]:
    """The names of the nodes that are online; none while the API is not ready."""
    try:
        found = client.items(api("nodes"))
    except MusterError as error:
        if error.status < 500 and not isinstance(error, TimedOut):
            raise
        return set()
    return {str(one["name"]) for one in found if one.get("online")}
