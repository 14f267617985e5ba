"""Following an execution: its events and, if wanted, the output of its jobs as it is written.

Rows are read in short looks, and live output from Redis for as long as there is some: no look stands between a line
and who reads it, and no database session is held meanwhile. The output of a job always comes before the event that
ends it, so a client that goes on behind an event misses none.
"""

from __future__ import annotations

import codecs
import json
import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import redis

from app import marks
from app.api.shown import moment
from app.services import history, queries
from app.services.history import Happening, Kept, Speaker
from app.store.db import Store
from app.transport import ends
from app.transport.ends import Ends
from app.transport.output import END, Entry, OutputReader, key

log = logging.getLogger(__name__)

HEARTBEAT = 10.0
LOOK_EVERY = 0.3
"""Seconds between two comments that keep a connection alive, and between two looks at the database."""
PATIENCE = 3.0
"""Seconds that the end waits for output which is not stored yet."""

_TOGETHER = 0.02
"""Seconds for which other ends are waited for, once a job's end was heard."""
_BATCH = 200
_ENTRIES = 200
_PIECE = 65_536


def frame(event: str, data: Any, id_: int | str | None = None) -> bytes:
    """One server-sent event. JSON escapes line ends, so data is one line."""
    head = f"id: {id_}\n" if id_ is not None else ""
    text = json.dumps(data, separators=(",", ":"))
    if "\\ufdd" in text:
        text = json.dumps(marks.shown(data), separators=(",", ":"))
    return f"{head}event: {event}\ndata: {text}\n\n".encode()


Piece = tuple[str, int, str]
"""stdout or stderr, the offset of the text's first byte in it, the text."""


@dataclass(slots=True)
class Heard:
    """How far one stream of a job is: the next byte, and the half character before it."""

    next: int = 0
    decoder: Any = field(default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace"))

    @property
    def told(self) -> int:
        """How many bytes are in texts that were given: where another may go on."""
        return self.next - len(self.decoder.getstate()[0])

    def text(self, offset: int, data: bytes) -> tuple[int, str] | None:
        """The offset and text of what is new in a piece; None if nothing is."""
        fresh = data[max(0, self.next - offset) :]
        if not fresh:
            return None
        if offset > self.next:
            self.decoder.reset()
            self.next = offset
        start = self.told
        self.next += len(fresh)
        text = self.decoder.decode(fresh)
        return (start, text) if text else None


@dataclass(slots=True)
class Voice:
    """One job whose output is followed."""

    speaker: Speaker
    last_id: str = "0"
    ended: bool = False
    streams: dict[str, Heard] = field(default_factory=lambda: {"stdout": Heard(), "stderr": Heard()})

    @property
    def key(self) -> str:
        """That of its live output."""
        return key(self.speaker.node, self.speaker.job)

    def take(self, entry: Entry) -> Iterator[Piece]:
        """What an entry of the live output adds."""
        self.last_id = entry.id
        if entry.stream == END:
            self.ended = True
        elif entry.stream in self.streams:
            yield from self._piece(entry.stream, entry.offset, entry.data)

    def take_kept(self, kept: Kept) -> Iterator[Piece]:
        """What the output that was kept adds; where it is complete nothing more can come."""
        for stream, content in sorted(kept.streams.items()):
            for offset in range(0, len(content), _PIECE):
                yield from self._piece(stream, offset, content[offset : offset + _PIECE])
        self.ended = kept.complete

    def _piece(self, stream: str, offset: int, data: bytes) -> Iterator[Piece]:
        found = self.streams[stream].text(offset, data)
        if found is not None:
            yield stream, *found


class Listener:
    """The live output of one execution's jobs. Without Redis there is none, and what was kept comes at the end."""

    def __init__(self, store: Store, client: Any, execution: str) -> None:
        self._store = store
        self._reader = OutputReader(client)
        self._execution = execution
        self._jobs: dict[str, Voice] = {}
        self._over: set[str] = set()
        self._end = {ends.key(execution): "0"}
        self._late: dict[str, float] = {}

    @property
    def complete(self) -> bool:
        """Whether nothing is missing that may still come."""
        return not self._late

    def live(self, seconds: float) -> Iterator[bytes]:
        """What jobs write, for so many seconds, or until the execution comes to its end, or soon after one of them did:
        where there are many they end together, and that each has is not written down before."""
        with self._store.read() as connection:
            found = history.live_speakers(connection, self._execution)
        for speaker in found:
            if speaker.job not in self._over:
                self._jobs.setdefault(speaker.job, Voice(speaker))
        until = time.monotonic() + seconds
        is_over = False
        while not is_over and (left := until - time.monotonic()) > 0:
            listened = {job.key: job for job in self._jobs.values() if not job.ended}
            for entry in self._read(listened, left, self._end):
                if entry.key in self._end:
                    self._end[entry.key] = entry.id
                    is_over = True
                else:
                    yield from _frames(listened[entry.key], listened[entry.key].take(entry))
                    if entry.stream == END:
                        until = min(until, time.monotonic() + _TOGETHER)

    def end_of(self, job: str) -> Iterator[bytes]:
        """The rest of the output of a job that is over."""
        if job in self._over:
            return
        self._over.add(job)
        if job not in self._jobs:
            with self._store.read() as connection:
                known = history.speakers(connection, [job])
            if job not in known:
                return
            self._jobs[job] = Voice(known[job])
        yield from self._rest(self._jobs[job])
        if self._jobs[job].ended:
            del self._jobs[job]
        else:
            self._late[job] = time.monotonic() + PATIENCE

    def late(self) -> Iterator[bytes]:
        """Output that was not there when its job ended; given up after a while."""
        for job, until in list(self._late.items()):
            yield from self._rest(self._jobs[job])
            if self._jobs[job].ended or time.monotonic() > until:
                del self._late[job], self._jobs[job]

    def _rest(self, job: Voice) -> Iterator[bytes]:
        while not job.ended and (entries := self._read({job.key: job}, 0.0)):
            for entry in entries:
                yield from _frames(job, job.take(entry))
        if not job.ended:
            with self._store.read() as connection:
                kept = history.kept_output(connection, job.speaker.job)
            yield from _frames(job, job.take_kept(kept))

    def _read(
        self, listened: Mapping[str, Voice], block: float, others: Mapping[str, str] | None = None
    ) -> list[Entry]:
        after = {name: job.last_id for name, job in listened.items()} | dict(others or {})
        # The count is for each job: many jobs at once must not fill the memory.
        count = max(1, _ENTRIES // max(1, len(listened)))
        try:
            return self._reader.read(after, block_ms=int(block * 1000), count=count)
        except (redis.RedisError, OSError) as error:
            log.warning("live output cannot be read: %s", type(error).__name__)
            time.sleep(block)
            return []


def _frames(job: Voice, pieces: Iterable[Piece]) -> Iterator[bytes]:
    speaker = job.speaker
    for stream, offset, text in pieces:
        yield frame(
            "output",
            {
                "job": speaker.job,
                "task": speaker.task,
                "node": speaker.node,
                "unit": speaker.unit,
                "stream": stream,
                "offset": offset,
                "text": text,
            },
        )


@dataclass(slots=True)
class Follower:
    """The server-sent events of one execution, from the event behind `after` until it is over."""

    store: Store
    ends: Ends
    execution: str
    after: int
    listener: Listener | None
    heard: str = "0"

    def frames(self) -> Iterator[bytes]:
        """Blocks between them; a comment every HEARTBEAT seconds shows that the connection is alive."""
        yield b": following\n\n"
        spoken = time.monotonic()
        while True:
            with self.store.read() as connection:
                # The state first: events that come between the two looks are read as well.
                state = queries.state(connection, self.execution)
                happened = history.list_events(connection, self.execution, after=self.after, limit=_BATCH)
            for part in self._told(happened):
                spoken = time.monotonic()
                yield part
            if len(happened) == _BATCH:
                continue
            if state.over and (self.listener is None or self.listener.complete):
                yield frame("end", {"status": state.status, "degraded": state.degraded})
                return
            for part in self._meanwhile(state.over):
                spoken = time.monotonic()
                yield part
            if time.monotonic() - spoken >= HEARTBEAT:
                spoken = time.monotonic()
                yield b": still here\n\n"

    def _told(self, happened: list[Happening]) -> Iterator[bytes]:
        if self.listener is not None:
            yield from self.listener.late()
        for one in happened:
            if self.listener is not None and one.ended is not None:
                yield from self.listener.end_of(one.ended)
            self.after = one.seq
            yield frame(
                "event", {"seq": one.seq, "kind": one.kind, "at": moment(one.at), "log": one.log}, one.seq
            )

    def _meanwhile(self, over: bool) -> Iterator[bytes]:
        if over:
            time.sleep(LOOK_EVERY)
        elif self.listener is None:
            self.heard = self.ends.wait(self.execution, LOOK_EVERY, self.heard)
        else:
            yield from self.listener.live(LOOK_EVERY)
