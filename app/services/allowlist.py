"""The allowlist as a process sees it: read once, and again when the file changes. A broken one allows nothing."""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import replace
from pathlib import Path

from app.allow.policy import ENFORCE, MODES, Policy
from app.language import allowlist
from app.language.source import MOST_BYTES
from app.settings import Settings, environment_name

log = logging.getLogger(__name__)

_Seen = tuple[str, str, int, int, int]
"""File and mode as set, then what changes with the content: time of change in ns, inode, size."""


class AllowlistFile:
    """Safe for any thread. Looking whether the file has changed costs one `stat`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: _Seen | None = None
        self._policy = Policy(problem="the allowlist was not read yet")

    def current(self, settings: Settings) -> Policy:
        """The policy as the file and MUSTER_ALLOWLIST_MODE have it now. Never raises: see `Policy.problem`."""
        path = settings.allowlist_file
        with self._lock:
            try:
                found = os.stat(path)
                seen = (str(path), settings.allowlist_mode, found.st_mtime_ns, found.st_ino, found.st_size)
            except OSError as error:
                seen = (str(path), settings.allowlist_mode, 0, 0, 0)
                if seen != self._seen:
                    self._policy = _broken(f"{path}: {error.strerror}")
            else:
                if seen != self._seen:
                    self._policy = read(path, settings.allowlist_mode)
            self._seen = seen
            return self._policy


def read(path: Path, mode: str) -> Policy:
    """The policy in a file, with its mode unless `mode` names another. What is broken allows nothing."""
    if mode and mode not in MODES:
        name = environment_name("allowlist_mode")
        return _broken(f"{name}={mode!r} is none of {', '.join(MODES)}")
    try:
        with path.open("rb") as file:
            loaded = allowlist.load(file.read(MOST_BYTES + 1), str(path))
    except OSError as error:
        return _broken(f"{path}: {error.strerror}")
    if loaded.policy is None:
        first = loaded.problems[0]
        return _broken(f"{path}:{first.line}:{first.column}: {first.message}")
    log.info("the allowlist %s has %d entries", path, len(loaded.policy.entries))
    return replace(loaded.policy, mode=mode or loaded.policy.mode)


def _broken(why: str) -> Policy:
    log.error(
        "THE ALLOWLIST IS BROKEN AND NOTHING IS ALLOWED ON THE SPOT: %s (`muster allowlist check`)", why
    )
    return Policy(mode=ENFORCE, problem=f"the allowlist is broken, so nothing is allowed: {why}")
