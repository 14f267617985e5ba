"""Where a runner is reached: DIR/runner.json names its socket. Both sides of the socket use this.

One runner a directory: it holds a lock on DIR/runner.lock for as long as it lives.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from typing import Any

ALREADY_RUNNING = 3
"""The runner's exit code where another one holds the directory."""
_LONGEST = 100
"""Bytes: the kernel takes 107 in a socket's path."""


class AlreadyRunning(Exception):
    """Another runner holds the directory."""


def take(root: str) -> int:
    """Makes the directory private and locks it; the lock's descriptor. Raises `AlreadyRunning`."""
    for directory in (root, os.path.join(root, "jobs"), os.path.join(root, "trash")):
        os.makedirs(directory, 0o700, exist_ok=True)
        os.chmod(directory, 0o700)
    lock = os.open(os.path.join(root, "runner.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise AlreadyRunning(f"another runner owns {root}") from None
    return lock


def listen(root: str) -> socket.socket:
    """Binds the socket, 0600 in a 0700 directory. Nobody finds it before `announce`."""
    _remove_old(root)
    path = os.path.join(root, "runner.sock")
    if len(os.fsencode(path)) >= _LONGEST:
        path = os.path.join(_short_directory(), "runner.sock")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    mask = os.umask(0o177)
    try:
        listener.bind(path)
    finally:
        os.umask(mask)
    listener.listen(128)
    listener.setblocking(False)
    return listener


def announce(root: str, listener: socket.socket) -> None:
    """Says in runner.json where this process listens."""
    temporary = os.path.join(root, "runner.json.new")
    with open(temporary, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        json.dump({"pid": os.getpid(), "socket": listener.getsockname()}, file)
    os.rename(temporary, os.path.join(root, "runner.json"))


def leave(root: str) -> None:
    """Removes what `listen` and `announce` made; the lock goes with the process."""
    _remove_old(root)
    _unlink(os.path.join(root, "runner.json"))


def connect(root: str, timeout: float) -> socket.socket:
    """A connection to the directory's runner. Raises OSError where none answers within `timeout` seconds."""
    path = read(root).get("socket")
    if not isinstance(path, str):
        raise FileNotFoundError(f"no runner has written {root}/runner.json")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.settimeout(timeout)
        sock.connect(path)
    except OSError:
        sock.close()
        raise
    return sock


def read(root: str) -> dict[str, Any]:
    """What the last runner wrote to runner.json: pid and socket; empty where there is none."""
    try:
        with open(os.path.join(root, "runner.json"), "rb") as file:
            value = json.loads(file.read())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _short_directory() -> str:
    name = f"muster-{os.urandom(8).hex()}"
    for parent in (os.environ.get("XDG_RUNTIME_DIR", ""), "/tmp"):
        directory = os.path.join(parent, name)
        if os.path.isabs(parent) and len(os.fsencode(directory)) < _LONGEST - len("/runner.sock"):
            try:
                os.mkdir(directory, 0o700)
            except OSError:
                continue
            return directory
    raise OSError("no directory is short enough for a socket; set XDG_RUNTIME_DIR to a short private one")


def _remove_old(root: str) -> None:
    _unlink(os.path.join(root, "runner.sock"))
    path = read(root).get("socket")
    if isinstance(path, str) and os.path.basename(os.path.dirname(path)).startswith("muster-"):
        _unlink(path)
        try:
            os.rmdir(os.path.dirname(path))
        except OSError:
            pass


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
