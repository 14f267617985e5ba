"""`python -m app.node.healthz FD`: answers GET /healthz on the listening socket FD, for the node of the environment.

A process beside the worker, so that it can say that the worker is gone. Whoever connects has seconds and a few
thousand bytes, and waits for nobody else.
"""

from __future__ import annotations

import json
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from app.node.health import Doctor
from app.settings import from_environment

SEATS = 16
"""Connections at once; one more is hung up on."""
WITHIN = 2.0
"""Seconds that a client has to say what it wants, and then to take the answer."""
LONGEST_HEAD = 8192
_END = b"\r\n\r\n"


class HealthServer(socketserver.ThreadingTCPServer):
    """Serves a socket that somebody else holds."""

    daemon_threads = True

    def __init__(self, listener: socket.socket, doctor: Doctor) -> None:
        super().__init__(listener.getsockname()[:2], _Visit, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.doctor = doctor
        self._seats = threading.BoundedSemaphore(SEATS)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._seats.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._seats.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away in the middle is nobody's error."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Visit(socketserver.BaseRequestHandler):
    server: HealthServer
    request: socket.socket

    def handle(self) -> None:
        head = _head(self.request)
        if not head:
            return
        words = head.split(b"\r\n", 1)[0].split(b" ")
        method, target = (words[0], words[1]) if len(words) == 3 else (b"", b"")
        if not words[-1].startswith(b"HTTP/1.") or not target:
            self._answer(HTTPStatus.BAD_REQUEST, {"error": "this is not HTTP"})
        elif target.partition(b"?")[0] != b"/healthz":
            self._answer(HTTPStatus.NOT_FOUND, {"error": "there is /healthz alone"})
        elif method not in (b"GET", b"HEAD"):
            self._answer(
                HTTPStatus.METHOD_NOT_ALLOWED, {"error": "/healthz is to be read"}, "Allow: GET, HEAD"
            )
        else:
            health = self.server.doctor.examine()
            status = HTTPStatus.SERVICE_UNAVAILABLE if health.failing else HTTPStatus.OK
            self._answer(status, health.to_json(), with_body=method == b"GET")

    def _answer(self, status: HTTPStatus, value: Any, *headers: str, with_body: bool = True) -> None:
        body = json.dumps(value).encode() + b"\n"
        lines = [
            f"HTTP/1.1 {status.value} {status.phrase}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            "Cache-Control: no-store",
            "Connection: close",
            *headers,
        ]
        self.request.settimeout(WITHIN)
        self.request.sendall("\r\n".join(lines).encode() + _END + (body if with_body else b""))


def _head(sock: socket.socket) -> bytes:
    """The head of a request; empty where it does not come whole within the time and the length that it may have."""
    until = time.monotonic() + WITHIN
    found = b""
    while _END not in found:
        left = until - time.monotonic()
        if left <= 0 or len(found) > LONGEST_HEAD:
            return b""
        sock.settimeout(left)
        try:
            data = sock.recv(4096)
        except OSError:
            return b""
        if not data:
            return b""
        found += data
    return found.partition(_END)[0]


def main(arguments: Sequence[str]) -> int:
    """Serves until it is killed."""
    listener = socket.socket(fileno=int(arguments[0]))
    with HealthServer(listener, Doctor(from_environment())) as server:
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
