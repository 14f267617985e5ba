"""Sockets that a supervisor listens on for its children, so that a port outlives every restart of theirs."""

from __future__ import annotations

import http.client
import socket


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; `port` 0 takes a free one. Raises OSError where that cannot be had."""
    (family, kind, protocol, _, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    return listener


def answers(bind: str, path: str, status: int, within: float) -> bool:
    """Whether an HTTP server at `bind` (HOST:PORT) answers a GET with this status, within so many seconds."""
    connection = http.client.HTTPConnection(bind, timeout=within)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == status
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
