"""A proxy in front of Redis that hands every order and every outcome over three times.

It stands between the workers' sockets and the server, reads the commands that pass and, for an LPUSH to one of the
chosen lists, pushes two more copies by itself; every other copy says of itself that it was redelivered.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from waiting import PATIENCE


class Proxy:
    """Listens on `path`. `chosen` says of a list whether what is pushed to it is to be doubled."""

    def __init__(self, path: Path, server: Path, client: Any, chosen: Callable[[str], bool]) -> None:
        self.copies = 0
        self._server = server
        self._client = client
        self._chosen = chosen
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(64)
        self._closed = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._accept, name="proxy", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(PATIENCE)

    def _accept(self) -> None:
        while not self._closed:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            far.connect(str(self._server))
            threading.Thread(target=self._carry, args=(near, far, True), daemon=True).start()
            threading.Thread(target=self._carry, args=(far, near, False), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, looks: bool) -> None:
        """Everything goes on as it came; whole commands are looked at once they have."""
        pending = b""
        with suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
                if looks:
                    pending = self._look(pending + data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        source.close()

    def _look(self, data: bytes) -> bytes:
        """Takes whole commands off the front; returns the rest."""
        while (found := _command(data)) is not None:
            words, data = found
            if len(words) == 3 and words[0].upper() == b"LPUSH" and self._chosen(words[1].decode()):
                self._push_again(words[1], words[2])
        return data

    def _push_again(self, key: bytes, item: bytes) -> None:
        again = json.loads(item)
        again["properties"]["delivery_info"]["redelivered"] = True
        for copy in (json.dumps(again).encode(), item):
            self._client.lpush(key, copy)
            with self._lock:
                self.copies += 1


def _command(data: bytes) -> tuple[list[bytes], bytes] | None:
    """The first command in the bytes and what is behind it; None as long as it is not whole."""
    head, separator, rest = data.partition(b"\r\n")
    if not separator or not head.startswith(b"*"):
        return None
    words = []
    for _ in range(int(head[1:])):
        size, separator, rest = rest.partition(b"\r\n")
        if not separator:
            return None
        length = int(size[1:])
        if len(rest) < length + 2:
            return None
        words.append(rest[:length])
        rest = rest[length + 2 :]
    return words, rest
