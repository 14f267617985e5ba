"""One supervised process: its group, its log, its restarts; and that it ends with the supervisor."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

FIRST_WAIT = 0.2
LONGEST_WAIT = 5.0
STEADY = 30.0
"""Seconds that a process must have run for its next death to count as the first one."""

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True, slots=True)
class Spec:
    """What to run. `log` gets both of its streams, None leaves them ours; `pass_fds` are inherited.

    Those of the lowest `stage` are ended first.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(repr=False)
    cwd: Path
    log: Path | None = None
    pass_fds: Sequence[int] = ()
    stage: int = 0


class Child:
    """A process in a session of its own, so that a terminal's Ctrl-C reaches the supervisor alone.

    Only the main thread may start one: the kernel ends a child when the thread that forked it ends.
    """

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.restarts = 0
        self.last_code: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._wait = FIRST_WAIT
        self._due: float | None = None

    @property
    def due_in(self) -> float:
        """Seconds until it is to be started again; infinite while it is not waiting for that."""
        return float("inf") if self._due is None else max(0.0, self._due - time.monotonic())

    @property
    def pid(self) -> int | None:
        """The living process's id."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        log = None if self.spec.log is None else _append(self.spec.log)
        try:
            self._process = subprocess.Popen(
                list(self.spec.argv),
                env=dict(self.spec.env),
                cwd=self.spec.cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=tuple(self.spec.pass_fds),
                preexec_fn=_die_with(os.getpid()),
            )
        finally:
            if log is not None:
                os.close(log)
        self._started_at = time.monotonic()
        self._due = None

    def has_ended(self) -> bool:
        """Whether it is over. Then what is left of its group is killed while its id is still ours."""
        process = self._process
        if process is None:
            return True
        if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return False
        self._signal_group(signal.SIGKILL)
        self.last_code = process.wait()
        self._process = None
        return True

    def keep_alive(self, tell: Callable[[str], None]) -> None:
        """Starts it again when it has died and its wait is over."""
        if self._due is None:
            if not self.has_ended():
                return
            now = time.monotonic()
            if now - self._started_at >= STEADY:
                self._wait = FIRST_WAIT
            self._due = now + self._wait
            self.restarts += 1
            tell(
                f"{self.spec.name} ended ({_ended(self.last_code)}); it is started again in {self._wait:g} s "
                f"(restart {self.restarts}), see {self.spec.log}"
            )
            self._wait = min(self._wait * 2, LONGEST_WAIT)
        elif time.monotonic() >= self._due:
            self.start()

    def terminate(self) -> None:
        """Asks the process itself to end."""
        if self._process is not None and not self.has_ended():
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends the process and all of its group."""
        if self._process is not None and not self.has_ended():
            self._signal_group(signal.SIGKILL)

    def _signal_group(self, number: int) -> None:
        # Not reaped yet, so the id is still this group's.
        if self._process is not None:
            try:
                os.killpg(self._process.pid, number)
            except (ProcessLookupError, PermissionError):
                pass


def _append(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def _ended(code: int | None) -> str:
    if code is not None and code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"


def _die_with(parent: int) -> Callable[[], None] | None:
    """Run in the child: the kernel kills it as soon as the supervisor is gone, however that went."""
    if _libc is None:
        return None
    prctl = _libc.prctl

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return ask
