"""The runner's side of its socket: who is connected, what they ask, what they are told."""

from __future__ import annotations

import json
import os
import selectors
import socket
import struct
import time
from collections.abc import Callable, Mapping
from typing import Any

from app.node.connection import Connection
from app.node.logfile import log, log_fault
from app.node.requests import BadRequest

Verb = Callable[[Connection, dict[str, Any]], dict[str, Any]]
"""Does what a request asks and gives the fields of the answer. Raises `BadRequest`."""

_READ = selectors.EVENT_READ
_READ_WRITE = selectors.EVENT_READ | selectors.EVENT_WRITE


class Server:
    """Serves `verbs`. Who owns the selector calls `serve`, or the key's data where it is a function."""

    def __init__(
        self, selector: selectors.BaseSelector, listener: socket.socket, verbs: Mapping[str, Verb]
    ) -> None:
        self._selector = selector
        self._listener = listener
        self._verbs = verbs
        self._connections: list[Connection] = []
        selector.register(listener, _READ, self._accept)

    def serve(self, connection: Connection, mask: int) -> None:
        """Does what the selector says can be done for the connection."""
        if not connection.is_open:
            return
        if mask & selectors.EVENT_WRITE:
            connection.flush()
        if mask & _READ:
            for line in connection.receive():
                reply = self._answer(connection, line)
                if connection.is_open:
                    connection.send(json.dumps(reply).encode() + b"\n")
        self._settle(connection)

    def broadcast(self, event: bytes, job_id: str, but: Connection | None = None) -> None:
        """Tells every watcher `but` one the line about a job; one that is too far behind is cut off instead."""
        for connection in self._watchers():
            if connection is not but:
                connection.send(event, job_id)
                self._settle(connection)

    def nudge(self, job_id: str) -> None:
        """Tells every watcher that there is new output of the job."""
        for connection in self._watchers():
            connection.nudge(job_id)
            self._settle(connection)

    def flush(self) -> None:
        """Writes what the sockets take now."""
        for connection in self._connections:
            connection.flush()

    def _watchers(self) -> list[Connection]:
        return [connection for connection in self._connections if connection.watching and connection.is_open]

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError as error:
            # Out of descriptors, or a client that went away at once. The jobs matter more than to answer now.
            log(f"a connection could not be accepted: {error}")
            time.sleep(0.05)
            return
        _, user, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if user not in (0, os.geteuid()):
            sock.close()
            return
        connection = Connection(sock)
        self._connections.append(connection)
        self._selector.register(sock, _READ, connection)

    def _answer(self, connection: Connection, line: bytes) -> dict[str, Any]:
        number = None
        try:
            request = json.loads(line)
            number = request.get("id") if isinstance(request, dict) else None
            verb = self._verbs.get(str(request.get("do"))) if isinstance(request, dict) else None
            if verb is None:
                raise BadRequest("bad_request", f"a request needs `do`, one of {', '.join(self._verbs)}")
            return {"id": number, "ok": True, **verb(connection, request)}
        except BadRequest as error:
            kind, message = error.kind, str(error)
        except (ValueError, RecursionError) as error:
            kind, message = "bad_request", f"a request must be one line of JSON: {error}"
        except OSError as error:
            kind, message = "disk", str(error)
        except Exception as error:  # noqa: BLE001
            # The edge of the protocol: a fault of ours in one request must not cost every script that runs.
            log_fault()
            kind, message = "internal", repr(error)
        return {"id": number, "ok": False, "error": {"type": kind, "message": message}}

    def _settle(self, connection: Connection) -> None:
        """Waits for what the connection waits for, and drops it once it is closed."""
        if connection.is_open:
            wanted = _READ_WRITE if connection.wants_to_write else _READ
            if self._selector.get_key(connection.sock).events != wanted:
                self._selector.modify(connection.sock, wanted, connection)
        elif connection in self._connections:
            self._connections.remove(connection)
            self._selector.unregister(connection.sock)
            connection.close()
