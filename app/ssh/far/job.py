"""One job: its directory, its process, its bounds and its end."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import time

from app.ssh.far.stream import Stream
from app.ssh.far.traces import (
    ROUNDS,
    bearers,
    decide,
    kill_rest,
    leave,
    read,
    send,
    signal_group,
    text,
    uptime,
    write,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SHORT = (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM)
"""What there was too little of to start a process here, and which a session of its own may have."""
DRAIN = 2.0
"""Seconds in which what a script left in the background may go on writing."""


class Refused(Exception):
    """The script cannot become a process: a word for why, and the exit code or `-`."""


class Job:
    """A job that was started here. `told` is what `app.ssh.far_side.told` makes."""

    def __init__(self, number: int, told: dict[str, Any], directory: bytes) -> None:
        self.number = number
        self.id = text(told["id"])
        self.told = told
        self.directory = directory
        self.stdin = text(told["stdin"] or "")
        self.process: subprocess.Popen[bytes] | None = None
        self.code: int | None = None
        self.verdict = b""
        self.began_at = time.monotonic()
        self.since = b"-"
        self.kill_at: float | None = None
        self.drained_at: float | None = None
        self.is_swept = self.is_written = False
        self.rounds = self.left = 0
        self.seen = b""
        self.heard_at = self.began_at
        self.due = self.began_at
        self.out = Stream(self.file(b"_out"), told["limit"], told["longest_end"])
        try:
            self.err = Stream(self.file(b"_err"), told["limit"], told["longest_end"])
        except OSError:
            self.out.close()
            raise

    def file(self, name: bytes) -> bytes:
        return self.directory + b"/" + name

    def prepare(self, owner: bytes) -> None:
        """Fills the directory. Raises OSError."""
        os.mkdir(self.file(b"work"), 0o700)
        write(self.file(b"_owner"), b"%s %s\n" % (owner, text(self.told["digest"])))
        self.out.begin()
        self.err.begin()
        for name, data, mode in self.told["files"]:
            write(self.file(text(name)), text(data), mode)
            if mode & 0o077:
                os.chmod(self.file(text(name)), mode)

    def launch(self, environment: dict[bytes, bytes]) -> None:
        """Starts the script. Raises `Refused`."""
        cwd = self.cwd()
        given = dict(environment)
        given.update((text(name), text(value)) for name, value in self.told["env"].items())
        given.update((text(name), self.file(text(value))) for name, value in self.told["paths"].items())
        program, argv = self.program_and_argv(given.get(b"PATH", b""), cwd)
        self.since = uptime()
        try:
            self.spawn(program, argv, cwd, given)
        except FileNotFoundError:
            # The interpreter that its first line names.
            raise Refused("not_found 127") from None
        except OSError as error:
            if error.errno in SHORT:
                raise
            if error.errno != errno.ENOEXEC:
                raise Refused("not_executable 126") from None
            # A script whose first line does not say by what it is run.
            self.spawn(b"/bin/sh", [b"sh", program, *argv[1:]], cwd, given)

    def spawn(self, program: bytes, argv: list[bytes], cwd: bytes, environment: dict[bytes, bytes]) -> None:
        self.process = subprocess.Popen(
            argv,
            executable=program,
            stdin=subprocess.DEVNULL if self.told["stdin"] is None else subprocess.PIPE,
            stdout=self.out.writing,
            stderr=self.err.writing,
            cwd=cwd,
            env=environment,
            start_new_session=True,
            bufsize=0,
        )

    def cwd(self) -> bytes:
        if self.told["cwd"] is None:
            return self.file(b"work")
        place = text(self.told["cwd"])
        if not os.path.exists(place):
            raise Refused("cwd_missing -")
        if not os.path.isdir(place):
            raise Refused("cwd_file -")
        if not os.access(place, os.X_OK):
            raise Refused("cwd_denied -")
        return place

    def program_and_argv(self, search_path: bytes, cwd: bytes) -> tuple[bytes, list[bytes]]:
        if self.told["argv"] is not None:
            argv = [text(word) for word in self.told["argv"]]
            return self.program(argv[0], search_path, cwd), argv
        for name in map(text, self.told["programs"]):
            try:
                program = self.program(name, search_path, cwd)
            except Refused:
                continue
            return program, [program, *map(text, self.told["words"]), self.file(text(self.told["run"]))]
        raise Refused("no_shell -")

    def program(self, name: bytes, search_path: bytes, cwd: bytes) -> bytes:
        """The file to execute. Raises `Refused` where there is none, or none that may be."""
        is_there = False
        for place in (
            [name] if b"/" in name else [os.path.join(one or b".", name) for one in search_path.split(b":")]
        ):
            found = os.path.join(cwd, place)
            if os.path.isfile(found) and os.access(found, os.X_OK):
                return found
            is_there = is_there or os.path.exists(found)
        raise Refused("not_executable 126" if is_there else "not_found 127")

    def look(self, now: float, tick: float, leash: float, lease: bytes) -> bool:
        """Sees to it, and says when the next time is due. Is it over?"""
        if self.process is None:
            return True
        if self.code is None and (status := self.process.poll()) is not None:
            self.code = status if status >= 0 else 128 - status
            leave(self.file(b"_code"), b"%d\n" % self.code)
            if not self.verdict:
                # Whoever looks so late does not know whether it ended in time.
                late = (
                    self.told["timeout"] is not None and now > self.began_at + self.told["timeout"] + 2 * tick
                )
                self.verdict = decide(self.directory, b"timed_out" if late else b"exit")
                if self.verdict != b"exit":
                    self.begin_to_end(now)
        if not self.verdict:
            self.bound(now, leash, lease)
        if self.verdict in (b"", b"exit"):
            self.due = now + tick
            if not self.verdict and self.told["timeout"] is not None:
                self.due = min(self.due, self.began_at + self.told["timeout"])
        elif not self.is_swept:
            self.end(now)
        return self.is_drained(now)

    def bound(self, now: float, leash: float, lease: bytes) -> None:
        """Its timeout, the leash, and what somebody else has decided."""
        if lease != self.seen:
            self.seen, self.heard_at = lease, now
        if self.told["timeout"] is not None and now >= self.began_at + self.told["timeout"]:
            self.verdict = decide(self.directory, b"timed_out")
        elif now >= self.heard_at + leash:
            self.verdict = decide(self.directory, b"lost")
        else:
            self.verdict = read(self.file(b"_verdict")).strip()
        if self.verdict:
            self.begin_to_end(now)

    def begin_to_end(self, now: float) -> None:
        """TERM to all of it."""
        assert self.process is not None
        leave(self.file(b"_ending"), b"")
        self.kill_at = now + self.told["grace"]
        if not signal_group(self.process.pid, signal.SIGTERM) and self.code is None:
            send(self.process.pid, signal.SIGTERM)
        signal_group(self.process.pid, signal.SIGCONT)
        for pid in bearers(self.id, self.process.pid):
            send(pid, signal.SIGTERM)

    def end(self, now: float) -> None:
        """After its grace, KILL, until nothing is left."""
        assert self.process is not None
        assert self.kill_at is not None
        leader = self.process.pid
        if now >= self.kill_at and self.code is None:
            signal_group(leader, signal.SIGKILL)
            send(leader, signal.SIGKILL)
        if self.code is None:
            self.due = self.kill_at if now < self.kill_at else now + 0.05
        elif now < self.kill_at and (signal_group(leader, 0) or bearers(self.id)):
            self.due = min(self.kill_at, now + 0.1)
        else:
            self.left = kill_rest(self.id, leader)
            self.rounds += 1
            self.is_swept = not self.left or self.rounds >= ROUNDS
            self.due = now + 0.05

    def is_drained(self, now: float) -> bool:
        """Is the script over, and its output here? What holds it open in the background is not waited for."""
        if self.code is None or not (self.verdict == b"exit" or self.is_swept):
            return False
        if self.drained_at is None:
            self.drained_at = now + DRAIN
        self.due = self.drained_at
        return now >= self.drained_at or not (self.out.is_open or self.err.is_open)

    def ended(self, verdict: bytes, code: bytes) -> bytes:
        """The line about its end, which is written down."""
        cut = b" ".join(b"%d" % one.cut if one.cut else b"-" for one in (self.out, self.err))
        line = b"ended %s %s %d %s %s %s ok\n" % (verdict, code, self.left, self.since, uptime(), cut)
        try:
            # A script may put there what it likes.
            os.unlink(self.file(b"_exit"))
        except OSError:
            pass
        self.is_written = leave(self.file(b"_exit"), line)
        if not self.is_written:
            # Nobody is to wait for that line, which comes no more, because somebody answers for the job.
            try:
                os.truncate(self.file(b"_owner"), 0)
            except OSError:
                pass
        if self.told["has_secrets"]:
            try:
                os.unlink(self.file(b"input.json"))
            except OSError:
                pass
        return line

    def output(self, most: int) -> tuple[bytes, bytes]:
        """What is said of the file of MUSTER_OUTPUT, and what is in it."""
        path = self.file(b"output.json")
        try:
            found = os.lstat(path)
        except OSError:
            return b"none", b""
        if stat.S_ISLNK(found.st_mode):
            return b"bad link", b""
        if not stat.S_ISREG(found.st_mode):
            return b"bad kind", b""
        if found.st_size > most:
            return b"bad size %d" % found.st_size, b""
        data = read(path, most)
        return (b"%d" % len(data), data) if data else (b"none" if not found.st_size else b"bad copy", b"")
