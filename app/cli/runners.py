"""Ending node runners with all of their scripts: they are in sessions of their own, on purpose."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from app.node import endpoint

PATIENCE = 10.0
"""Seconds that scripts have to end before they are killed."""
_LAST = 3.0
_MOMENT = 0.5
_LOOK_EVERY = 0.05


def end_all(nodes: Path, *, in_a_hurry: Callable[[], bool] = lambda: False) -> int:
    """Tells every runner to cancel its scripts and exit, and kills what does not; how many there were.

    They have `PATIENCE` seconds, or only a moment once `in_a_hurry` says so.
    """
    found = [root for root in _roots(nodes) if is_held(root)]
    for root in found:
        _ask(root, "stop", cancel=True)
    _wait(found, _MOMENT)
    _wait(found, PATIENCE, in_a_hurry)
    for root in found:
        if is_held(root):
            _kill_groups(job.get("pid") for job in _ask(root, "list").get("jobs", ()))
    _wait(found, _LAST)
    for root in found:
        pid = endpoint.read(str(root)).get("pid")
        # Held: the process that wrote this file is alive, so its id is its own.
        if is_held(root) and isinstance(pid, int):
            _kill(pid)
    _wait(found, _LAST)
    return len(found)


def is_held(root: Path) -> bool:
    """Whether a runner lives there: it holds the lock as long as it does."""
    try:
        lock = os.open(root / "runner.lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def scripts_of(root: Path) -> list[str]:
    """The jobs whose scripts run on the node of this directory; none where no runner answers."""
    return [str(job.get("job")) for job in _ask(root, "list").get("jobs", ())]


def cancel_all(root: Path) -> None:
    """Has the node's runner end every script; it stays, and its worker hears how they ended."""
    for job in scripts_of(root):
        _ask(root, "cancel", job=job, reason="the node was stopped")


def _roots(nodes: Path) -> list[Path]:
    """Of a node's own directory that alone, else those of the nodes in it."""
    if (nodes / "runner.lock").exists():
        return [nodes]
    return sorted(
        {path.parent for pattern in ("*/runner.lock", "*/*/runner.lock") for path in nodes.glob(pattern)}
    )


def _ask(root: Path, verb: str, **more: Any) -> dict[str, Any]:
    """One request, one answer; empty where there is none."""
    try:
        with endpoint.connect(str(root), 2.0) as sock:
            sock.sendall(json.dumps({"id": 1, "do": verb, **more}).encode() + b"\n")
            with sock.makefile("rb") as lines:
                answer = json.loads(lines.readline(1 << 20))
    except (OSError, ValueError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _wait(roots: Iterable[Path], seconds: float, enough: Callable[[], bool] = lambda: False) -> None:
    end = time.monotonic() + seconds
    left = list(roots)
    while left and time.monotonic() < end and not enough():
        left = [root for root in left if is_held(root)]
        if left:
            time.sleep(_LOOK_EVERY)


def _kill_groups(pids: Iterable[Any]) -> None:
    for pid in pids:
        if isinstance(pid, int) and pid > 1:
            try:
                os.killpg(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
