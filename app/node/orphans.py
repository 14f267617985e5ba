"""What a runner does, before it listens, about the jobs of the runner before it."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from typing import Any

from app import powershell
from app.node import jobdir, process, spool, sweep
from app.transport.filenames import is_file_name

_ROUNDS = 200
_PAUSE = 0.02
_REMEMBER = 7 * 86400
"""Seconds for which a cancel that came before its start is remembered."""


def settle(root: str, log: Callable[[str], None]) -> dict[str, dict[str, Any]]:
    """Ends every job that was claimed and has no exit record: nobody watches it, nobody can say how it ends.

    Its processes are killed, found by their recorded identity and by their cookie, and its exit record says
    `unknown`. Waits until they are gone, 4 s at the most. Returns by job the records that the disk did not
    take.
    """
    claimed = [entry for entry in _directories(root) if jobdir.is_claimed(entry.path)]
    orphans = {entry.name: entry.path for entry in claimed if jobdir.exit_record(entry.path) is None}
    if not orphans:
        return {}
    killed = {job_id for job_id, directory in orphans.items() if _kill_group(directory)}
    cookies = frozenset(orphans)
    left: dict[int, str] = {}
    for _ in range(_ROUNDS):
        left = sweep.bearers(cookies)
        if not left:
            break
        killed.update(left.values())
        for pid, cookie in left.items():
            sweep.signal_member(pid, cookie, None, signal.SIGKILL)
        time.sleep(_PAUSE)
    unstored = {}
    for job_id, directory in orphans.items():
        remaining = sum(1 for cookie in left.values() if cookie == job_id)
        record = _record(job_id, directory, job_id in killed, remaining)
        jobdir.remove_given(directory)
        jobdir.remove(directory, _cleanup(directory))
        log(f"job {job_id}: {record['error']['message']}")
        try:
            jobdir.write_exit_record(directory, json.dumps(record))
        except OSError as reason:
            log(f"job {job_id}: its exit record cannot be written now: {reason}")
            unstored[job_id] = record
    return unstored


def remembered_cancels(root: str, now: float) -> list[str]:
    """The jobs with a cancel that came before their start, oldest first; older than a week are dropped."""
    found = []
    for entry in _directories(root):
        if jobdir.is_claimed(entry.path):
            continue
        cancel = jobdir.read_json(entry.path, "cancel")
        at = cancel.get("at", 0.0) if cancel else 0.0
        if now - at > _REMEMBER:
            # Also a directory that a crash left behind before its claim.
            jobdir.discard(root, entry.name)
        else:
            found.append((at, entry.name))
    return [name for _, name in sorted(found)]


def _directories(root: str) -> list[os.DirEntry[str]]:
    with os.scandir(os.path.join(root, "jobs")) as entries:
        return [
            entry for entry in entries if jobdir.is_id(entry.name) and entry.is_dir(follow_symlinks=False)
        ]


def _kill_group(directory: str) -> bool:
    identity = jobdir.claim_of(directory)
    pid, start, boot = identity.get("pid"), identity.get("start_time"), identity.get("boot_id")
    if not (isinstance(pid, int) and isinstance(start, int) and isinstance(boot, str)):
        return False
    if pid <= 1 or not sweep.is_alive(pid, start, boot):
        return False
    sweep.signal_group(pid, signal.SIGKILL)
    return True


def _cleanup(directory: str) -> list[str]:
    """The files to remove, as they were noted: in a record that the script could write into as well."""
    noted = jobdir.claim_of(directory).get("cleanup")
    names = noted if isinstance(noted, list) else []
    return [name for name in names if is_file_name(name) or name == powershell.PRELUDE]


def _record(job_id: str, directory: str, was_killed: bool, remaining: int) -> dict[str, Any]:
    claim = jobdir.claim_of(directory)
    end = "the script was killed" if was_killed else "nothing of the script was left"
    error = {"type": "interrupted", "message": f"the runner died while the job ran; {end}"}
    record = {
        **process.opening(job_id, claim.get("digest", ""), "unknown", error),
        "started_at": claim.get("at"),
        **{name: spool.abandoned(directory, name) for name in spool.STREAMS},
    }
    if remaining:
        record["left"] = remaining
    return record
