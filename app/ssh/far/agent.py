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

from app.ssh.far.job import Job, Refused
from app.ssh.far.stream import AT_ONCE, PIECE, Stream
from app.ssh.far.traces import ROUNDS, decide, identify, kill_rest, leave, read, text, uptime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

OPENING = b"muster far side\n"
ALONE = 600.0
"""Seconds without a job after which it ends by itself."""
MOST_UNHEARD = 4 << 20
"""Bytes that wait to be taken; whoever takes no more of them is told nothing any more."""


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
        self.said = b""
        self.is_heard = self.is_told = True
        self.rest = b""
        self.selector = selectors.DefaultSelector()
        self.idle_since = time.monotonic()

    def run(self) -> None:
        """Until nothing is left to do for anybody."""
        self.guard()
        woken, waking = os.pipe()
        for descriptor in (0, 1, woken, waking):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(waking, warn_on_full_buffer=False)
        # Handlers, for what is ignored would be ignored by the scripts as well.
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        self.selector.register(woken, selectors.EVENT_READ, lambda: self.look(os.read(woken, 4096)))
        self.selector.register(0, selectors.EVENT_READ, self.hear)
        self.tell(b"\n" + OPENING)
        # What was read together with this program.
        assert isinstance(sys.stdin.buffer, io.BufferedReader)
        self.take(sys.stdin.buffer.peek())
        while self.jobs or self.removing or (self.is_told and time.monotonic() < self.idle_since + ALONE):
            self.flush()
            for key, _ in self.selector.select(self.pause()):
                key.data()
            now = time.monotonic()
            for job in [job for job in self.jobs if job.due <= now]:
                self.see_to(job, now)
            if self.jobs:
                self.idle_since = now
        self.flush()
        os.write(self.alive, b".")

    def pause(self) -> float:
        due = min((job.due for job in self.jobs), default=self.idle_since + ALONE)
        return max(0.0, due - time.monotonic())

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
            number, word, told = json.loads(line)
            if word == "start":
                self.start(number, told)
            else:
                self.remove(number, [text(job) for job in told])

    def start(self, number: int, told: dict[str, Any]) -> None:
        directory = self.base + b"/jobs/" + text(told["id"])
        try:
            job = Job(number, told, directory)
        except (OSError, ValueError, KeyError):
            # Not here, then: a session of its own may fare better.
            return self.say(number, b"=", b"3")
        try:
            self.claim(directory)
        except FileExistsError:
            self.close(job)
            return self.say(number, b"=", b"3")
        except OSError as error:
            self.close(job)
            self.say(number, b"+", b"failed claim " + text(error.strerror or "no place"))
            return self.say(number, b"=", b"0")
        try:
            job.prepare(self.owner)
        except (OSError, ValueError):
            return self.refuse(job, b"no_space", b"-")
        try:
            job.launch(self.environment)
        except Refused as refused:
            verdict, code = text(str(refused)).split()
            return self.refuse(job, verdict, code)
        except (OSError, ValueError):
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
        self.say(job.number, b"+", job.ended(verdict, code).rstrip(b"\n"))
        for line in (b"output none", b"data"):
            self.say(job.number, b"+", line)
        self.say(job.number, b"=", b"0")

    def watch(self, job: Job) -> None:
        assert job.process is not None
        leave(job.file(b"_main"), b"%d\n" % job.process.pid)
        self.say(job.number, b"+", b"started %d" % job.process.pid)
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
                self.say(number, b"=", b"%d" % abs(status))

    def see_to(self, job: Job, now: float) -> None:
        if not job.look(now, self.tick, self.leash, read(self.base + b"/lease")):
            return
        self.jobs.remove(job)
        self.stop_feeding(job)
        self.close(job)
        code = b"-" if job.code is None else b"%d" % job.code
        line = job.ended(job.verdict, code).rstrip(b"\n")
        output, data = job.output(self.most)
        if len(data) > AT_ONCE:
            return self.say(job.number, b"=", b"3")
        for told in (line, b"output " + output):
            self.say(job.number, b"+", told)
        self.show(job.number, data, b"+", b"-")
        is_short = job.out.size + job.err.size <= AT_ONCE and not (job.out.cut or job.err.cut)
        if is_short and not os.path.exists(job.file(b"_live")):
            self.say(job.number, b"+", b"data")
            self.show(job.number, bytes(job.err.begun), b"*", b"/")
            self.show(job.number, bytes(job.out.begun), b"+", b"-")
        self.say(job.number, b"=", b"0")

    def close(self, job: Job) -> None:
        for stream in (job.out, job.err):
            if stream.is_open:
                if stream.writing < 0:
                    self.selector.unregister(stream.reading)
                stream.close()

    def show(self, number: int, data: bytes, mark: bytes, mark_of_end: bytes) -> None:
        *lines, rest = data.split(b"\n")
        for line in lines:
            self.say(number, mark, line)
        if rest:
            self.say(number, mark_of_end, rest)

    def remove(self, number: int, jobs: list[bytes]) -> None:
        """What was kept of jobs that are over. What a script has left in its directory may be much."""
        left = []
        for job in jobs:
            directory = self.base + b"/jobs/" + job
            try:
                for name in os.listdir(directory):
                    if name != b"work":
                        os.unlink(directory + b"/" + name)
                os.rmdir(directory + b"/work")
                os.rmdir(directory)
            except OSError:
                left.append(directory)
        if not left:
            return self.say(number, b"=", b"0")
        command = [b"rm", b"-rf", b"--", *left]
        try:
            self.removing.append((number, subprocess.Popen(command, stdin=subprocess.DEVNULL)))
        except OSError:
            self.say(number, b"=", b"1")

    def say(self, number: int, mark: bytes, told: bytes) -> None:
        self.tell(b"%d%s%s\n" % (number, mark, told))

    def tell(self, said: bytes) -> None:
        if self.is_heard:
            self.said += said

    def flush(self) -> None:
        """Says what there is to say, as far as it is taken."""
        was_waiting = 1 in self.selector.get_map()
        try:
            while self.said:
                self.said = self.said[os.write(1, self.said) :]
        except BlockingIOError:
            self.is_heard = len(self.said) <= MOST_UNHEARD
        except OSError:
            self.is_heard = False
        if not self.is_heard:
            self.said = b""
        if self.said and not was_waiting:
            self.selector.register(1, selectors.EVENT_WRITE, lambda: None)
        elif was_waiting and not self.said:
            self.selector.unregister(1)

    def guard(self) -> None:
        """A process that does nothing but see whether this one ends before its jobs do."""
        alive, self.alive = os.pipe()
        if os.fork():
            os.close(alive)
            return
        try:
            os.setsid()
            nowhere = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(nowhere, descriptor)
            os.close(self.alive)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            if not os.read(alive, 1):
                self.end_what_is_left()
        finally:
            os._exit(0)

    def end_what_is_left(self) -> None:
        for name in os.listdir(self.base + b"/jobs"):
            directory = self.base + b"/jobs/" + name
            if not read(directory + b"/_owner").startswith(self.owner + b" "):
                continue
            if read(directory + b"/_exit").endswith(b" ok\n"):
                continue
            verdict = decide(directory, b"interrupted")
            leader = read(directory + b"/_main").strip()
            left = 0
            for _ in range(ROUNDS):
                # Nobody has waited for the leader, so its number is still its own.
                left = kill_rest(name, int(leader) if leader.isdigit() else 2**31 - 1)
                if not left:
                    break
                time.sleep(0.05)
            word = b"interrupted" if verdict == b"exit" else verdict
            leave(directory + b"/_exit", b"ended %s - %d - %s - - ok\n" % (word, left, uptime()))


if __name__ == "__main__":
    os.umask(0o077)
    Agent(*json.loads(sys.stdin.buffer.readline())).run()
