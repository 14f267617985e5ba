"""What is written down of a job and read by whoever asks about it, and who is left of it. The files are those of
`far_side.sh`."""

from __future__ import annotations

import os
import signal
import time

ROUNDS = 100
"""Looks for what is left of a job, between which it is killed."""


def text(given: str) -> bytes:
    """Bytes that are no text came as what stands for them."""
    return given.encode("utf-8", "surrogateescape")


def write(path: bytes, data: bytes | bytearray, mode: int = 0o600) -> None:
    """Makes the file, whole or not at all. Raises OSError, FileExistsError where there is one."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        write_all(descriptor, data)
    except OSError:
        os.unlink(path)
        raise
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes | bytearray) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def read(path: bytes, most: int = 4096) -> bytes:
    """The beginning of a regular file; nothing where there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return b""
    try:
        found = b""
        while len(found) < most and (piece := os.read(descriptor, most - len(found))):
            found += piece
        return found
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def leave(path: bytes, data: bytes | bytearray) -> bool:
    """Writes it if that can be: a full disk, or a script that has removed its own directory, changes nothing else."""
    try:
        write(path, data)
    except OSError:
        return False
    return True


def identify(pid: int) -> bytes:
    """When the process began and in which boot, so that another one with its number is not taken for it."""
    began = read(b"/proc/%d/stat" % pid).rpartition(b") ")[2].split()
    boot = read(b"/proc/sys/kernel/random/boot_id").strip()
    return b"%s %s" % (began[19] if len(began) > 19 else b"-", boot or b"-")


def uptime() -> bytes:
    return (read(b"/proc/uptime").split() or [b"-"])[0]


def decide(directory: bytes, word: bytes) -> bytes:
    """How the job ends: `word`, unless somebody has decided before."""
    path = directory + b"/_verdict"
    try:
        write(path, word + b"\n")
    except FileExistsError:
        # An empty one is just being written, or the disk is full.
        for _ in range(3):
            if found := read(path).strip():
                return found
            time.sleep(0.03)
    except OSError:
        pass
    return word


def signal_group(leader: int, number: int) -> bool:
    """False: nobody is in it."""
    try:
        os.killpg(leader, number)
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def bearers(job: bytes, leader: int = 0) -> list[int]:
    """The live processes that carry the job's cookie; those in the group of `leader` are left out."""
    cookie = b"MUSTER_COOKIE=" + job
    found = []
    try:
        names = os.listdir("/proc")
    except OSError:
        return []
    for name in names:
        if not name.isdigit() or cookie not in read(b"/proc/%s/environ" % name.encode(), 1 << 22).split(
            b"\0"
        ):
            continue
        # After the name, which may hold anything: state, parent, group.
        words = read(b"/proc/%s/stat" % name.encode()).rpartition(b") ")[2].split()
        if len(words) > 2 and words[0] not in (b"Z", b"X") and int(words[2]) != leader:
            found.append(int(name))
    return found


def kill_rest(job: bytes, leader: int) -> int:
    """Kills what is there of the job; how many processes there were beside the group's."""
    signal_group(leader, signal.SIGKILL)
    found = bearers(job)
    for pid in found:
        send(pid, signal.SIGKILL)
    return len(found)


def send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except OSError:
        pass
