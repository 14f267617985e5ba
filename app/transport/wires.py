"""A connection to an address that was checked, whose every read and write ends at one deadline."""

from __future__ import annotations

import io
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from app.transport.addresses import Policy

HEADER_BYTES: Final = 65_536
"""What the status line and the headers of an answer may take together."""

_TRIED: Final = 8
"""Addresses of a name that are tried."""


class Failed(Exception):
    """A call that came to nothing: `kind` is the type of the task's error, one of a few words."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point of the monotonic clock."""

    at: float

    @classmethod
    def within(cls, seconds: float) -> Deadline:
        return cls(time.monotonic() + seconds)

    def left(self) -> float:
        """Seconds until then. Raises TimeoutError when there are none."""
        left = self.at - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class Wire:
    """As much of a socket as `http.client` uses."""

    def __init__(self, plain: socket.socket, deadline: Deadline) -> None:
        self._socket = plain
        self._deadline = deadline
        self._room: int | None = None

    def count_headers(self) -> None:
        """From here on come headers: no more than `HEADER_BYTES` of them are read."""
        self._room = HEADER_BYTES

    def count_body(self) -> None:
        """From here on whoever reads counts."""
        self._room = None

    def sendall(self, data: Any) -> None:
        self._socket.settimeout(self._deadline.left())
        self._socket.sendall(data)

    def makefile(self, mode: str, *_: Any) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self), 8192)

    def receive_into(self, buffer: Any) -> int:
        """Raises TimeoutError at the deadline, Failed where the headers are too large."""
        self._socket.settimeout(self._deadline.left())
        count = self._socket.recv_into(buffer)
        if self._room is not None:
            self._room -= count
            if self._room < 0:
                raise Failed("too_large", f"the headers of the answer have more than {HEADER_BYTES} bytes")
        return count

    def close(self) -> None:
        """Nothing: `http.client` closes its connection before it reads the body."""

    def hang_up(self) -> None:
        self._socket.close()


class _Reader(io.RawIOBase):
    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._wire.receive_into(buffer)


def connect(host: str, port: int, policy: Policy, deadline: Deadline, tls: ssl.SSLContext | None) -> Wire:
    """A connection to one of the addresses that a host has now and that the policy allows.

    Raises Failed: `connect`, `timeout`, `refused_address`.
    """
    try:
        found = _resolve(host, port, deadline)
        allowed = [one for one in found if policy.allows(str(one[1][0]))]
        if not allowed:
            where = ", ".join(str(address[0]) for _, address in found[:3])
            raise Failed("refused_address", f"{host} is {where}, where calls may not go")
        return Wire(_open(host, allowed[:_TRIED], deadline, tls), deadline)
    except TimeoutError:
        raise Failed("timeout", f"no connection to {host}:{port} in time") from None
    except (OSError, UnicodeError) as error:
        raise Failed("connect", f"no connection to {host}:{port}: {error}") from None


def _open(
    host: str, found: Sequence[tuple[int, Any]], deadline: Deadline, tls: ssl.SSLContext | None
) -> socket.socket:
    """Raises the OSError of the last address where none answers."""
    for position, (family, address) in enumerate(found, 1):
        plain = socket.socket(family, socket.SOCK_STREAM)
        try:
            # So that a silent address leaves time for those behind it.
            plain.settimeout(deadline.left() / (len(found) - position + 1))
            plain.connect(address)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain.settimeout(deadline.left())
            return plain if tls is None else tls.wrap_socket(plain, server_hostname=host)
        except OSError:
            plain.close()
            if position == len(found):
                raise
    raise OSError("it has no address")


def _resolve(host: str, port: int, deadline: Deadline) -> list[tuple[int, Any]]:
    """(family, address) for every address of a host. The resolver knows no deadline, so it is not waited for."""
    found: list[tuple[int, Any]] = []
    problems: list[Exception] = []

    def ask() -> None:
        try:
            rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found.extend((row[0], row[4]) for row in rows)
        except (OSError, UnicodeError) as error:
            problems.append(error)

    thread = threading.Thread(target=ask, name="resolve", daemon=True)
    thread.start()
    thread.join(deadline.left())
    if thread.is_alive():
        raise TimeoutError
    if problems:
        raise problems[0]
    return list(found)
