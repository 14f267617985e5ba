"""What a script writes, on its way into a file."""

from __future__ import annotations

import os

from app.ssh.far.traces import leave, write_all

AT_ONCE = 32_768
"""Bytes of a job's output that are told with its end."""
PIECE = 65_536


class Stream:
    """One stream of a script, moved into a file: the first `limit` bytes as they come, of the rest the end and the
    length."""

    def __init__(self, path: bytes, limit: int, longest_end: int) -> None:
        self.path = path
        self.limit = limit
        self.longest_end = longest_end
        self.begun = bytearray()
        self.size = self.cut = 0
        self.end = bytearray()
        self.reading, self.writing = os.pipe()
        self.file = -1
        self.is_open = True

    def begin(self) -> None:
        self.file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)

    def take(self) -> bool:
        """Moves a piece. False: there is no more, or nowhere to put it."""
        try:
            data = os.read(self.reading, PIECE)
            kept = data[: self.limit - self.size]
            write_all(self.file, kept)
        except OSError:
            return False
        self.size += len(kept)
        if len(self.begun) <= AT_ONCE:
            self.begun += kept
        if rest := data[len(kept) :]:
            self.cut += len(rest)
            self.end += rest
            del self.end[: max(0, len(self.end) - self.longest_end)]
        return bool(data)

    def hand_over(self) -> None:
        """The script has its end."""
        if self.writing >= 0:
            os.close(self.writing)
            self.writing = -1

    def close(self) -> None:
        self.is_open = False
        self.hand_over()
        os.close(self.reading)
        if self.file >= 0:
            os.close(self.file)
        if self.cut:
            leave(self.path + b".tail", self.end)
            leave(self.path + b".count", b"%d\n" % self.cut)
