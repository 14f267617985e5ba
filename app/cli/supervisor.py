"""Starts the processes of a fleet, keeps them alive, and ends all of them: nothing is left running.

For the main thread only: signals come in there, and the kernel ends a child with the thread that made it.
"""

from __future__ import annotations

import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Generic, TypeVar

from app.cli import runners
from app.cli.home import Held
from app.cli.logs import Tail
from app.cli.parts import WORKERS
from app.cli.processes import Child, Spec
from app.errors import MusterError, Unavailable

START_WITHIN = 120.0
"""Seconds for each part to answer."""
PATIENCE = 10.0
"""Seconds that a process has to end by itself before its group is killed."""
MOST_DEATHS = 4
"""Deaths of one process before it answered for the first time, after which the start is given up."""
_LOOK_EVERY = 0.05
_ASK_EVERY = 3.0
"""Seconds between two looks whether a process is needed by now."""
_TRIM_EVERY = 30.0

Tell = Callable[[str], None]
Place = TypeVar("Place", bound=Held)


class Stopped(MusterError):
    """Ctrl-C or SIGTERM came before all was up."""

    code = "stopped"


class Supervisor(Generic[Place]):
    """`with Supervisor(…)`: takes the directory; leaving it ends every process."""

    def __init__(self, home: Place, tell: Tell, *, verbose: bool = False) -> None:
        self.home = home
        self._tell = tell
        self._verbose = verbose
        self._tail: Tail | None = None
        self._children: list[Child] = []
        self._later: list[tuple[Callable[[], bool], Spec]] = []
        self._ask_at = 0.0
        self._stops = 0
        self._ending = False
        self._trim_at = 0.0
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._doomed: tuple[Path, ...] = ()
        self._wake, self._wakes = socket.socketpair()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Supervisor[Place]:
        self.home.take()
        self._tail = Tail(self.home.logs) if self._verbose else None
        for end in (self._wake, self._wakes):
            end.setblocking(False)
        signal.set_wakeup_fd(self._wakes.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._before[number] = signal.signal(number, self._asked)
        self._before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._end_all()
        finally:
            signal.set_wakeup_fd(-1)
            for number, handler in self._before.items():
                signal.signal(number, handler)
            self._wake.close()
            self._wakes.close()
            self.home.release()

    @property
    def is_stopping(self) -> bool:
        """Whether somebody asked for the end."""
        return self._stops > 0

    @property
    def restarts(self) -> int:
        """How often anything had to be started again."""
        return sum(child.restarts for child in self._children)

    def guard(self, *directories: Path) -> None:
        """Starts the process that cleans up if this one is killed. These directories end with the fleet."""
        self._doomed = directories
        argv = [sys.executable, "-m", "app.cli.watchdog", str(self.home.nodes), *map(str, directories)]
        self._watchdog = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=Path(__file__).resolve().parents[2],
            start_new_session=True,
        )

    def start(self, *specs: Spec) -> None:
        """Starts processes that are kept alive from now on."""
        for spec in specs:
            child = Child(spec)
            self._children.append(child)
            child.start()

    def start_when(self, is_needed: Callable[[], bool], spec: Spec) -> None:
        """Starts a process that is kept alive, once it is needed. Whether it is must be told within a second."""
        self._later.append((is_needed, spec))

    def run(self, spec: Spec) -> int | None:
        """Runs one more process to its end, the others kept alive; its exit code, None if stopped."""
        child = Child(spec)
        child.start()
        try:
            self.supervise(child.has_ended)
            return child.last_code
        finally:
            child.kill()
            self._wait_for_end([child], 1.0)

    def supervise(self, over: Callable[[], bool] = lambda: False) -> None:
        """Keeps everything alive until somebody asks for the end, or `over`."""
        while not over() and not self.is_stopping:
            self._turn(0.5 if self._tail is None else 0.1)

    def terminate(self, name: str) -> None:
        """Asks one process to end. Nothing is started again from here on."""
        self._ending = True
        for child in self._named(name):
            child.terminate()

    def outlasts(self, name: str, seconds: float, *, stops: int = 1) -> bool:
        """Whether a process lives on after so many seconds, or once somebody asked more than `stops` times for the
        end; returns as soon as it is over."""
        self._wait_for_end(self._named(name), seconds, stops)
        return not all(child.has_ended() for child in self._named(name))

    def _named(self, name: str) -> list[Child]:
        return [child for child in self._children if child.spec.name == name]

    def wait_until(self, answers: Callable[[], bool], what: str) -> None:
        """Waits until a part answers.

        Raises Unavailable with the end of a log where it does not, Stopped.
        """
        end = time.monotonic() + START_WITHIN
        while not answers():
            if self.is_stopping:
                raise Stopped("stopped before the fleet was up")
            self._turn(_LOOK_EVERY)
            dead = [child.spec.name for child in self._children if child.restarts >= MOST_DEATHS]
            if dead or time.monotonic() > end:
                raise self._not_up(what, dead)

    def _not_up(self, what: str, dead: list[str]) -> Unavailable:
        names = dead or [child.spec.name for child in self._children if child.restarts]
        tails = [f"--- the end of {self.home.log(name)}\n{self.home.tail(name)}" for name in names[:2]]
        why = f"{', '.join(dead)} keeps dying" if dead else f"no answer within {START_WITHIN:g} s"
        hint = f"the logs are in {self.home.logs}"
        return Unavailable("\n".join([f"{what} did not come up: {why}", *tails]), hint=hint, code="not-up")

    def _turn(self, seconds: float) -> None:
        """One look at everything: at once when a signal comes, else after so many seconds."""
        waits = [child.due_in for child in self._children]
        select.select([self._wake], [], [], min([seconds, *waits]))
        try:
            while self._wake.recv(4096):
                pass
        except BlockingIOError:
            pass
        if self._tail is not None:
            self._tail.show()
        if self.is_stopping or self._ending:
            return
        for child in self._children:
            child.keep_alive(self._tell)
        if self._later and time.monotonic() >= self._ask_at:
            self._start_what_is_needed()
        if time.monotonic() >= self._trim_at:
            self._trim_at = time.monotonic() + _TRIM_EVERY
            self.home.trim_logs()

    def _start_what_is_needed(self) -> None:
        needed = [one for one in self._later if one[0]()]
        self._later = [one for one in self._later if one not in needed]
        self.start(*(spec for _, spec in needed))
        self._ask_at = time.monotonic() + _ASK_EVERY

    def _asked(self, *_: object) -> None:
        self._stops += 1

    def _end_all(self) -> None:
        """Nodes first, then their scripts, then what serves them. A second Ctrl-C waits for nothing."""
        self._ending = True
        for stage in sorted({child.spec.stage for child in self._children}):
            members = [child for child in self._children if child.spec.stage == stage]
            for child in members:
                child.terminate()
            self._wait_for_end(members, PATIENCE)
            for child in members:
                child.kill()
            self._wait_for_end(members, 2.0)
            if stage == WORKERS:
                runners.end_all(self.home.nodes, in_a_hurry=lambda: self._stops > 1)
        runners.end_all(self.home.nodes, in_a_hurry=lambda: True)
        self._children.clear()
        if self._watchdog is not None:
            self._watchdog.communicate(b"done")
            self._watchdog = None
        for directory in self._doomed:
            shutil.rmtree(directory, ignore_errors=True)

    def _wait_for_end(self, children: Iterable[Child], seconds: float, stops: int = 1) -> None:
        end = time.monotonic() + seconds
        left = [child for child in children if not child.has_ended()]
        # One more Ctrl-C while we wait: enough patience.
        while left and time.monotonic() < end and self._stops <= stops:
            self._turn(_LOOK_EVERY)
            left = [child for child in left if not child.has_ended()]
