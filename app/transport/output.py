"""Live output: one Redis stream per job, written by its node and followed by whoever looks on.

An entry is a piece of one stream: `t` its type (stdout, stderr, end), `s` the job's running number, `o` the
offset of its first byte, `d` the bytes. Writing is at least once: a piece that may or may not have arrived is
sent again, and a reader leaves out what it has by the offset. The stream is a view: bounded, in clear, soon
gone; what is kept for good travels sealed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.errors import Unavailable
from app.transport.messages import JOB_ID, NODE_NAME

logger = logging.getLogger(__name__)

Chunk = tuple[str, int, bytes]
"""stdout or stderr, the offset of the first byte in it, the bytes."""

Read = Callable[[int], Sequence[Chunk]]
"""Gives the next output of a job, so many bytes at the most; nothing when there is none for now."""

END = "end"
_LIFETIME, _LONGEST = 3600, 7 * 86_400
"""Seconds that a stream stays after its end, and after its last piece where no end ever comes."""

_CHUNK_BYTES = 65_536
_ENTRIES = 1_000
_SHORTEST_WAIT, _LONGEST_WAIT = 0.1, 5.0


def _nothing() -> None:
    """What there is to close where nothing was opened."""


def connect(url: str, *, blocking: bool = False) -> Any:
    """A Redis client for `url`, spelled as Celery spells it (`redis+socket://` too).

    `blocking` is for reads that wait: redis-py's own timeout would end them.
    """
    return _client(url, {"socket_timeout": None if blocking else 30.0, "health_check_interval": 25})


def ping(url: str, seconds: float) -> None:
    """Asks Redis for a word, once; connecting and answering may take so many seconds each.

    Raises Unavailable, whose message says nothing of the URL.
    """
    options = {"socket_timeout": seconds, "socket_connect_timeout": seconds, "retry": Retry(NoBackoff(), 0)}
    try:
        with _client(url, options) as client:
            client.ping()
    except (redis.RedisError, OSError, ValueError) as error:
        raise Unavailable(f"does not answer ({type(error).__name__})") from None


def _client(url: str, options: dict[str, Any]) -> Any:
    if url.startswith(("redis+socket://", "socket://")):
        parts = urlsplit(url)
        database = parse_qs(parts.query).get("virtual_host", ["0"])[0]
        return redis.Redis(unix_socket_path=parts.path, db=int(database.strip("/") or 0), **options)
    return redis.Redis.from_url(url, **{"socket_connect_timeout": 5.0, "socket_keepalive": True, **options})


def key(node: str, job: str) -> str:
    """The stream's key. The node's name comes first, so that a node can have the right to its own only."""
    if not NODE_NAME.fullmatch(node) or not JOB_ID.fullmatch(job):
        raise ValueError(f"no key for the output of {job!r} on {node!r}")
    return f"muster:log:{node}:{job}"


@dataclass(slots=True)
class _Job:
    key: str
    read: Read
    close: Callable[[], None]
    sequence: int = 0
    ending: bool = False
    unsent: list[dict[str, Any]] = field(default_factory=list)


class OutputWriter:
    """One thread that carries the output of all jobs of a node to Redis.

    It pulls: a job is woken when there is output, and its `read` is asked for as much as fits one entry. What
    comes while a write is under way is one entry in the next; the first line goes at once. While Redis is slow
    or away at most one entry per job is held here; the rest waits where `read` takes it from.
    """

    def __init__(
        self, client: Any, node: str, *, chunk_bytes: int = _CHUNK_BYTES, entries: int = _ENTRIES
    ) -> None:
        self._client = client
        self._node = node
        self._chunk_bytes = chunk_bytes
        self._entries = entries
        self._jobs: dict[str, _Job] = {}
        self._woken: dict[str, None] = {}
        self._replaced: list[_Job] = []
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="output", daemon=True)
        self._thread.start()

    def follow(self, job: str, read: Read, close: Callable[[], None] = _nothing) -> None:
        """Starts to carry a job's output, or starts anew. In the writer's thread only, `read` is called, and `close`
        once no more will be read."""
        with self._changed:
            if job in self._jobs:
                self._replaced.append(self._jobs[job])
            self._jobs[job] = _Job(key(self._node, job), read, close)
        self.wake(job)

    def wake(self, job: str) -> None:
        """There may be more to read."""
        with self._changed:
            if job in self._jobs:
                self._woken[job] = None
                self._changed.notify()

    def finish(self, job: str) -> None:
        """No more will come: what is left is read and written, and then the end is marked."""
        with self._changed:
            if job in self._jobs:
                self._jobs[job].ending = True
        self.wake(job)

    def close(self, seconds: float = 5.0) -> bool:
        """Writes what there is and ends the thread; False if it took over `seconds` or Redis is away."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(seconds)
        return not self._thread.is_alive() and not any(job.unsent for job in self._jobs.values())

    def _run(self) -> None:
        wait = _SHORTEST_WAIT
        while True:
            with self._changed:
                while not self._woken and not self._stopping:
                    self._changed.wait()
                if not self._woken:
                    return
                woken, self._woken = list(self._woken), {}
                jobs = {name: self._jobs[name] for name in woken if name in self._jobs}
                replaced, self._replaced = self._replaced, []
            for job in replaced:
                job.close()
            for job in jobs.values():
                self._fill(job)
            if self._send(jobs):
                wait = _SHORTEST_WAIT
                continue
            with self._changed:
                if self._stopping:
                    return
                self._woken.update(dict.fromkeys(jobs))
                # Nothing else ends this wait but the time: a wake would only find Redis still away.
                self._changed.wait_for(lambda: self._stopping, wait)
            wait = min(2 * wait, _LONGEST_WAIT)

    def _fill(self, job: _Job) -> None:
        """Takes the next output of a job, unless some is waiting to be sent."""
        if job.unsent:
            return
        # Before reading: bytes that come between the read and this look belong to a job that has not ended.
        ending = job.ending
        chunks: list[Chunk] = []
        room, is_all = self._chunk_bytes, False
        try:
            while room > 0 and not is_all:
                found = [chunk for chunk in job.read(room) if chunk[2]]
                chunks += found
                room -= sum(len(data) for _, _, data in found)
                is_all = not found or not ending
        except (OSError, ValueError) as error:
            logger.warning("the output of %s cannot be read: %s", job.key, error)
            ending = is_all = True
        job.unsent = [{"t": stream, "o": offset, "d": data} for stream, offset, data in chunks]
        if ending and is_all:
            # What is short goes together with its end.
            job.unsent.append({"t": END, "o": 0, "d": b""})
        for entry in job.unsent:
            entry["s"] = job.sequence
            job.sequence += 1

    def _send(self, jobs: Mapping[str, _Job]) -> bool:
        try:
            with self._client.pipeline(transaction=False) as pipe:
                for job in jobs.values():
                    for entry in job.unsent:
                        pipe.xadd(job.key, entry, maxlen=self._entries, approximate=True)
                    if job.unsent:
                        pipe.expire(job.key, _LIFETIME if job.unsent[-1]["t"] == END else _LONGEST)
                pipe.execute()
        except (redis.RedisError, OSError) as error:
            logger.warning("output waits in the spool: %s", type(error).__name__)
            return False
        over: list[_Job] = []
        with self._changed:
            for name, job in jobs.items():
                sent, job.unsent = job.unsent, []
                if self._jobs.get(name) is not job:
                    # Followed anew in the meantime: what was sent is the old one's.
                    self._woken[name] = None
                elif sent and sent[-1]["t"] == END:
                    over.append(self._jobs.pop(name))
                elif sent or job.ending:
                    self._woken[name] = None
        for job in over:
            job.close()
        return True


@dataclass(frozen=True, slots=True)
class Entry:
    """A piece of output as it was read. To go on behind it, use `id`. An empty `stream` is junk."""

    key: str
    id: str
    stream: str
    offset: int
    data: bytes
    sequence: int


@dataclass(slots=True)
class Output:
    """The bytes of a job's streams, as far as they are known; `gap` if some before them were missing."""

    streams: dict[str, bytearray] = field(
        default_factory=lambda: {"stdout": bytearray(), "stderr": bytearray()}
    )
    ended: bool = False
    gap: bool = False
    _next: dict[str, int] = field(default_factory=dict)

    def add(self, entry: Entry) -> bytes:
        """Adds an entry and returns what of it is new: pieces that were sent twice are left out."""
        self.ended = self.ended or entry.stream == END
        if entry.stream not in self.streams:
            return b""
        after = self._next.get(entry.stream, 0)
        if entry.offset > after:
            self.gap = True
        fresh = entry.data[max(0, after - entry.offset) :]
        self._next[entry.stream] = max(after, entry.offset + len(entry.data))
        self.streams[entry.stream].extend(fresh)
        return fresh


class OutputReader:
    """Reads the output of many jobs. Its client must have no timeout: `connect(url, blocking=True)`."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def read(self, after: Mapping[str, str], *, block_ms: int = 1000, count: int = 100) -> list[Entry]:
        """Entries behind the id given for each key (`0` from the start), at most `count` for each.

        Waits up to `block_ms` milliseconds for the first; then returns what there is, or nothing. Zero asks once:
        an idle Redis looks at waits that are over every 100 ms, so even the shortest may cost as much.
        """
        if not after:
            return []
        # BLOCK 0 would be for ever.
        found = self._client.xread(dict(after), count=count, block=block_ms if block_ms > 0 else None)
        return [entry for name, raw in found or () for entry in _entries(name, raw)]

    def output(self, stream: str) -> Output:
        """All that is in one stream now, put together."""
        whole, start = Output(), "-"
        while page := self._client.xrange(stream, min=start, count=500):
            entries = list(_entries(stream, page))
            for entry in entries:
                whole.add(entry)
            start = f"({entries[-1].id}"
        return whole

    def expire(self, stream: str, seconds: int) -> None:
        """Lets a stream go after so many seconds."""
        self._client.expire(stream, seconds)

    def drop(self, stream: str) -> None:
        """Forgets a stream at once."""
        self._client.delete(stream)


def _entries(stream: Any, raw: Iterable[Any]) -> Iterator[Entry]:
    name = stream.decode() if isinstance(stream, bytes) else str(stream)
    for entry_id, fields in raw:
        try:
            kind, offset, sequence = fields[b"t"].decode(), int(fields[b"o"]), int(fields[b"s"])
            data = bytes(fields[b"d"])
        except (KeyError, ValueError, TypeError, AttributeError):
            kind, offset, sequence, data = "", 0, 0, b""
        # A node may write what it likes into its own streams. What is no output is stepped over, by its id.
        if kind not in ("stdout", "stderr", END) or offset < 0:
            kind, offset, data = "", 0, b""
        yield Entry(name, entry_id.decode(), kind, offset, data, sequence)
