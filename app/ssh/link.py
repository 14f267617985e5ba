"""A connection to a machine, whoever makes it: commands with their three streams, and files by means of them."""

from __future__ import annotations

import queue
import shlex
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

from app.ssh.failures import TooMuch, Unreachable

Listener = Callable[[str, bytes], None]
"""Told `out` and `err` with bytes, and last of all `closed` with the exit status as digits; with nothing where the
connection broke or a signal ended the command. Called on a thread of the connection: it must be quick."""

COMMAND_WITHIN = 60.0
"""Seconds that `run` waits, where nothing else is said."""
MOST_BYTES = 64 << 20
"""What `run` keeps of a stream."""


class Session(Protocol):
    """One command on the machine. Every method may be called from any thread, and does nothing once it is over."""

    def write(self, data: bytes) -> None:
        """Sends more to its standard input."""

    def end_input(self) -> None:
        """Ends its standard input."""

    def taken(self, count: int) -> None:
        """So many of the bytes that the listener was told are worked off: more may come."""

    def close(self) -> None:
        """Lets go of it. The listener is still told `closed`."""


class Link(Protocol):
    """An open connection."""

    @property
    def is_open(self) -> bool:
        """False once it is known to be broken."""

    def open(self, command: str, data: bytes, listener: Listener, *, keep: bool = False) -> Session:
        """Begins a command, gives it `data`, and ends its input unless it is to be kept. Raises `Unreachable`."""

    def close(self) -> None:
        """Ends it with all of its sessions."""


class Completed(NamedTuple):
    """How a command ended: its exit status, and what it wrote."""

    status: int
    stdout: bytes
    stderr: bytes


def run(link: Link, command: str, data: bytes = b"", *, within: float = COMMAND_WITHIN) -> Completed:
    """The command's end. Raises `Unreachable` where the connection breaks first, or after `within` seconds, and
    `TooMuch`."""
    heard: queue.SimpleQueue[tuple[str, bytes]] = queue.SimpleQueue()
    session = link.open(command, data, lambda kind, told: heard.put((kind, told)))
    found = {"out": bytearray(), "err": bytearray()}
    deadline = time.monotonic() + within
    try:
        while True:
            try:
                kind, told = heard.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise Unreachable(f"the machine did not answer within {within:g} s") from None
            if kind == "closed":
                break
            session.taken(len(told))
            found[kind] += told
            if len(found[kind]) > MOST_BYTES:
                raise TooMuch(f"the machine answers with more than {MOST_BYTES >> 20} MB")
    finally:
        session.close()
    if not told:
        raise Unreachable("the connection broke before the machine answered")
    return Completed(int(told), bytes(found["out"]), bytes(found["err"]))


def put(link: Link, path: str, data: bytes, *, mode: int = 0o600) -> None:
    """Writes a file aside and renames it. Needs no SFTP there. Raises OSError with what the machine says."""
    aside, target = shlex.quote(f"{path}.part"), shlex.quote(path)
    command = f"umask 077 && cat >{aside} && chmod {mode:o} {aside} && mv -f {aside} {target}"
    done = run(link, in_sh(command), data)
    if done.status:
        raise OSError(done.stderr.decode(errors="replace").strip() or f"{path} cannot be written")


def get(link: Link, path: str) -> bytes:
    """The bytes of a file. Raises OSError with what the machine says."""
    done = run(link, in_sh(f"cat <{shlex.quote(path)}"))
    if done.status:
        raise OSError(done.stderr.decode(errors="replace").strip() or f"{path} cannot be read")
    return done.stdout


def in_sh(command: str) -> str:
    """The command by `sh`, whatever the user's login shell is. Nothing secret may be in it: others can see it."""
    return f"exec sh -c {shlex.quote(command)}"
