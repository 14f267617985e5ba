"""Several blobs as one compressed stream: what travels where a request for each file would cost more than the file.

A bundle is one zstd stream of frames: 32 bytes of sha256, 8 of the size (big-endian), the bytes; then 40 zero bytes
as the end. Its reader believes nothing of it: not a size, not a digest, not that it ends.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import BinaryIO, Final, Protocol

import zstandard

from app.files.limits import DEFAULT, Limits
from app.files.names import BadTree

BUNDLE_BYTES: Final = 16 << 20
"""Bytes of blobs up to which a bundle is never refused for its ratio, however well they compress."""

_HEADER: Final = 40
_END: Final = bytes(_HEADER)
_CHUNK: Final = 1 << 18
_WINDOW: Final = 1 << 23
"""How much of what came before a bundle may refer to: memory that its reader needs."""


class Sink(Protocol):
    """Where a bundle is written to."""

    def write(self, data: bytes, /) -> object: ...


class Source(Protocol):
    """Where a bundle is read from; `read` gives nothing at the end only."""

    def read(self, size: int, /) -> bytes: ...


def write(out: Sink, blobs: Iterable[tuple[str, int, Callable[[], BinaryIO]]], level: int = 3) -> None:
    """Writes the blobs: of each the sha256 in hexadecimal, its size and how it is opened (closed again here).

    Raises BadTree for one that has another size than it should: what was written by then is no bundle.
    """
    for piece in pieces(blobs, level):
        out.write(piece)


def pieces(blobs: Iterable[tuple[str, int, Callable[[], BinaryIO]]], level: int = 3) -> Iterator[bytes]:
    """What `write` writes, piece by piece as it is asked for. Raises as it does."""
    packed = zstandard.ZstdCompressor(level=level).compressobj()
    for digest, size, opened in blobs:
        if piece := packed.compress(bytes.fromhex(digest) + size.to_bytes(8, "big")):
            yield piece
        left = size
        with opened() as blob:
            while left >= 0 and (data := blob.read(min(left + 1, _CHUNK))):
                left -= len(data)
                if piece := packed.compress(data):
                    yield piece
        if left:
            raise BadTree(f"the blob {digest} does not have {size} bytes", digest=digest)
    yield packed.compress(_END) + packed.flush()


def read(
    stream: Source, limits: Limits = DEFAULT, wanted: Collection[str] | None = None
) -> Iterator[tuple[str, Blob]]:
    """The blobs of a bundle as they come: of each the sha256 in hexadecimal and its bytes, good until the next.

    A blob raises BadTree when its last byte does not make the digest true; one that is not read to its end is, as
    the next is asked for. Raises BadTree for what is no bundle, ends too early or goes on after its end, for a blob
    that is not among the wanted ones or comes twice, and as soon as there are more blobs, bytes, or bytes for each
    compressed one than the limits allow.
    """
    frames = _Frames(stream, limits)
    seen: set[str] = set()
    while (header := frames.take(_HEADER)) != _END:
        digest, size = header[:32].hex(), int.from_bytes(header[32:], "big")
        if digest in seen or (wanted is not None and digest not in wanted):
            raise BadTree(f"the bundle holds {digest}, which was not asked for or came before", digest=digest)
        seen.add(digest)
        if len(seen) > limits.files:
            raise BadTree(f"the bundle holds more than {limits.files} blobs")
        frames.need_room(size)
        with Blob(frames, digest, size) as blob:
            yield digest, blob
            blob.drain()
    frames.need_end()


class Blob(io.RawIOBase):
    """The bytes of one blob of a bundle, in order, once. `size` is how many there are in all."""

    def __init__(self, frames: _Frames, digest: str, size: int) -> None:
        self.digest = digest
        self.size = size
        self._frames = frames
        self._left = size
        self._hash = hashlib.sha256()
        if not size:
            self._check()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        """At most so many bytes: as many as there are still, where it is negative."""
        wanted = self._left if size < 0 else min(size, self._left)
        data = self._frames.take(wanted) if wanted else b""
        self._hash.update(data)
        self._left -= len(data)
        if data and not self._left:
            self._check()
        return data

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def drain(self) -> None:
        """Reads what is left, for the digest alone."""
        while self._left:
            self.read(_CHUNK)

    def _check(self) -> None:
        if self._hash.hexdigest() != self.digest:
            raise BadTree(f"the blob {self.digest} is not what its name says", digest=self.digest)


class _Frames:
    """The stream behind the compression, held to the limits."""

    def __init__(self, stream: Source, limits: Limits) -> None:
        self._source = _Counted(stream)
        self._limits = limits
        self._told = 0
        self._out = 0
        self._plain = zstandard.ZstdDecompressor(max_window_size=_WINDOW).stream_reader(
            self._source,  # type: ignore[arg-type]
            read_size=_CHUNK,
            read_across_frames=True,
            closefd=False,
        )

    def need_room(self, size: int) -> None:
        self._told += size
        if self._told > self._limits.bytes:
            raise BadTree(f"the bundle holds more than {self._limits.bytes} bytes")

    def take(self, count: int) -> bytes:
        """Exactly so many bytes."""
        parts: list[bytes] = []
        while count:
            data = self._read(min(count, _CHUNK))
            if not data:
                raise BadTree("the bundle ends before it is complete")
            parts.append(data)
            count -= len(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def need_end(self) -> None:
        if self._read(1):
            raise BadTree("the bundle goes on after its end")

    def _read(self, count: int) -> bytes:
        try:
            data = self._plain.read(count)
        except zstandard.ZstdError as error:
            raise BadTree(f"the bundle cannot be unpacked: {error}") from None
        self._out += len(data)
        if self._out - BUNDLE_BYTES > self._limits.ratio * self._source.count:
            raise BadTree(f"the bundle unpacks to more than {self._limits.ratio} times its size")
        return data


class _Counted:
    """A source that counts what was read from it."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.count = 0

    def read(self, size: int) -> bytes:
        data = self._source.read(size)
        self.count += len(data)
        return data
