"""A wire between the gateway and a machine: a TCP proxy that a test can cut, mend, or let hang."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

from waiting import PATIENCE


class Wire:
    """Listens at `address` and a port of the kernel's choosing, and leads to `target`."""

    def __init__(self, address: str, target: tuple[str, int]) -> None:
        self._target = target
        self._whole = threading.Event()
        self._whole.set()
        self._hangs = False
        self._closed = False
        self._ends: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server((address, 0), backlog=64)
        self.address = address
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self._thread = threading.Thread(target=self._accept, name="wire", daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """From now on nothing gets through either way, and nobody is told: neither end sees the other close."""
        self._whole.clear()

    def mend(self) -> None:
        """New connections get through again; the old ones are gone for good."""
        self._drop()
        self._hangs = False
        self._whole.set()

    def hang(self) -> None:
        """Connections are taken, and not a byte is ever answered."""
        self._hangs = True
        self._drop()

    def close(self) -> None:
        self._closed = True
        self._whole.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._drop()
        self._thread.join(PATIENCE)

    def _drop(self) -> None:
        with self._lock:
            ends, self._ends = self._ends, set()
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with self._lock:
                self._ends.add(near)
            if self._hangs or not self._whole.is_set():
                continue
            try:
                far = socket.create_connection(self._target, timeout=10)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            with self._lock:
                self._ends.add(far)
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(source, target), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if not self._whole.is_set():
                    # What was on its way is lost, and the wire stays silent until both ends are dropped.
                    while source.recv(1 << 16):
                        pass
                    return
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)
