"""One client of the runner: JSON lines in and out. Nothing here ever waits, and every buffer has an end."""

from __future__ import annotations

import json
import socket

LINE_LIMIT = 8 << 20
"""Bytes of one request: an order has at most 2 MB, escapes make it longer."""
BACKLOG_LIMIT = 4 << 20
"""Bytes that may wait for a client that does not read; then it is cut off, comes back and asks anew."""


class Connection:
    """A connected client; `watching` ones get events."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.watching = False
        self.is_open = True
        self._in = bytearray()
        self._out = bytearray()
        # Jobs with new output that this client has not been told of: a set, as dicts keep order.
        self._nudges: dict[str, None] = {}

    @property
    def wants_to_write(self) -> bool:
        return bool(self._out) or bool(self._nudges)

    def receive(self) -> list[bytes]:
        """The complete lines that have come; `is_open` is False once the client is gone or misbehaves."""
        try:
            data = self.sock.recv(65_536)
        except (BlockingIOError, InterruptedError):
            return []
        except OSError:
            data = b""
        if not data:
            self.is_open = False
            return []
        self._in += data
        if b"\n" not in data:
            self.is_open = len(self._in) <= LINE_LIMIT
            return []
        *lines, rest = self._in.split(b"\n")
        self._in = rest
        return [bytes(line) for line in lines]

    def send(self, line: bytes, about: str = "") -> None:
        """Queues a message and writes what the socket takes. What is to be said of output of the job that it is
        `about` goes first: once a job's end is told nothing more is."""
        if about in self._nudges:
            del self._nudges[about]
            self._out += _nudge(about)
        self._out += line
        if len(self._out) > BACKLOG_LIMIT:
            self.is_open = False
            return
        self.flush()

    def nudge(self, job_id: str) -> None:
        """Says that the job has new output; many nudges for one job are one while the client is behind."""
        self._nudges[job_id] = None
        if not self._out:
            self.flush()

    def flush(self) -> None:
        """Writes until the socket is full. Nudges go only into an empty buffer, so that none piles up."""
        try:
            while self._out or self._nudges:
                if not self._out:
                    for job_id in self._nudges:
                        self._out += _nudge(job_id)
                    self._nudges.clear()
                del self._out[: self.sock.send(self._out)]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self.is_open = False

    def close(self) -> None:
        self.is_open = False
        self.sock.close()


def _nudge(job_id: str) -> bytes:
    return json.dumps({"event": "output", "job": job_id}).encode() + b"\n"
