"""One job as a process: watched and ended. Nothing in here waits: the runner's loop calls `tick`.

    running ──exit──────────────────────────────> draining ──end of both pipes, or 2 s──> over
       └─cancel, timeout─> ending ──none left, ─────┘
                           (TERM … grace … KILL)

After a normal exit, what the job left in the background is left alone: starting a daemon is a legitimate
thing to do. A job that was cancelled or timed out leaves nothing: its grace holds for all of it, then all
of it is killed.
"""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Sequence
from typing import Any

from app import masking
from app.node import jobdir, spool, sweep

DRAIN = 2.0
"""Seconds that the pipes are read on after the main process ended: a grandchild may hold them for ever."""
LOOK_EVERY = 0.1
"""Seconds between two looks for survivors during the grace."""
KILL_EVERY = 0.02
"""Seconds between two sweeps that kill."""
SWEEPS = 500
"""After so many sweeps a job ends though something of it lives on; its record says how much."""

_PIPE_BYTES = 1 << 20


class Pump:
    """One pipe of the process and the spool that it runs into."""

    __slots__ = ("_full", "_mask", "job", "pipe", "spool")

    def __init__(self, job: Process, pipe: int, target: spool.Spool, mask: masking.Stream | None) -> None:
        self.job = job
        self.pipe: int | None = pipe
        self.spool = target
        self._full = False
        self._mask = mask
        os.set_blocking(pipe, False)

    def read(self, buffer: bytearray) -> bool | None:
        """Moves at most a buffer. None at the end of the stream, else: can a follower see more?"""
        if self.pipe is None:
            return None
        try:
            count = os.readv(self.pipe, [buffer])
        except BlockingIOError:
            return False
        except OSError:
            return None
        if count == 0:
            return None
        if count >= 65536 and not self._full:
            # A bigger pipe is worth its system call only for those who fill the small one.
            self._full = True
            try:
                fcntl.fcntl(self.pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            except OSError:
                pass
        if self._mask is None:
            return self.spool.write(memoryview(buffer)[:count])
        masked = self._mask.feed(memoryview(buffer)[:count])
        return self.spool.write(memoryview(masked)) if masked else False

    def close(self) -> None:
        if self.pipe is None:
            return
        os.close(self.pipe)
        self.pipe = None
        if self._mask is not None and (rest := self._mask.end()):
            self.spool.write(memoryview(rest))


class Process:
    """A started job. Times with `now` are monotonic seconds, `at` are Unix seconds.

    `pid` is its main process, a child of this one; `pipes` are the reading ends of its output and their spools;
    `claim` is the descriptor of the job's record, `masker` what its output may not show, `cleanup` the names of the
    files that go when it ends.
    """

    def __init__(
        self,
        job: dict[str, Any],
        directory: str,
        digest: str,
        times: tuple[float, float],
        *,
        pid: int,
        pipes: list[tuple[int, spool.Spool]],
        claim: int,
        masker: masking.Masker | None = None,
        cleanup: Sequence[str] = (),
    ) -> None:
        self.job = job
        self._cleanup = cleanup
        self._masker = masker
        self.id: str = job["id"]
        self.directory = directory
        self.digest = digest
        self.started, self.started_at = times
        self.pid = pid
        self.pumps = [
            Pump(self, pipe, target, None if masker is None else masker.stream()) for pipe, target in pipes
        ]
        self.claim = claim
        self._verdict: tuple[str, dict[str, Any]] | None = None
        self._exit: tuple[int, int | None] | None = None
        self._ended: float | None = None
        self._ended_at: float | None = None
        self._kill_at = 0.0
        self._sweeps = 0
        self._left = 0
        self._swept = False
        timeout = job.get("timeout")
        self._next: float | None = None if timeout is None else self.started + timeout
        self.is_over = False

    @property
    def next_at(self) -> float | None:
        """When `tick` must be called at the latest; None: nothing is due."""
        return self._next

    @property
    def is_drained(self) -> bool:
        """Have both pipes come to their end?"""
        return all(pump.pipe is None for pump in self.pumps)

    def cancel(self, reason: str, now: float) -> None:
        """Begins to end the job as cancelled; nothing where it is ending or has ended already."""
        self._end("cancelled", {"type": "cancelled", "message": reason or "cancelled"}, now)

    def tick(self, now: float, at: float) -> None:
        """Does what is due. Called when a time has come, when a child died and when a pipe ended."""
        if self._ended is None and self._has_died():
            self._ended, self._ended_at = now, at
            self._next = now + DRAIN if self._verdict is None else now
        if self._verdict is None and self._ended is None and self._next is not None and now >= self._next:
            message = f"it ran longer than its timeout of {self.job['timeout']:g} s"
            self._end("timed_out", {"type": "timeout", "message": message}, now)
        if self._verdict is not None and not self._swept and self._next is not None and now >= self._next:
            self._sweep(now)
        is_ended = self._ended is not None and (self._verdict is None or self._swept)
        if is_ended and (self.is_drained or (self._next is not None and now >= self._next)):
            self._finish()

    def record(self) -> dict[str, Any]:
        """The exit record of a job that is over. Closes its spools: to be called once."""
        streams = {name: pump.spool.finish() for name, pump in zip(spool.STREAMS, self.pumps, strict=True)}
        broken = next((pump.spool.broken for pump in self.pumps if pump.spool.broken), None)
        exit_code, number = self._exit or (None, None)
        output, complaint = None, None
        try:
            output = jobdir.read_output(self.directory)
        except jobdir.BadOutput as error:
            complaint = {"type": "output", "message": str(error)}
        if self._masker is not None:
            output = self._masker.value(output)
            jobdir.remove_given(self.directory)
        jobdir.remove(self.directory, self._cleanup)
        status, error_value = self._judge(exit_code, number, complaint)
        record = {
            **opening(self.id, self.digest, status, error_value),
            # How a script ends that is being ended says nothing: it may even catch TERM and leave with 0.
            "exit_code": None if status == "timed_out" else exit_code,
            "signal": number,
            "started_at": self.started_at,
            "ended_at": self._ended_at,
            "duration": round((self._ended or self.started) - self.started, 6),
            "output": output,
            **streams,
        }
        if self._left:
            record["left"] = self._left
        if broken:
            record["spool_error"] = broken
        return record

    def _judge(
        self, exit_code: int | None, number: int | None, complaint: dict[str, Any] | None
    ) -> tuple[str, dict[str, Any] | None]:
        if self._verdict is not None:
            return self._verdict
        if exit_code not in self.job.get("ok_codes", (0,)):
            if number is None:
                return "failed", {"type": "exit", "message": f"exit code {exit_code}"}
            return "failed", {"type": "signal", "message": f"killed by signal {number} ({_name(number)})"}
        return ("failed", complaint) if complaint else ("succeeded", None)

    def _end(self, status: str, error: dict[str, Any], now: float) -> None:
        # One that has died by itself and was not looked at yet has its own end, not this one.
        if self._verdict is not None or self._ended is not None or self._has_died():
            return
        self._verdict = (status, error)
        self._kill_at = now + self.job.get("grace", 10.0)
        sweep.signal_group(self.pid, signal.SIGTERM)
        # A stopped process takes its TERM only when it goes on.
        sweep.signal_group(self.pid, signal.SIGCONT)
        for pid in sweep.survivors(self.id, None):
            process = sweep.stat(pid)
            if process is not None and process.group != self.pid:
                sweep.signal_member(pid, self.id, None, signal.SIGTERM)
        self._next = now + LOOK_EVERY

    def _sweep(self, now: float) -> None:
        """One look for what lives on of a job that is to end; from the end of its grace on it kills."""
        killing = now >= self._kill_at
        if not killing and self._ended is None:
            self._next = self._kill_at
            return
        if killing:
            sweep.signal_group(self.pid, signal.SIGKILL)
        # The main process has not been reaped: until `_finish` its number is the group's and nobody else's.
        left = sweep.survivors(self.id, self.pid)
        if killing:
            self._sweeps += 1
            for pid in left:
                sweep.signal_member(pid, self.id, self.pid, signal.SIGKILL)
        if self._ended is not None and (not left or self._sweeps >= SWEEPS):
            self._left = len(left)
            self._swept = True
            self._next = now + DRAIN
        elif killing:
            self._next = now + (KILL_EVERY if self._sweeps < SWEEPS else 1.0)
        else:
            self._next = min(now + LOOK_EVERY, self._kill_at)

    def _has_died(self) -> bool:
        try:
            found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            self._exit = None
            return True
        if found is None:
            return False
        if found.si_code == os.CLD_EXITED:
            self._exit = (found.si_status, None)
        else:
            self._exit = (128 + found.si_status, found.si_status)
        return True

    def _finish(self) -> None:
        if self._verdict is None:
            self._left = sweep.left_behind(self.id, self.pid)
        try:
            os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            pass
        self._next = None
        self.is_over = True


def opening(job_id: str, digest: str, status: str, error: dict[str, Any] | None) -> dict[str, Any]:
    """The exit record of a job that wrote nothing: what is known of every job, the rest empty."""
    return {
        "job": job_id,
        "digest": digest,
        "status": status,
        "exit_code": None,
        "signal": None,
        "error": error,
        "started_at": None,
        "ended_at": None,
        "duration": 0.0,
        "stdout": spool.nothing(),
        "stderr": spool.nothing(),
        "output": None,
    }


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"
