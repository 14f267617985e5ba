"""What this machine's owner lets run on it: a file that no order can change, asked before every job.

It belongs to root, and nobody else may write it or the directories above it; otherwise, and where it cannot be
read, everything is refused. Where there is no file at its usual place, and never was, there is no policy.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
from collections.abc import Mapping
from dataclasses import replace

from app import marks
from app.allow import toml
from app.allow.policy import AUDIT, ENFORCE, OFF, Asked, Policy
from app.allow.programs import MULTI_CALL, is_unsafe
from app.node import shells
from app.settings import Settings
from app.transport.messages import Job

log = logging.getLogger(__name__)

MOST_BYTES = 1 << 20
USUAL_PLACE = Settings().node_policy

_NONE = Policy(mode=OFF)
_LONGEST_TOLD = 200


class Unfit(Exception):
    """The file may not be followed; the message says why."""


class PolicyFile:
    """Read when it is first asked for, and again when the file changes. Safe for any thread."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._seen: object = None
        self._policy = _NONE
        self._was_there = path != USUAL_PLACE
        self._refused = self._would_refuse = 0

    def refusal(self, job: Job) -> str:
        """Why this job may not run here; empty if it may."""
        policy = self._current()
        if policy is _NONE:
            return ""
        asked = Asked(job.argv, job.script, job.shell, job.env, job.cwd)
        verdict = policy.judge(asked, os.path.realpath)
        why = verdict.why
        if verdict.allowed and verdict.entry is not None and not verdict.entry.unsafe:
            why = _hidden(job)
        if not why or (policy.mode == OFF and not verdict.denied):
            return ""
        refused = verdict.denied or policy.mode == ENFORCE
        with self._lock:
            self._refused += refused
            self._would_refuse += not refused
        log.warning("job %s %s by the policy: %s", job.id, "refused" if refused else "would be refused", why)
        return f"refused by this node's policy: {why}" if refused else ""

    def told(self) -> dict[str, str]:
        """For heartbeats: the mode (or what is wrong), and how many jobs were or would have been refused."""
        policy = self._current()
        if not self._was_there:
            return {}
        found = {"policy": policy.problem[:_LONGEST_TOLD] or policy.mode}
        with self._lock:
            return found | {
                "policy_refused": str(self._refused),
                "policy_would_refuse": str(self._would_refuse),
            }

    def _current(self) -> Policy:
        with self._lock:
            try:
                found = os.lstat(self._path)
                seen: object = (found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_size)
            except FileNotFoundError:
                seen = "missing"
            except OSError as error:
                seen = f"{error.strerror}"
            if seen != self._seen:
                self._seen = seen
                self._policy = self._read(missing=seen == "missing")
            return self._policy

    def _read(self, *, missing: bool) -> Policy:
        if missing and not self._was_there:
            return _NONE
        self._was_there = True
        try:
            policy, problems = toml.load(_text_of(self._path))
            why = f"{self._path}: {problems[0]}" if problems else ""
        except Unfit as unfit:
            policy, why = None, str(unfit)
        except OSError as error:
            policy, why = None, f"{self._path} cannot be read: {error.strerror}"
        if policy is None:
            log.error("THE POLICY OF THIS NODE CANNOT BE FOLLOWED AND EVERY JOB IS REFUSED: %s", why)
            return Policy(mode=ENFORCE, problem=f"{why}; every job is refused until that is mended")
        log.info("the policy %s: %s, %d entries", self._path, policy.mode, len(policy.entries))
        if policy.mode == AUDIT:
            log.warning("the policy %s is only watched: nothing but `deny` is refused", self._path)
        return policy


def placed(job: Job, secrets: Mapping[str, str]) -> Job:
    """The job as its process will have it, for the policy: a variable may be what decides which program runs."""
    try:
        return replace(job, env=marks.put(job.env, secrets)) if secrets else job
    except KeyError:
        # The runner refuses a job of which a value is missing, and says which.
        return job


def _text_of(path: str) -> str:
    """The file's text. Raises Unfit where somebody who is not root could have written it, and OSError."""
    if os.path.realpath(path) != path:
        raise Unfit(f"{path} must be named by its real path, without links: {os.path.realpath(path)}")
    above = path
    while above != os.path.dirname(above):
        above = os.path.dirname(above)
        _check_owner(above, os.stat(above))
    with open(path, "rb", opener=_opener) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise Unfit(f"{path} is no file")
        _check_owner(path, found)
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise Unfit(f"{path} is larger than {MOST_BYTES} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise Unfit(f"{path} is not UTF-8") from None


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def _check_owner(path: str, found: os.stat_result) -> None:
    if found.st_uid != 0:
        raise Unfit(f"{path} does not belong to root (`chown root:root {path}`)")
    # In a sticky directory such as /tmp nobody can put another file in the place of root's.
    sticky = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky:
        raise Unfit(f"{path} may be written by others than root (`chmod go-w {path}`)")


def _hidden(job: Job) -> str:
    """Why a program that is allowed by its name is another one behind its links; empty if it is not."""
    if not job.argv:
        return ""
    called = job.argv[0].rpartition("/")[2]
    found = (
        job.argv[0] if "/" in job.argv[0] else shells.find(called, job.env.get("PATH") or shells.own_path())
    )
    name = os.path.basename(os.path.realpath(found)) if found else called
    if is_unsafe(name) and name not in MULTI_CALL:
        return f"{called} is a link to {name} here, which can run any other program"
    return ""
