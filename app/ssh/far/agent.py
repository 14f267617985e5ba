"""Runs on a machine that is reached over SSH and has Python: one process that starts many jobs there.

For each job it does what a session of its own would have done by `far_side.sh`, with the same directory and files, so
that whoever comes later finds it the same way; a machine without Python has no such process, and lacks nothing but
speed. It is sent as text by `app.ssh.desk` (which tells what is said to it and by it), imports little, and works with
Python 3.8. It outlives the connection for as long as a job of it runs. Beside it is a guard, which ends what is left of
its jobs should it be killed.
"""

from __future__ import annotations

import io
import json
import os
import selectors
import signal
import subprocess
import sys
import time

from app.ssh.far.guard import Guard
from app.ssh.far.job import SHORT, Job, Refused
from app.ssh.far.stream import AT_ONCE, PIECE, Stream
from app.ssh.far.telling import Telling, lines_of
from app.ssh.far.traces import identify, leave, read, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

OPENING = b"muster far side\n"
ALONE = 600.0
"""Seconds without a job after which it ends by itself."""
CLOCK_EVERY = 60.0
"""Seconds after which our clock is told again."""


def clock() -> float:
    """Seconds, those of a sleep of the machine too where it counts them."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class Agent:
    """`base` is where everything is kept, `leash` in seconds, `most` the bytes of an output, `kept` the names of
    variables that scripts have of ours."""

    def __init__(
        self, base: str, leash: float, tick: float, most: int, kept: list[str], search_path: str
    ) -> None:
        self.base = text(base)
        self.leash, self.tick, self.most = leash, tick, most
        names = [text(name) for name in kept]
        self.environment = {name: os.environb[name] for name in names if name in os.environb}
        if not self.environment.get(b"PATH"):
            self.environment[b"PATH"] = text(search_path)
        self.owner = b"%d %s" % (os.getpid(), identify(os.getpid()))
        self.jobs: list[Job] = []
        self.removing: list[tuple[int, subprocess.Popen[bytes]]] = []
        self.is_told = True
        self.rest = b""
        self.selector = selectors.DefaultSelector()
        self.telling = Telling(self.selector)
        self.told_clock_at = 0.0
        self.idle_since = time.monotonic()

    def run(self) -> None:
        """Until nothing is left to do for anybody."""
        self.guard = Guard(self.base + b"/jobs")
        woken, waking = os.pipe()
        for descriptor in (0, 1, woken, waking):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(waking, warn_on_full_buffer=False)
        # Handlers, for what is ignored would be ignored by the scripts as well.
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        self.selector.register(woken, selectors.EVENT_READ, lambda: self.look(os.read(woken, 4096)))
        self.selector.register(0, selectors.EVENT_READ, self.hear)
        self.telling.put(0, b"\n" + OPENING, False)
        self.tell_clock()
        # What was read together with this program.
        assert isinstance(sys.stdin.buffer, io.BufferedReader)
        self.take(sys.stdin.buffer.peek())
        while self.jobs or self.removing or (self.is_told and time.monotonic() < self.idle_since + ALONE):
            self.telling.flush()
            for key, _ in self.selector.select(self.pause()):
                key.data()
            now = time.monotonic()
            for job in [job for job in self.jobs if job.due <= now]:
                self.see_to(job, now)
                self.telling.flush()
            if self.jobs:
                self.idle_since = now
        self.telling.flush()

    def tell_clock(self) -> None:
        """By which it is said until when a job may be started."""
        self.told_clock_at = clock()
        self.telling.say(0, [b"=%.3f" % self.told_clock_at])

    def pause(self) -> float:
        now = time.monotonic()
        idle = now + 1.0 if self.removing else self.idle_since + ALONE
        return max(0.0, min((job.due for job in self.jobs), default=idle) - now)

    def hear(self) -> None:
        try:
            data = os.read(0, PIECE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.is_told = False
            self.selector.unregister(0)
        self.take(data)

    def take(self, data: bytes) -> None:
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            number, word, *told = json.loads(line)
            if word == "start":
                self.start(number, *told)
            else:
                self.remove(number, [text(job) for job in told[0]])

    def start(self, number: int, told: dict[str, Any], until: float) -> None:
        """Starts a job, unless that is for somebody else to do. Who is not answered does not wait for ever, and has it
        started and removed in another way: after `until`, by our clock, its directory tells nothing any more."""
        if clock() > self.told_clock_at + CLOCK_EVERY:
            self.tell_clock()
        directory = self.base + b"/jobs/" + text(told["id"])
        if clock() > until:
            return self.leave_to_others(number)
        try:
            job = Job(number, told, directory)
        except (OSError, ValueError):
            return self.leave_to_others(number)
        try:
            self.claim(directory)
        except OSError as error:
            self.close(job)
            if isinstance(error, FileExistsError):
                return self.leave_to_others(number)
            why = b"+failed claim " + text(error.strerror or "no place")
            return self.telling.say(number, [why, b"=0"], is_last=True)
        if clock() > until:
            return self.let_go(job)
        self.begin(job)

    def leave_to_others(self, number: int) -> None:
        """A session of its own is to start the job, or to ask about it."""
        self.telling.say(number, [b"=3"], is_last=True)

    def let_go(self, job: Job) -> None:
        """The same, of a job that was claimed and of which nothing runs."""
        self.close(job)
        if not self.clear(job.directory):
            return self.refuse(job, b"no_space", b"-")
        self.leave_to_others(job.number)

    def begin(self, job: Job) -> None:
        try:
            job.prepare(self.owner)
        except ValueError:
            return self.refuse(job, b"not_executable", b"126")
        except OSError as error:
            return self.let_go(job) if error.errno in SHORT else self.refuse(job, b"no_space", b"-")
        try:
            job.launch(self.environment)
        except Refused as refused:
            verdict, code = text(str(refused)).split()
            return self.refuse(job, verdict, code)
        except OSError as error:
            return self.let_go(job) if error.errno in SHORT else self.refuse(job, b"not_executable", b"126")
        except ValueError:
            return self.refuse(job, b"not_executable", b"126")
        self.watch(job)

    def claim(self, directory: bytes) -> None:
        """The one `mkdir` that decides who may start the job."""
        try:
            os.mkdir(directory, 0o700)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(directory), 0o700, exist_ok=True)
            os.mkdir(directory, 0o700)

    def refuse(self, job: Job, verdict: bytes, code: bytes) -> None:
        """It is over without having begun."""
        self.close(job)
        lines = [b"+" + job.ended(verdict, code).rstrip(b"\n"), b"+output none", b"+data", b"=0"]
        self.telling.say(job.number, lines, is_last=True)

    def watch(self, job: Job) -> None:
        assert job.process is not None
        self.guard.begun(job.id, job.process.pid)
        leave(job.file(b"_main"), b"%d\n" % job.process.pid)
        self.telling.say(job.number, [b"+started %d" % job.process.pid])
        self.jobs.append(job)
        for stream in (job.out, job.err):
            stream.hand_over()
            self.selector.register(stream.reading, selectors.EVENT_READ, self.mover(job, stream))
        if job.process.stdin is not None:
            os.set_blocking(job.process.stdin.fileno(), False)
            self.selector.register(job.process.stdin, selectors.EVENT_WRITE, lambda: self.feed(job))

    def mover(self, job: Job, stream: Stream) -> Callable[[], None]:
        def move() -> None:
            if stream.is_open and not stream.take():
                self.selector.unregister(stream.reading)
                stream.close()
                job.due = 0.0

        return move

    def feed(self, job: Job) -> None:
        assert job.process is not None
        assert job.process.stdin is not None
        try:
            job.stdin = job.stdin[os.write(job.process.stdin.fileno(), job.stdin) :]
        except BlockingIOError:
            return
        except OSError:
            # It does not read.
            job.stdin = b""
        if not job.stdin:
            self.stop_feeding(job)

    def stop_feeding(self, job: Job) -> None:
        pipe = job.process.stdin if job.process else None
        if pipe is not None and not pipe.closed:
            self.selector.unregister(pipe)
            pipe.close()

    def look(self, _: bytes) -> None:
        """A process has ended, or somebody has decided about a job."""
        for job in self.jobs:
            job.due = 0.0
        for number, process in self.removing[:]:
            if (status := process.poll()) is not None:
                self.removing.remove((number, process))
                self.telling.say(number, [b"=%d" % abs(status)], is_last=True)

    def see_to(self, job: Job, now: float) -> None:
        if not job.look(now, self.tick, self.leash, read(self.base + b"/lease")):
            return
        self.jobs.remove(job)
        self.stop_feeding(job)
        self.close(job)
        code = b"-" if job.code is None else b"%d" % job.code
        line = job.ended(job.verdict, code).rstrip(b"\n")
        self.guard.over(job.id)
        output, data = job.output(self.most)
        if len(data) > AT_ONCE:
            if job.is_written:
                return self.leave_to_others(job.number)
            # Who asks finds no end of it: the disk is full.
            output, data = b"bad copy", b""
        lines = [b"+" + line, b"+output " + output, *lines_of(data, b"+", b"-")]
        is_short = job.out.size + job.err.size <= AT_ONCE and not (job.out.cut or job.err.cut)
        if is_short and not os.path.exists(job.file(b"_live")):
            lines += [b"+data", *lines_of(bytes(job.err.begun), b"*", b"/")]
            lines += lines_of(bytes(job.out.begun), b"+", b"-")
        self.telling.say(job.number, [*lines, b"=0"], is_last=True)

    def close(self, job: Job) -> None:
        for stream in (job.out, job.err):
            if stream.is_open:
                if stream.writing < 0:
                    self.selector.unregister(stream.reading)
                stream.close()

    def remove(self, number: int, jobs: list[bytes]) -> None:
        """What was kept of jobs that are over. What a script has left in its directory may be much."""
        places = [self.base + b"/jobs/" + job for job in jobs]
        left = [directory for directory in places if not self.clear(directory)]
        if not left:
            return self.telling.say(number, [b"=0"], is_last=True)
        command = [b"rm", b"-rf", b"--", *left]
        try:
            self.removing.append((number, subprocess.Popen(command, stdin=subprocess.DEVNULL)))
        except OSError:
            self.telling.say(number, [b"=1"], is_last=True)

    def clear(self, directory: bytes) -> bool:
        """Removes a job's directory, unless there is more in it than comes from here."""
        try:
            for name in os.listdir(directory):
                if name != b"work":
                    os.unlink(directory + b"/" + name)
                else:
                    os.rmdir(directory + b"/" + name)
            os.rmdir(directory)
        except OSError:
            return False
        return True


if __name__ == "__main__":
    os.umask(0o077)
    Agent(*json.loads(sys.stdin.buffer.readline())).run()
