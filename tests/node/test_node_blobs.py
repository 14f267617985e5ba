"""A node's client of blobs against real HTTP: whatever breaks off goes on, and what is wrong is said."""

from __future__ import annotations

import hashlib
import io
import random
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from blob_server import TOKEN, BlobServer
from waiting import PATIENCE

from app.errors import InvalidInput, MusterError, NotFound, Unavailable
from app.files.limits import Limits
from app.files.manifest import Entry, Manifest
from app.files.names import BadTree
from app.node import asking
from app.node.asking import Refused, Stopped
from app.node.blobcache import BlobCache
from app.node.blobs import LARGE, PART, BlobClient, connector

NOISE = random.Random(6)
SMALL = [NOISE.randbytes(size) for size in (0, 1, 1000, 70_000, 300_000)]
BIG = NOISE.randbytes(LARGE + 3_000_000)
HUGE = NOISE.randbytes(PART + 2_000_000)


def sizes(*contents: bytes) -> dict[str, int]:
    return {hashlib.sha256(content).hexdigest(): len(content) for content in contents}


@pytest.fixture
def server() -> Iterator[BlobServer]:
    made = BlobServer()
    yield made
    made.stop()


@pytest.fixture
def cache(tmp_path: Path) -> BlobCache:
    return BlobCache(tmp_path / "blobs", 1 << 30)


@pytest.fixture
def client(server: BlobServer, cache: BlobCache, tmp_path: Path) -> Iterator[BlobClient]:
    with connected(server, cache, tmp_path) as made:
        yield made


@contextmanager
def connected(
    server: BlobServer, cache: BlobCache, tmp_path: Path, patience: float = 20.0, url: str = ""
) -> Iterator[BlobClient]:
    (tmp_path / "parts").mkdir(exist_ok=True)
    with closing(connector(cache, url, patience, Limits())(server.files, tmp_path / "parts")) as made:
        yield made


def held(cache: BlobCache, *contents: bytes) -> bool:
    for digest, content in zip(sizes(*contents), contents, strict=True):
        with cache.open(digest) as file:
            if file.read() != content:
                return False
    return True


def keep(cache: BlobCache, *contents: bytes) -> None:
    for digest, content in zip(sizes(*contents), contents, strict=True):
        cache.add(digest, len(content), io.BytesIO(content))


def test_small_ones_come_in_a_bundle_and_large_ones_by_themselves(
    server: BlobServer, client: BlobClient, cache: BlobCache
) -> None:
    server.add(*SMALL, BIG)
    client.fetch(sizes(*SMALL, BIG))
    assert held(cache, *SMALL, BIG)
    assert [asked.split(":")[0] for asked in server.asked] == [
        "POST /api/v1/blobs/fetch",
        "GET /api/v1/blobs/sha256",
    ]
    client.fetch(sizes(*SMALL, BIG))
    assert len(server.asked) == 2, "what is here is not asked for"


def test_only_what_is_missing_goes(server: BlobServer, client: BlobClient, cache: BlobCache) -> None:
    keep(cache, *SMALL, BIG)
    server.add(*SMALL[:4])
    client.put(sizes(*SMALL, BIG))
    assert server.blobs.keys() == sizes(*SMALL, BIG).keys()
    assert server.received < len(SMALL[4]) + len(BIG) + 10_000
    before = server.received
    client.put(sizes(*SMALL, BIG))
    assert server.received - before < 1000
    assert server.asked[-1] == "POST /api/v1/blobs/missing"


def test_many_small_ones_are_few_requests(server: BlobServer, client: BlobClient, cache: BlobCache) -> None:
    contents = [NOISE.randbytes(20_480) for _ in range(1000)]
    server.add(*contents)
    client.fetch(sizes(*contents))
    assert server.count("POST") == 3
    server.blobs.clear()
    client.put(sizes(*contents))
    assert server.blobs.keys() == sizes(*contents).keys()
    assert server.count("POST") == 3 + 1 + 3


@pytest.mark.parametrize(
    "trouble",
    [
        {"cut": 0},
        {"cut": 100_000},
        {"status": 503, "times": 2},
        {"status": 429, "headers": {"Retry-After": "0"}},
        {"status": 409, "problem": {"code": "upload-busy"}},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "at", ["/blobs/fetch", "GET /api/v1/blobs/", "/blobs/missing", "/blobs/bundle", "PUT"]
)
def test_what_may_pass_is_tried_again(
    server: BlobServer, client: BlobClient, cache: BlobCache, tmp_path: Path, at: str, trouble: dict[str, int]
) -> None:
    other = BlobCache(tmp_path / "other", 1 << 30)
    keep(other, *SMALL, BIG)
    server.trouble(at, **trouble)
    with connected(server, other, tmp_path) as giving:
        giving.put(sizes(*SMALL, BIG))
    client.fetch(sizes(*SMALL, BIG))
    assert held(cache, *SMALL, BIG)


def test_a_download_that_breaks_off_goes_on_where_it_was(
    server: BlobServer, client: BlobClient, cache: BlobCache, tmp_path: Path
) -> None:
    server.add(BIG)
    for at in (1, 4_000_000, 2_000_000):
        server.trouble("GET", cut=at)
    client.fetch(sizes(BIG))
    assert held(cache, BIG)
    assert server.sent == len(BIG)
    assert list((tmp_path / "parts").iterdir()) == []


def test_an_upload_that_breaks_off_goes_on_where_it_was(
    server: BlobServer, client: BlobClient, cache: BlobCache
) -> None:
    keep(cache, HUGE)
    for at in (1, 4_000_000, 2_000_000):
        server.trouble("PUT", cut=at)
    client.put(sizes(HUGE))
    assert server.blobs == dict(zip(sizes(HUGE), [HUGE], strict=True))
    assert server.received - 200 < len(HUGE) < server.received


def test_a_server_that_dies_and_comes_back_is_waited_for(
    server: BlobServer, client: BlobClient, cache: BlobCache
) -> None:
    """Both ways, and in the middle of what it does."""
    server.add(BIG)
    keep(cache, HUGE)
    for act in (lambda: client.fetch(sizes(BIG)), lambda: client.put(sizes(HUGE))):
        hang = threading.Event()
        met = server.trouble("/blobs/sha256:", wait=hang)
        worker = threading.Thread(target=act)
        worker.start()
        assert met.met.wait(PATIENCE)
        server.stop()
        hang.set()
        server.start()
        worker.join(PATIENCE)
        assert not worker.is_alive()
    assert held(cache, BIG)
    assert server.blobs.keys() == sizes(BIG, HUGE).keys()


def test_another_process_goes_on_with_a_part(server: BlobServer, cache: BlobCache, tmp_path: Path) -> None:
    """Killed in the middle: what had come is there."""
    server.add(BIG)
    (tmp_path / "parts").mkdir()
    part = tmp_path / "parts" / next(iter(sizes(BIG)))
    part.write_bytes(BIG[:5_000_000])
    with connected(server, cache, tmp_path) as client:
        client.fetch(sizes(BIG))
    assert held(cache, BIG)
    assert server.sent == len(BIG) - 5_000_000


@pytest.mark.parametrize("left", [b"wrong" + BIG[5:6_000_000], BIG + b"more", b"x" + BIG[1:]], ids=len)
def test_a_part_that_is_wrong_is_fetched_anew(
    server: BlobServer, cache: BlobCache, tmp_path: Path, left: bytes
) -> None:
    server.add(BIG)
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / next(iter(sizes(BIG)))).write_bytes(left)
    with connected(server, cache, tmp_path) as client:
        client.fetch(sizes(BIG))
    assert held(cache, BIG)


@pytest.mark.parametrize(
    ("trouble", "kind", "words"),
    [
        ({"status": 401}, Refused, "401: trouble"),
        ({"status": 403}, Refused, "403"),
        ({"status": 404}, Refused, "404"),
        ({"status": 413, "problem": {"code": "upload-limit"}}, Refused, "413"),
        ({"status": 302, "headers": {"Location": "http://example.org/"}}, Refused, "302"),
    ],
    ids=str,
)
@pytest.mark.parametrize("at", ["/blobs/missing", "/blobs/bundle", "PUT"])
def test_what_will_not_pass_is_final(
    server: BlobServer,
    client: BlobClient,
    cache: BlobCache,
    at: str,
    trouble: dict[str, int],
    kind: type,
    words: str,
) -> None:
    keep(cache, SMALL[2], BIG)
    server.trouble(at, times=99, **trouble)
    with pytest.raises(kind, match=words) as refused:
        client.put(sizes(SMALL[2], BIG))
    assert server.count("") <= 4
    assert refused.value.hint == "do this"


def test_another_content_is_not_taken(server: BlobServer, client: BlobClient, cache: BlobCache) -> None:
    for content in (SMALL[3], BIG):
        digest = next(iter(sizes(content)))
        server.blobs[digest] = content[:-1] + b"!"
        with pytest.raises(BadTree, match="is not what its name says"):
            client.fetch(sizes(content))
        assert cache.missing([digest]) == {digest}
    with pytest.raises(Refused, match="404"):
        client.fetch(sizes(b"nobody has it"))


def test_nobody_there_is_told_after_a_while(cache: BlobCache, tmp_path: Path) -> None:
    server = BlobServer()
    server.stop()
    told = pytest.raises(Unavailable, match=r"could not be used for \d s: ConnectionRefusedError")
    with connected(server, cache, tmp_path, patience=0.3) as client, told:
        client.fetch(sizes(b"a"))


def test_a_stop_ends_what_is_under_way_and_what_would_begin(
    server: BlobServer, client: BlobClient, cache: BlobCache
) -> None:
    hang = threading.Event()
    met = server.trouble("/blobs/fetch", wait=hang)
    server.add(*SMALL)
    found: list[MusterError] = []

    def fetch() -> None:
        try:
            client.fetch(sizes(*SMALL))
        except MusterError as error:
            found.append(error)

    worker = threading.Thread(target=fetch)
    worker.start()
    assert met.met.wait(PATIENCE)
    client.stop()
    worker.join(PATIENCE)
    hang.set()
    assert [type(error) for error in found] == [Stopped]
    with pytest.raises(Stopped):
        client.fetch(sizes(*SMALL))


def test_a_stop_ends_a_pause(server: BlobServer, client: BlobClient) -> None:
    met = server.trouble("POST", status=503, headers={"Retry-After": "60"})

    def stop() -> None:
        assert met.met.wait(PATIENCE)
        client.stop()

    worker = threading.Thread(target=stop)
    worker.start()
    began = time.monotonic()
    with pytest.raises(Stopped):
        client.fetch(sizes(*SMALL))
    assert time.monotonic() - began < 30
    worker.join()


def test_a_manifest_is_fetched_once(server: BlobServer, client: BlobClient, cache: BlobCache) -> None:
    manifest = Manifest.of({"a": Entry(0o644, 1, "0" * 64)}, ["empty"])
    server.snapshot(manifest)
    assert client.manifest(manifest.digest) == manifest
    assert client.manifest(manifest.digest) == manifest
    assert server.count("GET") == 1
    server.snapshots["1" * 64] = manifest.to_bytes()
    with pytest.raises(BadTree):
        client.manifest("1" * 64)


def test_the_node_knows_better_where_the_api_is(server: BlobServer, cache: BlobCache, tmp_path: Path) -> None:
    server.add(*SMALL)
    order = {"url": "http://127.0.0.1:1", "token": TOKEN}
    with closing(connector(cache, server.url + "/", 5.0, Limits())(order, tmp_path)) as client:
        client.fetch(sizes(*SMALL))
    assert held(cache, *SMALL)
    for url in ("", "ftp://example.org", "http://", "http://a:b"):
        with pytest.raises(InvalidInput):
            connector(cache, "", 5.0, Limits())({"url": url, "token": TOKEN}, tmp_path)


def test_a_server_that_speaks_something_else_is_told(
    server: BlobServer, cache: BlobCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "CONNECT_WITHIN", 2.0)
    order = {"url": server.url.replace("http", "https"), "token": TOKEN}
    told = pytest.raises(Unavailable, match="SSL")
    with closing(connector(cache, "", 0.2, Limits())(order, tmp_path)) as client, told:
        client.fetch(sizes(b"a"))


# the cache


def test_the_oldest_goes_first_and_what_is_held_stays(tmp_path: Path) -> None:
    contents = [bytes([number]) * 1000 for number in range(6)]
    digests = list(sizes(*contents))
    cache = BlobCache(tmp_path / "blobs", 3000)

    def missing(cache: BlobCache) -> list[int]:
        return sorted(map(digests.index, cache.missing(digests)))

    keep(cache, *contents[:3])
    cache.open(digests[0]).close()
    with cache.holding([digests[1]]):
        keep(cache, *contents[3:5])
        assert missing(cache) == [0, 2, 5]
        keep(cache, contents[5])
        assert missing(cache) == [0, 2, 3]
        with cache.holding([digests[0], *digests[4:]]):
            keep(cache, contents[0])
            assert missing(cache) == [2, 3], "what is held may be more than is allowed"
        assert missing(cache) == [2, 3, 4]
    again = BlobCache(tmp_path / "blobs", 2000)
    keep(again, contents[0])
    assert missing(again) == [1, 2, 3, 4]


def test_what_was_left_half_written_goes_and_what_is_not_ours_stays(tmp_path: Path) -> None:
    (tmp_path / "blobs" / "new").mkdir(parents=True)
    (tmp_path / "blobs" / "new" / "0").write_text("half")
    (tmp_path / "blobs" / "ab").mkdir()
    (tmp_path / "blobs" / "ab" / "note").write_text("a person's")
    cache = BlobCache(tmp_path / "blobs", 0)
    keep(cache, b"a")
    assert cache.missing(sizes(b"a"))
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["note"]


@pytest.mark.parametrize("content", [b"", b"Abc", b"abcd", b"ab"])
def test_the_cache_takes_nothing_under_a_wrong_name(tmp_path: Path, content: bytes) -> None:
    cache = BlobCache(tmp_path / "blobs", 1000)
    digest = next(iter(sizes(b"abc")))
    with pytest.raises(BadTree):
        cache.add(digest, 3, io.BytesIO(content))
    assert cache.missing([digest])
    with pytest.raises(NotFound):
        cache.open(digest)
    assert list((tmp_path / "blobs" / "new").iterdir()) == []
