"""A command as it runs: server-sent events with its two streams apart, numbered, and its result at the end.

The id of an event is `number-stdout-stderr`: its place in the stream, and how many bytes of each output have been told
with it. Whoever comes back with one goes on exactly there, whether Redis still has the pieces or only the rows do.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import redis
from sqlalchemy import Connection

from app.api.live import HEARTBEAT, PATIENCE, Heard, Piece, Voice, frame, log
from app.api.shown import CommandSchema
from app.errors import InvalidInput
from app.services import adhoc, history, queries
from app.store.db import Store
from app.transport import ends
from app.transport.output import Entry, OutputReader

LOOK_EVERY = 1.0
"""Seconds between two looks at the rows where Redis says nothing of an end."""
LATE_LOOK = 0.1
"""The same once the command is over, while its output is not stored yet."""

_ENTRIES = 200
_ID = re.compile(r"([0-9]{1,10})-([0-9]{1,15})-([0-9]{1,15})")
_shown = CommandSchema()


@dataclass(frozen=True, slots=True)
class Place:
    """How far a client is: events that it has, and bytes of stdout and stderr that were in them."""

    number: int = 0
    stdout: int = 0
    stderr: int = 0

    def __str__(self) -> str:
        return f"{self.number}-{self.stdout}-{self.stderr}"

    @classmethod
    def read(cls, text: str) -> Place:
        """Raises InvalidInput."""
        found = _ID.fullmatch(text)
        if found is None:
            raise InvalidInput(
                "Last-Event-ID must be the id of an event of this stream",
                hint="send the last `id` that you got",
                code="bad-event-id",
            )
        return cls(*map(int, found.groups()))


@dataclass(slots=True)
class CommandFollower:
    """The stream of one command on one node. `resume` is the path at which it goes on."""

    store: Store
    client: Any
    execution: str
    node: str
    resume: str
    place: Place = Place()
    _voice: Voice | None = None
    _over_after: str = "0"
    _reader: OutputReader = field(init=False)

    def __post_init__(self) -> None:
        self._reader = OutputReader(self.client)

    def frames(self) -> Iterator[bytes]:
        """Blocks between them; a comment every HEARTBEAT seconds shows that the connection is alive."""
        yield b": following\n\n"
        self._voice = self._begin()
        if not self.place.number:
            job = self._voice.speaker.job if self._voice else None
            told = {"execution": self.execution, "node_id": self.node, "job": job, "resume": self.resume}
            yield self._numbered("started", told)
        spoken = time.monotonic()
        give_up: float | None = None
        while True:
            state = self._look(lambda connection: queries.state(connection, self.execution))
            if state.over:
                give_up = give_up or time.monotonic() + PATIENCE
                # The result first: output that is stored between the two looks is told as well.
                now = self._look(lambda connection: adhoc.result(connection, self.execution, self.node))
                yield from self._rest()
                if now.complete or time.monotonic() > give_up:
                    yield self._numbered("result", _shown.dump(now.shown))
                    yield frame("end", {"status": state.status, "degraded": state.degraded})
                    return
                time.sleep(LATE_LOOK)
                continue
            for part in self._live():
                spoken = time.monotonic()
                yield part
            if time.monotonic() - spoken >= HEARTBEAT:
                spoken = time.monotonic()
                yield b": still here\n\n"

    def _begin(self) -> Voice | None:
        speaker = self._look(lambda connection: adhoc.speaker(connection, self.execution))
        if speaker is None:
            return None
        place = self.place
        return Voice(speaker, streams={"stdout": Heard(place.stdout), "stderr": Heard(place.stderr)})

    def _look(self, read: Callable[[Connection], Any]) -> Any:
        with self.store.read() as connection:
            return read(connection)

    def _live(self) -> Iterator[bytes]:
        """What is written until there is a reason to look at the rows: an end, or time."""
        until = time.monotonic() + LOOK_EVERY
        over = ends.key(self.execution)
        while (left := until - time.monotonic()) > 0:
            after = {over: self._over_after}
            if self._voice is not None and not self._voice.ended:
                after[self._voice.key] = self._voice.last_id
            for entry in self._read(after, left):
                if entry.key == over:
                    self._over_after = entry.id
                    return
                yield from self._told(self._voice.take(entry) if self._voice else ())

    def _rest(self) -> Iterator[bytes]:
        """What is left of the output of a command that is over: from Redis, else as it was kept."""
        voice = self._voice
        if voice is None:
            return
        while not voice.ended and (entries := self._read({voice.key: voice.last_id}, 0.0)):
            for entry in entries:
                yield from self._told(voice.take(entry))
        if not voice.ended:
            kept = self._look(lambda connection: history.kept_output(connection, voice.speaker.job))
            yield from self._told(voice.take_kept(kept))

    def _read(self, after: dict[str, str], block: float) -> list[Entry]:
        try:
            return self._reader.read(after, block_ms=int(block * 1000), count=_ENTRIES)
        except (redis.RedisError, OSError) as error:
            log.warning("live output cannot be read: %s", type(error).__name__)
            time.sleep(block)
            return []

    def _told(self, pieces: Iterable[Piece]) -> Iterator[bytes]:
        for stream, offset, text in pieces:
            yield self._numbered(stream, {"offset": offset, "text": text})

    def _numbered(self, event: str, data: dict[str, Any]) -> bytes:
        told = {name: heard.told for name, heard in self._voice.streams.items()} if self._voice else {}
        self.place = Place(self.place.number + 1, **told)
        return frame(event, {"seq": self.place.number, **data}, str(self.place))
