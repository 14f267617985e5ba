"""Reaches the runner of a directory, and starts one where none answers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from app.errors import Unavailable
from app.node import endpoint

START_WITHIN = 15.0
"""Seconds that a new runner has to answer; it may have leftovers to kill first."""

_ROOT = str(Path(__file__).resolve().parents[2])
_LAUNCH = "import sys; sys.path.append({root!r}); from app.node.runner import main; sys.exit(main())"


def reach(directory: str, given_up: Callable[[], bool], *, may_start: bool = True) -> socket.socket:
    """A connection to the directory's runner; one is started where none answers, if it `may_start`.

    Raises `Unavailable` where none comes up, or once `given_up()`.
    """
    try:
        return _open(directory)
    except OSError:
        pass
    deadline = time.monotonic() + START_WITHIN
    while time.monotonic() < deadline and not given_up():
        if may_start:
            _spawn(directory)
        # Another client's runner may still be busy with what its predecessor left, and any may die again.
        again = time.monotonic() + 0.5
        while time.monotonic() < again and not given_up():
            try:
                return _open(directory)
            except OSError:
                time.sleep(0.002 if may_start else 0.1)
    raise Unavailable(f"no runner came up within {START_WITHIN:.0f} s", code="runner")


def _open(directory: str) -> socket.socket:
    sock = endpoint.connect(directory, 2.0)
    sock.settimeout(None)
    return sock


def command(directory: str) -> list[str]:
    """The words that start a runner for a directory: without the packages of the environment, as it needs none."""
    return [sys.executable, "-I", "-S", "-c", _LAUNCH.format(root=_ROOT), "--dir", directory]


def _spawn(directory: str) -> None:
    """A runner in a session of its own.

    Returns when it is about to listen, or somebody else's is.
    """
    os.makedirs(directory, 0o700, exist_ok=True)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    output = os.open(os.path.join(directory, "runner.log"), flags, 0o600)
    try:
        done = subprocess.run(
            [*command(directory), "--detach"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            timeout=START_WITHIN,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"the runner did not start within {START_WITHIN:.0f} s", code="runner") from None
    finally:
        os.close(output)
    if done.returncode not in (0, endpoint.ALREADY_RUNNING):
        message = f"the runner did not start (exit code {done.returncode}); see {directory}/runner.log"
        raise Unavailable(message, code="runner")
