"""A Redis of our own: finding a server that is new enough, its configuration, whether it answers."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from app.errors import Unavailable

OLDEST = (6, 2)
NAMES = ("redis-server", "valkey-server")
LONGEST_SOCKET = 100
"""Bytes: the kernel takes 107 in a socket's path."""

_VERSION = re.compile(r"\bv=([0-9]+)\.([0-9]+)\.([0-9]+)")
# Nobody has business with these on a broker; EVAL stays, the queues are moved with scripts.
_RENAMED_AWAY = ("CONFIG", "DEBUG", "MODULE", "REPLICAOF", "SLAVEOF")


@dataclass(frozen=True, slots=True)
class Server:
    """A program that can be our broker."""

    path: str
    version: tuple[int, int, int]

    @property
    def is_new_enough(self) -> bool:
        return self.version >= OLDEST


def candidates() -> Iterator[Server]:
    """Every server that can be run, those of the virtual environment first."""
    seen: set[str] = set()
    beside = str(Path(sys.executable).parent)
    for directory in (beside, None):
        for name in NAMES:
            path = shutil.which(name, path=directory)
            if path and path not in seen:
                seen.add(path)
                version = _version(path)
                if version:
                    yield Server(path, version)


def find() -> Server:
    """The first server that is new enough. Raises Unavailable with the ways out."""
    found = []
    for server in candidates():
        if server.is_new_enough:
            return server
        found.append(f"{server.path} is {'.'.join(map(str, server.version))}")
    wanted = ".".join(map(str, OLDEST))
    message = f"no redis-server of {wanted} or newer" + (f" ({'; '.join(found)})" if found else " was found")
    raise Unavailable(
        message,
        hint="install Muster with its server extra (for Python 3.11 or 3.12 on Linux it brings one); or "
        f"install redis or valkey {wanted}+ with your system's packages, on the PATH; or run one yourself, "
        "set REDIS_URL and add --external",
        code="no-redis",
    )


def _version(path: str) -> tuple[int, int, int] | None:
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = _VERSION.search(done.stdout)
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


def write_configuration(path: Path, socket_path: str, directory: Path) -> None:
    """A server that only this user can reach, keeps everything on disk and never throws anything away."""
    if len(os.fsencode(socket_path)) >= LONGEST_SOCKET:
        raise Unavailable(
            f"the socket's path {socket_path} is too long",
            hint="set XDG_RUNTIME_DIR to a short private directory",
        )
    directory.mkdir(mode=0o700, exist_ok=True)
    lines = [
        "port 0",
        f'unixsocket "{socket_path}"',
        "unixsocketperm 600",
        f'dir "{directory}"',
        "daemonize no",
        "appendonly yes",
        "appendfsync everysec",
        'save ""',
        "maxmemory-policy noeviction",
        *(f'rename-command {command} ""' for command in _RENAMED_AWAY),
    ]
    with open(path, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write("\n".join(lines) + "\n")


def answers(socket_path: str) -> bool:
    """Whether the server there has loaded its data and takes commands."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(1.0)
            sock.connect(socket_path)
            sock.sendall(b"PING\r\n")
            return sock.recv(64).startswith(b"+PONG")
    except OSError:
        return False
