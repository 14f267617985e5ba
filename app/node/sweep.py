"""Who belongs to a job, read from /proc: by process group, by session, and by the cookie in the environment.

A process group loses whoever calls setsid; the cookie (MUSTER_COOKIE=<job id>, inherited by every
descendant that does not clean its environment) finds those. Only the runner's own user's processes can be
read and signalled.
"""

from __future__ import annotations

import errno
import functools
import os
import signal
from collections.abc import Iterable

COOKIE = "MUSTER_COOKIE"

_FEW = 50
_ENVIRON_LIMIT = 4 << 20
_MARK = b"\0" + COOKIE.encode() + b"="


class Stat:
    """What /proc/PID/stat says of one process; `start` is in clock ticks since boot."""

    __slots__ = ("group", "session", "start", "state")

    def __init__(self, state: str, group: int, session: int, start: int) -> None:
        self.state = state
        self.group = group
        self.session = session
        self.start = start


@functools.cache
def boot_id() -> str:
    """Names this boot of the machine: a pid and start time mean nothing without it."""
    return (_read("/proc/sys/kernel/random/boot_id", 64) or b"").decode().strip()


def stat(pid: int) -> Stat | None:
    """The process, or None where it is gone, or dead and only waiting to be reaped."""
    data = _read(f"/proc/{pid}/stat", 4096)
    if not data:
        return None
    # The name is in brackets and may itself hold brackets and spaces: what follows the last one is plain.
    fields = data[data.rfind(b")") + 2 :].split()
    state = fields[0].decode()
    if state in "ZXx":
        return None
    return Stat(state, int(fields[2]), int(fields[3]), int(fields[19]))


def is_alive(pid: int, start: int, boot: str) -> bool:
    """Is this very process alive, not another one that was given its number later or after a reboot?"""
    found = stat(pid)
    return found is not None and found.start == start and boot == boot_id()


def pids() -> list[int]:
    """Every process number there is now."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def last_pid() -> int:
    """The process number that was given out last; 0 where it cannot be read."""
    fields = (_read("/proc/loadavg", 128) or b"").split()
    return int(fields[4]) if len(fields) > 4 else 0


def cookie_of(pid: int) -> str | None:
    """The job that the process says it belongs to."""
    environ = b"\0" + (_read(f"/proc/{pid}/environ", _ENVIRON_LIMIT) or b"")
    at = environ.find(_MARK)
    if at < 0:
        return None
    value = environ[at + len(_MARK) :]
    return value[: value.find(b"\0")].decode("utf-8", "replace") if b"\0" in value else None


def bearers(cookies: frozenset[str]) -> dict[int, str]:
    """Live processes, by number, that carry one of `cookies`."""
    found = ((pid, cookie_of(pid)) for pid in pids())
    return {pid: cookie for pid, cookie in found if cookie in cookies}


def belongs(pid: int, cookie: str, group: int | None) -> bool:
    """Is the process alive and the job's: a bearer of its cookie, or in its group or session?"""
    if cookie_of(pid) == cookie:
        return True
    process = None if group is None else stat(pid)
    return process is not None and group in (process.group, process.session)


def survivors(cookie: str, group: int | None) -> list[int]:
    """Live processes of a job: bearers of its cookie and, if given, members of the group or session `group`.

    `group` may only be given while the group's leader has not been reaped: after that its number can be
    another's.
    """
    return [pid for pid in pids() if belongs(pid, cookie, group)]


def left_behind(cookie: str, main: int) -> int:
    """How many bearers of the cookie live on after the job's main process, at the price of a short look.

    Only process numbers given out since the main one are looked at, and none where nothing was forked
    since; after the numbers have gone round all the way in one job, some may be missed. For telling
    people, never for killing.
    """
    last = last_pid()
    if main <= last <= main + _FEW:
        # Most of these are gone again, and to be told so costs less than a list of all that live.
        candidates: Iterable[int] = range(main + 1, last + 1)
    elif last > main:
        candidates = [pid for pid in pids() if main < pid <= last]
    else:
        candidates = [pid for pid in pids() if pid > main or pid <= last]
    return sum(1 for pid in candidates if cookie_of(pid) == cookie)


def signal_group(group: int, number: int) -> None:
    """Signals the whole group; nothing where it is gone or not ours."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        pass


def signal_member(pid: int, cookie: str, group: int | None, number: int) -> None:
    """Signals the process only if it still `belongs` to the job.

    The file descriptor pins the process before the second look, so a number that was given to another process
    between the scan and now is never signalled.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except OSError as error:
        if error.errno == errno.ENOSYS and belongs(pid, cookie, group):
            _kill(pid, number)
        return
    try:
        if belongs(pid, cookie, group):
            signal.pidfd_send_signal(descriptor, number)
    except (ProcessLookupError, PermissionError):
        pass
    finally:
        os.close(descriptor)


def _kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def _read(path: str, limit: int) -> bytes | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        chunks = []
        while limit > 0:
            wanted = min(limit, 65536)
            chunk = os.read(descriptor, wanted)
            chunks.append(chunk)
            limit -= len(chunk)
            if len(chunk) < wanted:
                break
        return b"".join(chunks)
    except OSError:
        # The process ended while it was being read.
        return None
    finally:
        os.close(descriptor)
