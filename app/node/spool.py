"""What a job wrote to stdout or stderr, kept on disk within its limit: first half, cut mark, last half.

`<stream>` in the job's directory comes with its first byte and only ever grows, so that a follower can tail it:
the head as it comes, then, once the stream is over, the cut mark (where something was cut) and the tail. Until then
the tail goes round in `<stream>.ring`, a file of fixed size: memory stays flat whatever is written and however
large the limit is.
"""

from __future__ import annotations

import binascii
import os
from typing import Any

from app.node import jobdir

# The built-in sha256 spares the runner the 4 MB that OpenSSL's library costs it; some builds of Python
# have no other than OpenSSL's.
try:
    from _sha2 import sha256  # type: ignore[import-not-found,unused-ignore]
except ImportError:
    try:
        from _sha256 import sha256  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        from hashlib import sha256

STREAMS = ("stdout", "stderr")
EXCERPT = 8192
"""Bytes of the head, and of the tail, that travel in the outcome."""

EMPTY_SHA256 = sha256(b"").hexdigest()
_CHUNK = 262_144


def cut_mark(cut: int) -> bytes:
    """What stands in the kept bytes where `cut` bytes were left out."""
    return f"\n… [muster: {cut} bytes cut] …\n".encode()


class Spool:
    """The writing end of one stream. `limit` is in bytes: what is kept, without the mark, fits it."""

    def __init__(self, directory: str, stream: str, limit: int) -> None:
        self._path = os.path.join(directory, stream)
        self._head_limit = limit - limit // 2
        self._tail_limit = limit // 2
        self._file: int | None = None
        self._ring: int | None = None
        self._digest = sha256()
        self._in_file = 0
        self._in_tail = 0
        self._broken: str | None = None
        self._skipped = False
        self.total = 0

    @property
    def broken(self) -> str | None:
        """Why the disk no longer takes this stream, or None. What is written then is counted and dropped."""
        return self._broken

    def write(self, data: memoryview) -> bool:
        """Takes the next bytes. True where a follower can now read more than before."""
        self.total += len(data)
        is_head = self._in_tail == 0 and not self._skipped and self._broken is None
        room = self._head_limit - self._in_file if is_head else 0
        if room > 0:
            self._append(data[:room])
            data = data[room:]
        if len(data) and self._broken is None:
            self._turn(data)
        return room > 0

    def skip(self, count: int) -> None:
        """So many bytes were written and cut elsewhere: what comes now is the tail, or nothing of it is kept."""
        self.total += count
        self._skipped = True
        self._in_tail = 0

    def finish(self) -> dict[str, Any]:
        """Completes the file and closes it; what was kept, in the form of `messages.Stream`."""
        if self.total == 0:
            return nothing()
        tail = min(self._in_tail, self._tail_limit)
        # A failed write (a full disk) can lose bytes of the head, too: the mark tells the truth in any case.
        cut = self.total - self._in_file - tail
        kept = self._in_file
        if cut > 0:
            self._append(memoryview(cut_mark(cut)))
        if tail and self._ring is not None:
            before = self._in_file
            start = self._in_tail % self._tail_limit if self._in_tail > self._tail_limit else 0
            self._copy_ring(start, tail - start if start else tail)
            self._copy_ring(0, start)
            kept += self._in_file - before
        head, end = _excerpts(self._file) if self._file is not None else ("", "")
        if self._file is not None:
            os.close(self._file)
        if self._ring is not None:
            os.close(self._ring)
            os.unlink(self._path + ".ring")
        return {
            "bytes": self.total,
            "kept": kept,
            "sha256": self._digest.hexdigest(),
            "head": head,
            "tail": end,
            "truncated": cut > 0 or kept < self.total,
        }

    def _append(self, data: memoryview) -> None:
        if self._broken is not None or not len(data):
            return
        try:
            if self._file is None:
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                self._file = os.open(self._path, flags, 0o600)
            while len(data):
                written = os.write(self._file, data)
                self._digest.update(data[:written])
                self._in_file += written
                data = data[written:]
        except OSError as error:
            self._broken = str(error)

    def _turn(self, data: memoryview) -> None:
        skipped = max(0, len(data) - self._tail_limit)
        self._in_tail += skipped
        data = data[skipped:]
        try:
            if self._ring is None and len(data):
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                self._ring = os.open(self._path + ".ring", flags, 0o600)
            while len(data) and self._ring is not None:
                at = self._in_tail % self._tail_limit
                written = os.pwrite(self._ring, data[: self._tail_limit - at], at)
                self._in_tail += written
                data = data[written:]
        except OSError as error:
            # Half a turn is neither the old tail nor the new one.
            self._broken = str(error)
            self._in_tail = 0

    def _copy_ring(self, at: int, length: int) -> None:
        if self._ring is None:
            return
        while length > 0 and self._broken is None:
            chunk = os.pread(self._ring, min(length, _CHUNK), at)
            if not chunk:
                return
            self._append(memoryview(chunk))
            at += len(chunk)
            length -= len(chunk)


def nothing() -> dict[str, Any]:
    """A stream into which nothing was written, in the form of `messages.Stream`."""
    return {"bytes": 0, "kept": 0, "sha256": EMPTY_SHA256, "head": "", "tail": "", "truncated": False}


def abandoned(directory: str, stream: str) -> dict[str, Any]:
    """What is left of a stream whose runner died, in the form of `messages.Stream`: its head.

    How often the ring had gone round is lost with the runner, so a tail cannot be put together.
    """
    path = os.path.join(directory, stream)
    digest = sha256()
    kept = 0
    head = tail = ""
    try:
        descriptor = jobdir.open_regular(directory, stream)
    except OSError:
        descriptor = -1
    if descriptor >= 0:
        while chunk := os.read(descriptor, _CHUNK):
            digest.update(chunk)
            kept += len(chunk)
        head, tail = _excerpts(descriptor)
        os.close(descriptor)
    try:
        lost = os.stat(path + ".ring").st_size
        os.unlink(path + ".ring")
    except OSError:
        lost = 0
    return {
        "bytes": kept + lost,
        "kept": kept,
        "sha256": digest.hexdigest(),
        "head": head,
        "tail": tail,
        "truncated": lost > 0,
    }


def text(directory: str, stream: str) -> bytes:
    """The kept bytes of a stream that is over, with the cut mark: exactly what `sha256` is over."""
    try:
        with open(os.path.join(directory, stream), "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""


class Follower:
    """Reads a stream from `offset` on while it is written; offsets count in the kept file, mark included."""

    def __init__(self, directory: str, stream: str, offset: int = 0) -> None:
        self._directory = directory
        self._stream = stream
        self._file: int | None = None
        self.offset = offset

    def read(self, max_bytes: int = 65536) -> tuple[int, bytes]:
        """The offset and the next bytes; no bytes where there are none yet. Never waits for more to come."""
        if self._file is None:
            try:
                self._file = jobdir.open_regular(self._directory, self._stream)
            except FileNotFoundError:
                return self.offset, b""
        at = self.offset
        data = os.pread(self._file, max_bytes, at)
        self.offset += len(data)
        return at, data

    @property
    def is_over(self) -> bool:
        """True once nothing can be added, or the job was forgotten. A `read` after that gives the end."""
        return jobdir.exit_record(self._directory) is not None or not os.path.isdir(self._directory)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _excerpts(descriptor: int) -> tuple[str, str]:
    """The first `EXCERPT` bytes and the last of what follows them, base64: together they never overlap."""
    size = os.fstat(descriptor).st_size
    head = os.pread(descriptor, EXCERPT, 0)
    rest = min(EXCERPT, max(0, size - len(head)))
    tail = os.pread(descriptor, rest, size - rest) if rest else b""
    return _base64(head), _base64(tail)


def _base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode()


class Tail:
    """Reads both streams of a job as they are written: stream, offset and bytes of what is new."""

    def __init__(self, directory: str) -> None:
        self._streams = [(name, Follower(directory, name)) for name in STREAMS]

    def read(self, max_bytes: int) -> list[tuple[str, int, bytes]]:
        found = []
        for name, follower in self._streams:
            offset, data = follower.read(max_bytes)
            if data:
                found.append((name, offset, data))
        return found

    def close(self) -> None:
        for _, follower in self._streams:
            follower.close()
