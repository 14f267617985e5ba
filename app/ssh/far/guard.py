"""A process beside the one that answers for jobs: should that be killed it ends what is left of them."""

from __future__ import annotations

import os
import signal
import time

from app.ssh.far.traces import ROUNDS, decide, kill_rest, leave, uptime


class Guard:
    """Made once, before there are threads or jobs. `jobs` is the directory of their directories."""

    def __init__(self, jobs: bytes) -> None:
        alive, self.alive = os.pipe()
        os.set_blocking(self.alive, False)
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
            self.watch(alive, jobs)
        finally:
            os._exit(0)

    def begun(self, job: bytes, leader: int) -> None:
        self.tell(b"+%s %d\n" % (job, leader))

    def over(self, job: bytes) -> None:
        self.tell(b"-%s\n" % job)

    def tell(self, word: bytes) -> None:
        try:
            os.write(self.alive, word)
        except OSError:
            # It was killed, or stands still: then nobody is beside the jobs.
            pass

    def watch(self, alive: int, jobs: bytes) -> None:
        """Until the other one has ended, in whatever way."""
        there: dict[bytes, int] = {}
        rest = b""
        while data := os.read(alive, 65_536):
            *words, rest = (rest + data).split(b"\n")
            for word in words:
                job, _, leader = word[1:].partition(b" ")
                if word.startswith(b"+"):
                    there[job] = int(leader)
                else:
                    there.pop(job, None)
        for job, pid in there.items():
            end(job, pid, jobs + b"/" + job)


def end(job: bytes, leader: int, directory: bytes) -> None:
    """Kills what is left of a job, and says so where its directory still is."""
    verdict = decide(directory, b"interrupted")
    left = 0
    for _ in range(ROUNDS):
        # Moments ago its parent lived: its number is not another's yet.
        left = kill_rest(job, leader)
        if not left:
            break
        time.sleep(0.05)
    word = b"interrupted" if verdict == b"exit" else verdict
    leave(directory + b"/_exit", b"ended %s - %d - %s - - ok\n" % (word, left, uptime()))
    try:
        # A secret may be in it.
        os.unlink(directory + b"/input.json")
    except OSError:
        pass
