"""The processes of a fleet on one machine, as they are started."""

from __future__ import annotations

import sys
from pathlib import Path

from app.cli.environment import Environments
from app.cli.home import Home
from app.cli.processes import Spec

_EVENTS = {"task_events": "1"}
WORKERS, SERVERS, BROKER = range(3)
"""Stages: what depends on nothing that comes before it in the list, in the order in which they are ended."""
API_THREADS = 64
"""At the least: every stream that somebody follows holds one."""


def broker(program: str, configuration: Path, home: Home, environments: Environments) -> Spec:
    """The embedded Redis."""
    return _spec("redis", [program, str(configuration)], home, environments.control(), BROKER)


def api(home: Home, environments: Environments, listener: int, threads: int) -> Spec:
    """The API on a socket that the supervisor holds, so that its port outlives every restart."""
    count = str(max(API_THREADS, threads))
    argv = [
        *(sys.executable, "-m", "gunicorn", "app.api:create_app()"),
        *("--bind", f"fd://{listener}", "--worker-class", "gthread", "--workers", "1"),
        *("--threads", count, "--timeout", "60", "--graceful-timeout", "2"),
        *("--no-control-socket", "--log-level", "warning"),
        *("--logger-class", "app.api.gunicorn_log.Logger"),
    ]
    # The API has as many seats as it is told that it has threads.
    environment = environments.control(api_threads=count)
    return _spec("api", argv, home, environment, SERVERS, pass_fds=(listener,))


def control(home: Home, environments: Environments, events: bool) -> Spec:
    """The worker that collects, settles and ticks."""
    env = environments.control(**_EVENTS if events else {})
    return _spec("control", _celery("control", "worker"), home, env, SERVERS)


def io(home: Home, environments: Environments, events: bool) -> Spec:
    """The worker that makes calls."""
    env = environments.control(**_EVENTS if events else {})
    return _spec("io", _celery("io", "worker"), home, env, WORKERS)


def gateway(home: Home, environments: Environments, events: bool) -> Spec:
    """The worker that reaches machines over SSH."""
    env = environments.control(**_EVENTS if events else {})
    return _spec("ssh", _celery("remote", "worker"), home, env, WORKERS)


def beat(home: Home, environments: Environments) -> Spec:
    """The clock."""
    return _spec("beat", _celery("beat", "beat"), home, environments.control(), WORKERS)


def node(name: str, home: Home, environments: Environments, events: bool) -> Spec:
    """The worker of one node."""
    env = environments.node(name, home.node(name), **_EVENTS if events else {})
    return _spec(f"node-{name}", _celery("node", "worker"), home, env, WORKERS)


def flower(bind: str, home: Home, environments: Environments) -> Spec:
    """Flower, for this machine alone."""
    argv = [sys.executable, "-m", "workers.flower"]
    return _spec("flower", argv, home, environments.flower(bind), WORKERS)


def _celery(module: str, verb: str) -> list[str]:
    return [sys.executable, "-m", "celery", "-A", f"workers.{module}", verb]


def _spec(
    name: str, argv: list[str], home: Home, env: dict[str, str], stage: int, *, pass_fds: tuple[int, ...] = ()
) -> Spec:
    # In the data directory: Celery puts the current directory in front of everything that it imports.
    return Spec(name, argv, env, home.root, home.log(name), pass_fds, stage)
