"""A node's client of blobs with the real API behind a socket, by the pass of a job."""

from __future__ import annotations

import io
import random
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from api_world import World
from file_cabinet import job_of, pass_for, sha256, tree, upload
from werkzeug.serving import make_server

from app.errors import MusterError
from app.files.limits import Limits
from app.node.asking import Refused
from app.node.blobcache import BlobCache
from app.node.blobs import LARGE, BlobClient, connector

NOISE = random.Random(5)
FILES = {f"d/{number}": NOISE.randbytes(2000) for number in range(50)} | {
    "large": NOISE.randbytes(LARGE + 1000)
}
MADE = {"made": b"made", "huge": NOISE.randbytes((16 << 20) + 1000)}


@pytest.fixture
def url(world: World) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, world.app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@contextmanager
def node(url: str, cache: BlobCache, parts: Path, headers: dict[str, str]) -> Iterator[BlobClient]:
    token = headers["Authorization"].removeprefix("Pass ")
    with closing(connector(cache, "", 10.0, Limits())({"url": url, "token": token}, parts)) as made:
        yield made


def test_a_node_gets_its_snapshot_and_leaves_what_it_made(world: World, url: str, tmp_path: Path) -> None:
    snapshot = upload(world, FILES)
    execution, job = job_of(world)
    cache = BlobCache(tmp_path / "cache", 1 << 30)
    given = pass_for(world, execution, job, snapshot=snapshot, bytes=100 << 20)
    with node(url, cache, tmp_path, given) as client:
        manifest = client.manifest(snapshot)
        assert manifest == tree(FILES)
        client.fetch({entry.sha256: entry.size for entry in manifest.files.values()})
        for path, content in FILES.items():
            with cache.open(manifest.files[path].sha256) as file:
                assert file.read() == content
        sizes = {sha256(content): len(content) for content in MADE.values()}
        for content in MADE.values():
            cache.add(sha256(content), len(content), io.BytesIO(content))
        client.put(sizes)
        client.put(sizes)
    store = world.control.blobs.open(world.control.settings)
    assert store.has(sizes) == set(sizes)


@pytest.mark.parametrize(
    ("claims", "act", "words"),
    [
        ({"bytes": 1000}, "put", "more"),
        ({"expires_at": 0.0}, "fetch", "401"),
        ({"snapshot": ""}, "fetch", "404"),
        ({"snapshot": ""}, "manifest", "40"),
        ({"node": "other"}, "put", "401"),
    ],
    ids=str,
)
def test_a_pass_is_for_no_more_than_it_says(
    world: World, url: str, tmp_path: Path, claims: dict[str, object], act: str, words: str
) -> None:
    snapshot = upload(world, FILES)
    execution, job = job_of(world)
    cache = BlobCache(tmp_path / "cache", 1 << 30)
    given = pass_for(world, execution, job, **{"snapshot": snapshot, "bytes": 100 << 20, **claims})
    made = MADE["huge"]
    cache.add(sha256(made), len(made), io.BytesIO(made))
    with node(url, cache, tmp_path, given) as client:
        acts = {
            "put": lambda: client.put({sha256(made): len(made)}),
            "fetch": lambda: client.fetch({sha256(FILES["d/1"]): 2000}),
            "manifest": lambda: client.manifest(snapshot),
        }
        with pytest.raises(MusterError, match=words) as refused:
            acts[act]()
        assert isinstance(refused.value, Refused)


def test_an_answer_that_was_read_holds_nothing(world: World, url: str, tmp_path: Path) -> None:
    """Each long answer has one of a few seats while it is on its way."""
    snapshot = upload(world, FILES)
    execution, job = job_of(world)
    cache = BlobCache(tmp_path / "cache", 1 << 30)
    with node(url, cache, tmp_path, pass_for(world, execution, job, snapshot=snapshot)) as client:
        for content in list(FILES.values())[:25]:
            client.fetch({sha256(content): len(content)})
