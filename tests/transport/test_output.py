"""Output arrives once, in order and at once, whatever Redis does meanwhile."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import fakeredis
import pytest
import redis
from real_fleet import Broker
from waiting import PATIENCE, wait_until

from app.transport.output import Chunk, Entry, Output, OutputReader, OutputWriter, connect, key

STREAM = key("web-1", "j1")


class Spool:
    """Where output waits: bytes of two streams, given out from the front."""

    def __init__(self) -> None:
        self.left: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
        self.given = {"stdout": 0, "stderr": 0}
        self.largest = 0

    def add(self, data: bytes, stream: str = "stdout") -> None:
        self.left[stream].extend(data)

    def read(self, most: int) -> list[Chunk]:
        found: list[Chunk] = []
        for stream, left in self.left.items():
            data = bytes(left[:most])
            if data:
                found.append((stream, self.given[stream], data))
                del left[: len(data)]
                self.given[stream] += len(data)
                most -= len(data)
        self.largest = max(self.largest, sum(len(chunk[2]) for chunk in found))
        return found


class Away:
    """A client whose Redis is away while told so, and which may lose the answer to what was done."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.asked = 0
        self.away = False
        self.mute = False

    def pipeline(self, **options: Any) -> Any:
        if self.away:
            raise redis.ConnectionError("away")
        self.asked += 1
        pipe = self.client.pipeline(**options)
        if self.mute:
            execute = pipe.execute

            def and_then_nothing() -> None:
                execute()
                raise redis.TimeoutError("no answer")

            pipe.execute = and_then_nothing
        return pipe


@pytest.fixture(params=["fake", "real"])
def client(request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param == "fake":
        yield fakeredis.FakeRedis()
        return
    broker: Broker = request.getfixturevalue("broker")
    broker.client.flushall()
    found = connect(broker.url, blocking=True)
    yield found
    found.close()


@pytest.fixture
def writer(client: Any) -> Iterator[OutputWriter]:
    found = OutputWriter(client, "web-1")
    yield found
    assert found.close()


def test_the_first_line_goes_at_once_and_the_end_is_marked(client: Any, writer: OutputWriter) -> None:
    spool, reader = Spool(), OutputReader(client)
    spool.add(b"one\n")
    writer.follow("j1", spool.read)
    wait_until(lambda: reader.output(STREAM).streams["stdout"] == b"one\n")
    spool.add(b"two\n")
    spool.add(b"oops\n", "stderr")
    writer.wake("j1")
    wait_until(lambda: reader.output(STREAM).streams["stderr"] == b"oops\n")
    assert not reader.output(STREAM).ended
    spool.add(b"three\n")
    writer.finish("j1")
    found = wait_until(lambda: (whole := reader.output(STREAM)).ended and whole)
    assert (found.streams, found.gap) == ({"stdout": b"one\ntwo\nthree\n", "stderr": b"oops\n"}, False)
    entries = reader.read({STREAM: "0"}, block_ms=1)
    assert [entry.sequence for entry in entries] == list(range(len(entries)))
    assert entries[-1].stream == "end"
    reader.expire(STREAM, 60)
    assert 0 < client.ttl(STREAM) <= 60


def test_what_is_short_goes_together_with_its_end(client: Any) -> None:
    counted, spool, reader = Away(client), Spool(), OutputReader(client)
    writer = OutputWriter(counted, "web-1")
    writer.follow("j1", spool.read)
    wait_until(lambda: counted.asked == 1, "there was nothing yet")
    spool.add(b"short\n")
    writer.finish("j1")
    found = wait_until(lambda: (whole := reader.output(STREAM)).ended and whole)
    assert found.streams["stdout"] == b"short\n"
    assert writer.close()
    assert counted.asked == 2
    assert [entry.stream for entry in reader.read({STREAM: "0"}, block_ms=1)] == ["stdout", "end"]


def test_a_read_that_does_not_wait_is_not_held_up_by_an_idle_redis(client: Any) -> None:
    """With BLOCK, however short, each of them would take up to 100 ms: so often Redis looks at waits that are over."""
    reader = OutputReader(client)
    took = []
    for _ in range(50):
        began = time.monotonic()
        assert reader.read({STREAM: "0"}, block_ms=0) == []
        took.append(time.monotonic() - began)
    assert sorted(took)[25] < 0.04


def test_many_jobs_are_followed_with_one_read(client: Any, writer: OutputWriter) -> None:
    reader, spools = OutputReader(client), {f"j{number}": Spool() for number in range(20)}
    wholes = {key("web-1", job): Output() for job in spools}
    after = dict.fromkeys(wholes, "0")
    for job, spool in spools.items():
        writer.follow(job, spool.read)
        spool.add(job.encode())
        writer.finish(job)

    def all_ended() -> bool:
        for entry in reader.read(after, block_ms=50):
            wholes[entry.key].add(entry)
            after[entry.key] = entry.id
        return all(whole.ended for whole in wholes.values())

    wait_until(all_ended)
    assert {name.rpartition(":")[2]: bytes(whole.streams["stdout"]) for name, whole in wholes.items()} == {
        job: job.encode() for job in spools
    }
    assert reader.read(after, block_ms=1) == []
    assert reader.read({}) == []


def test_a_flood_is_coalesced_bounded_and_whole(client: Any) -> None:
    chance, spool = random.Random(5), Spool()
    writer = OutputWriter(client, "web-1", chunk_bytes=4096)
    writer.follow("j1", spool.read)
    sent = bytearray()
    for _ in range(3000):
        data = chance.randbytes(chance.randrange(1, 100))
        spool.add(data)
        sent += data
        writer.wake("j1")
    writer.finish("j1")
    reader = OutputReader(client)
    found = wait_until(lambda: (whole := reader.output(STREAM)).ended and whole)
    assert found.streams["stdout"] == sent
    assert spool.largest <= 4096
    assert client.xlen(STREAM) < 3000
    assert writer.close()


def test_while_redis_is_away_bytes_wait_in_the_spool(client: Any) -> None:
    away, spool, reader = Away(client), Spool(), OutputReader(client)
    writer = OutputWriter(away, "web-1", chunk_bytes=100)
    away.away = True
    writer.follow("j1", spool.read)
    spool.add(b"x" * 10_000)
    writer.wake("j1")
    wait_until(lambda: spool.given["stdout"] > 0, "the first piece was taken")
    assert not writer.close(0.01)
    assert (spool.given["stdout"], bytes(reader.output(STREAM).streams["stdout"])) == (100, b"")
    # Started again, and this time it comes back, and answers get lost.
    writer = OutputWriter(away, "web-1", chunk_bytes=100)
    writer.follow("j2", spool.read)
    away.away, away.mute = False, True
    stream = key("web-1", "j2")
    wait_until(lambda: client.xlen(stream) >= 2, "sent twice")
    away.mute = False
    writer.finish("j2")
    found = wait_until(lambda: (whole := reader.output(stream)).ended and whole)
    assert len(found.streams["stdout"]) == 9_900
    assert writer.close()


def test_a_stream_is_bounded_and_a_reader_sees_the_gap(client: Any) -> None:
    spool, reader = Spool(), OutputReader(client)
    writer = OutputWriter(client, "web-1", chunk_bytes=10, entries=5)
    spool.add(b"0123456789" * 1000)
    writer.follow("j1", spool.read)
    writer.finish("j1")
    found = wait_until(lambda: (whole := reader.output(STREAM)).ended and whole)
    assert found.gap
    assert client.xlen(STREAM) < 300
    assert writer.close()


def test_a_spool_that_cannot_be_read_ends_its_job_and_no_other(client: Any, writer: OutputWriter) -> None:
    def broken(_: int) -> list[Chunk]:
        raise OSError("gone")

    reader, spool = OutputReader(client), Spool()
    writer.follow("j1", broken)
    wait_until(lambda: reader.output(STREAM).ended)
    writer.follow("j2", spool.read)
    spool.add(b"fine")
    writer.finish("j2")
    wait_until(lambda: reader.output(key("web-1", "j2")).ended)
    writer.wake("j1")
    writer.finish("never followed")


def test_what_is_read_is_closed_once_when_nothing_more_will_be_read(
    client: Any, writer: OutputWriter
) -> None:
    reader, closed = OutputReader(client), []
    first, second = Spool(), Spool()
    writer.follow("j1", first.read, lambda: closed.append("first"))
    first.add(b"one")
    writer.wake("j1")
    wait_until(lambda: reader.output(STREAM).streams["stdout"] == b"one")
    assert closed == []
    writer.follow("j1", second.read, lambda: closed.append("second"))
    wait_until(lambda: closed == ["first"], "the one that is followed no more is closed")
    second.add(b"one, two")
    writer.finish("j1")
    wait_until(lambda: closed == ["first", "second"], "and this one at its end")
    assert reader.output(STREAM).streams["stdout"] == b"one, two"


def test_pieces_that_come_twice_or_overlap_count_once() -> None:
    whole = Output()
    pieces = [(0, b"abc"), (0, b"abc"), (1, b"bcde"), (5, b"f"), (2, b"c")]
    fresh = [whole.add(Entry("k", "1-0", "stdout", offset, data, 0)) for offset, data in pieces]
    assert (fresh, bytes(whole.streams["stdout"]), whole.gap) == (
        [b"abc", b"", b"de", b"f", b""],
        b"abcdef",
        False,
    )
    whole.add(Entry("k", "1-0", "stdout", 9, b"z", 0))
    assert (bytes(whole.streams["stdout"]), whole.gap) == (b"abcdefz", True)


def test_junk_in_a_stream_is_stepped_over(client: Any) -> None:
    reader = OutputReader(client)
    junk: list[dict[str, Any]] = [
        {"x": 1},
        {"t": "stdout", "o": "x", "d": b"a", "s": 0},
        {"t": "stdout", "o": -5, "d": b"a", "s": 0},
        {"t": "??", "o": 0, "d": b"a", "s": 0},
        {"t": b"\xff", "o": 0, "d": b"a", "s": 0},
    ]
    for fields in junk:
        client.xadd(STREAM, fields)
    assert [entry.stream for entry in reader.read({STREAM: "0"}, block_ms=1)] == [""] * len(junk)
    assert reader.output(STREAM).streams == {"stdout": b"", "stderr": b""}
    for node, job in (("web-1", "a:b"), ("web*", "j"), ("web-1", "j\n"), ("", "j")):
        with pytest.raises(ValueError, match="no key"):
            key(node, job)


def test_a_reader_waits_longer_than_any_socket_timeout_and_is_woken(broker: Broker) -> None:
    broker.client.flushall()
    found: deque[list[Entry]] = deque()
    client = connect(broker.url, blocking=True)
    assert client.connection_pool.connection_kwargs["socket_timeout"] is None
    thread = threading.Thread(
        target=lambda: found.append(OutputReader(client).read({STREAM: "$"}, block_ms=200_000))
    )
    thread.start()
    wait_until(lambda: broker.client.info("clients")["blocked_clients"] == 1, "the reader waits")
    started = time.monotonic()
    writer, spool = OutputWriter(broker.client, "web-1"), Spool()
    spool.add(b"now")
    writer.follow("j1", spool.read)
    thread.join(PATIENCE)
    assert [entry.data for entry in found[0]] == [b"now"]
    assert time.monotonic() - started < PATIENCE
    assert writer.close()
    client.close()
