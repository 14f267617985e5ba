"""What a script on the far side wrote, as it comes: masked, and spooled as a runner here would have spooled it."""

from __future__ import annotations

from typing import Any

from app.masking import Masker, Stream
from app.node import jobdir, spool

_STREAMS = {"out": "stdout", "err": "stderr"}


def discard(directory: str) -> None:
    """Drops what an earlier process got of a job's streams: the far side says all of it again."""
    jobdir.remove(directory, [name + end for name in spool.STREAMS for end in ("", ".ring")])


class Received:
    """Both streams of one job in its directory here, where nothing of them may be.

    `got` counts by stream (`out`, `err`) the bytes of the far side's files that are here.
    """

    def __init__(self, directory: str, limit: int, masker: Masker | None) -> None:
        self._masker = masker
        self._spools: dict[str, spool.Spool] = {}
        self._masks: dict[str, Stream | None] = {}
        self.got = {"out": 0, "err": 0}
        for name, stream in _STREAMS.items():
            self._spools[name] = spool.Spool(directory, stream, limit)
            self._masks[name] = None if masker is None else masker.stream()

    def take(self, name: str, at: int, data: bytes) -> bool:
        """The bytes of a stream from offset `at` on, of which some may be here already. Can a follower see more?"""
        fresh = data[max(0, self.got[name] - at) :]
        self.got[name] += len(fresh)
        return bool(fresh) and self._write(name, fresh)

    def take_end(self, name: str, cut: int, data: bytes) -> None:
        """Of the `cut` bytes after those that were taken, the last ones."""
        missing = cut - len(data)
        if missing > 0:
            mask = self._masks[name]
            if self._masker is not None and mask is not None:
                data = self._without_beginning(data)
                # What was held back may be the beginning of a secret that goes on in what is missing.
                missing = cut - len(data) + len(mask.end())
                self._masks[name] = self._masker.stream()
            self._spools[name].skip(missing)
        self._write(name, data)

    def finish(self) -> tuple[dict[str, Any], str | None]:
        """Both streams in the form of `messages.Stream`, by name; and why the disk does not take them, if so."""
        streams = {}
        for name, stream in _STREAMS.items():
            self._close(name)
            streams[stream] = self._spools[name].finish()
        return streams, next((one.broken for one in self._spools.values() if one.broken), None)

    def _write(self, name: str, data: bytes) -> bool:
        mask = self._masks[name]
        shown = data if mask is None else mask.feed(data)
        return bool(shown) and self._spools[name].write(memoryview(shown))

    def _without_beginning(self, data: bytes) -> bytes:
        """What is sure to be after the end of a secret that begins in what is missing, and not within another one."""
        assert self._masker is not None
        sure = min(len(data), max(0, self._masker.longest - 1))
        for start, end in self._masker.spans(data):
            if start < sure < end:
                sure = end
        return data[sure:]

    def _close(self, name: str) -> None:
        mask = self._masks[name]
        if mask is not None and (rest := mask.end()):
            self._spools[name].write(memoryview(rest))
        self._masks[name] = None if self._masker is None else self._masker.stream()
