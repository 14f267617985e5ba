"""One contract for blobs in a directory and in S3: whole, checked, resumable, and never under a wrong name."""

from __future__ import annotations

import hashlib
import io
import os
import random
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from app.errors import Conflict, InvalidInput, MusterError, NotFound, Unavailable
from app.files.names import BadTree
from app.settings import Settings
from app.store.blobs import Blobs, open_blobs
from app.store.blobs.local import LocalBlobs

OWNER = "person:ada"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


HELLO = b"hello\n"
NAME = sha256(HELLO)
LARGE = random.Random(1).randbytes(3_000_000)


class Broken(io.RawIOBase):
    """A stream that ends, or fails, in the middle."""

    def __init__(self, content: bytes, *, fails: bool) -> None:
        self._inner = io.BytesIO(content)
        self._fails = fails

    def read(self, size: int = -1) -> bytes:
        found = self._inner.read(size)
        if not found and self._fails:
            raise ConnectionResetError("the other side is gone")
        return found


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    """A server of S3 in this process, with credentials that it takes."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield f"http://{host}:{port}"
    server.stop()


def bucket(url: str, name: str) -> Any:
    client = boto3.client("s3", endpoint_url=url, region_name="us-east-1")
    client.create_bucket(Bucket=name)
    return client


@pytest.fixture(params=["local", "s3"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    if request.param == "local":
        return open_blobs(Settings(data_dir=str(tmp_path)))
    url = request.getfixturevalue("s3_url")
    name = f"muster-{sha256(str(tmp_path).encode())[:12]}"
    bucket(url, name)
    return open_blobs(Settings(data_dir=str(tmp_path), blob_store=f"s3://{name}/files", s3_endpoint=url))


def put(blobs: Blobs, content: bytes) -> str:
    name = sha256(content)
    blobs.put(name, len(content), io.BytesIO(content))
    return name


def read(blobs: Blobs, digest: str, start: int = 0) -> bytes:
    with blobs.open(digest, start) as stream:
        return stream.read()


@pytest.mark.parametrize("content", [b"", HELLO, LARGE], ids=["empty", "small", "large"])
def test_what_was_put_comes_back(blobs: Blobs, content: bytes) -> None:
    name = put(blobs, content)
    assert read(blobs, name) == content
    assert blobs.size(name) == len(content)
    assert blobs.has([name, sha256(b"other")]) == {name}
    assert list(blobs.every()) == [name]
    put(blobs, content)
    assert read(blobs, name) == content


def test_what_is_put_while_it_is_deleted_stays(tmp_path: Path) -> None:
    """The look at how old the file is and its removal are one step."""
    store, other = LocalBlobs(tmp_path / "blobs"), LocalBlobs(tmp_path / "blobs")
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(2) as pool:
            for _ in range(1_000):
                put(store, HELLO)
                os.utime(tmp_path / "blobs" / NAME[:2] / NAME, (1, 1))
                done = [pool.submit(put, store, HELLO), pool.submit(other.delete, NAME, time.time() - 60)]
                for one in done:
                    one.result()
                assert store.size(NAME) == len(HELLO)
    finally:
        sys.setswitchinterval(interval)


def test_many_together(blobs: Blobs) -> None:
    contents = [b"%d" % number * 100 for number in range(20)]
    stream = ((sha256(one), len(one), io.BytesIO(one)) for one in contents)
    assert sorted(blobs.put_many(stream)) == sorted(map(sha256, contents))
    found = []
    for digest, opened in blobs.open_many(map(sha256, contents)):
        with opened:
            found.append((digest, opened.read()))
    assert found == [(sha256(one), one) for one in contents]
    ahead = blobs.open_many([sha256(contents[0]), NAME])
    with pytest.raises(NotFound):
        all(opened.close() is None for _, opened in ahead)


@pytest.mark.parametrize("trouble", ["another content", "the source"])
def test_of_many_those_before_a_wrong_one_are_kept(blobs: Blobs, tmp_path: Path, trouble: str) -> None:
    contents = [b"%d" % number * 100 for number in range(5)]

    def source() -> Iterator[tuple[str, int, io.BytesIO]]:
        for number, one in enumerate(contents):
            if number == 3 and trouble == "the source":
                raise BadTree("it ends too early")
            yield sha256(one), len(one), io.BytesIO(one if number != 3 else b"?" * len(one))

    kept: list[str] = []
    with pytest.raises(BadTree):
        add_all(kept, blobs.put_many(source()))
    assert sorted(kept) == sorted(map(sha256, contents[:3])) == sorted(blobs.every())
    assert not [path for path in tmp_path.rglob("parts/*")]


def add_all(found: list[str], digests: Iterator[str]) -> None:
    """What comes, up to where it ends or fails."""
    for digest in digests:
        found.append(digest)


def test_a_part_of_it(blobs: Blobs) -> None:
    name = put(blobs, LARGE)
    assert read(blobs, name, 2_999_990) == LARGE[-10:]
    with blobs.open(name, 100) as stream:
        assert stream.read(7) == LARGE[100:107]


def test_what_is_not_there(blobs: Blobs) -> None:
    assert (blobs.size(NAME), blobs.has([NAME]), list(blobs.every())) == (None, set(), [])
    with pytest.raises(NotFound) as missing:
        read(blobs, NAME)
    assert missing.value.code == "unknown-blob"
    blobs.delete(NAME, time.time())


def test_a_deleted_one_is_gone(blobs: Blobs) -> None:
    name, other = put(blobs, HELLO), put(blobs, b"stays")
    blobs.delete(name, time.time() + 60)
    assert (blobs.size(name), list(blobs.every())) == (None, [other])
    blobs.delete(other, time.time() - 60)
    assert read(blobs, other) == b"stays"


WRONG: dict[str, tuple[int, bytes]] = {
    "other content": (len(HELLO), b"HELLO\n"),
    "too short": (len(HELLO), HELLO[:-1]),
    "nothing": (len(HELLO), b""),
    "a size that lies": (len(HELLO) - 1, HELLO),
    "a size beyond the end": (len(HELLO) + 1, HELLO),
}


@pytest.mark.parametrize("why", WRONG)
def test_nothing_wrong_is_kept(blobs: Blobs, tmp_path: Path, why: str) -> None:
    size, content = WRONG[why]
    with pytest.raises(BadTree):
        blobs.put(NAME, size, io.BytesIO(content))
    assert (blobs.size(NAME), list(blobs.every())) == (None, [])
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_wrong_one_does_not_replace_a_right_one(blobs: Blobs) -> None:
    put(blobs, HELLO)
    with pytest.raises(BadTree):
        blobs.put(NAME, len(HELLO), io.BytesIO(b"HELLO\n"))
    assert read(blobs, NAME) == HELLO


def test_a_stream_that_fails_leaves_nothing(blobs: Blobs, tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        blobs.put(NAME, len(HELLO), Broken(b"hel", fails=True))  # type: ignore[arg-type]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("fails", [False, True], ids=["ends", "fails"])
def test_an_upload_goes_on_where_it_broke_off(blobs: Blobs, fails: bool) -> None:
    name, total = sha256(LARGE), len(LARGE)
    assert blobs.partial(name, OWNER) == 0
    try:
        whole = blobs.append(name, 0, total, Broken(LARGE[:700_001], fails=fails), OWNER)  # type: ignore[arg-type]
        assert not whole
    except Unavailable:
        assert fails
    assert blobs.partial(name, OWNER) == 700_001
    assert blobs.size(name) is None
    assert not blobs.append(name, 700_001, total, io.BytesIO(LARGE[700_001:2_000_000]), OWNER)
    assert blobs.append(name, 2_000_000, total, io.BytesIO(LARGE[2_000_000:]), OWNER)
    assert read(blobs, name) == LARGE
    assert blobs.partial(name, OWNER) == 0


@pytest.mark.parametrize("offset", [0, 2, 4, 99])
def test_at_the_wrong_place_the_right_one_is_told(blobs: Blobs, offset: int) -> None:
    blobs.append(NAME, 0, len(HELLO), io.BytesIO(HELLO[:3]), OWNER)
    with pytest.raises(Conflict) as wrong:
        blobs.append(NAME, offset, len(HELLO), io.BytesIO(HELLO[3:]), OWNER)
    assert (wrong.value.code, wrong.value.detail["offset"]) == ("wrong-offset", 3)
    assert blobs.partial(NAME, OWNER) == 3


@pytest.mark.parametrize("content", [b"HELLO\n", b"hello\n and more"], ids=["other", "longer"])
def test_a_whole_that_is_another_content_is_forgotten(blobs: Blobs, content: bytes) -> None:
    blobs.append(NAME, 0, len(HELLO), io.BytesIO(content[:3]), OWNER)
    with pytest.raises(BadTree):
        blobs.append(NAME, 3, len(HELLO), io.BytesIO(content[3:]), OWNER)
    assert (blobs.partial(NAME, OWNER), blobs.size(NAME)) == (0, None)
    assert blobs.append(NAME, 0, len(HELLO), io.BytesIO(HELLO), OWNER)


def test_nobody_spoils_the_upload_of_another(blobs: Blobs) -> None:
    blobs.append(NAME, 0, len(HELLO), io.BytesIO(b"abc"), "job:evil")
    assert blobs.partial(NAME, OWNER) == 0
    assert blobs.append(NAME, 0, len(HELLO), io.BytesIO(HELLO), OWNER)
    with pytest.raises(BadTree):
        blobs.append(NAME, 3, len(HELLO), io.BytesIO(HELLO[3:]), "job:evil")
    assert read(blobs, NAME) == HELLO


def test_who_sends_other_bytes_at_the_same_moment_spoils_nothing(tmp_path: Path) -> None:
    """The second has the file open as the first makes a blob of it."""
    store, end = LocalBlobs(tmp_path / "blobs"), time.monotonic() + 0.5
    wrong = []

    def send(content: bytes) -> None:
        while time.monotonic() < end:
            with suppress(Conflict, BadTree):
                store.append(NAME, None, len(HELLO), io.BytesIO(content), OWNER)

    def look() -> None:
        while time.monotonic() < end:
            with suppress(NotFound):
                wrong.extend({read(store, NAME)} - {HELLO})

    with ThreadPoolExecutor(4) as pool:
        for one in [
            pool.submit(send, HELLO),
            *(pool.submit(send, b"spoilt") for _ in range(2)),
            pool.submit(look),
        ]:
            one.result()
    assert wrong == []
    assert read(store, NAME) == HELLO


def test_old_uploads_are_forgotten(blobs: Blobs, tmp_path: Path) -> None:
    blobs.append(NAME, 0, len(HELLO), io.BytesIO(HELLO[:3]), OWNER)
    left = next(tmp_path.rglob("parts")) / "new.0123456789abcdef"
    left.write_bytes(b"of a process that was killed")
    put(blobs, LARGE)
    assert blobs.drop_partials(time.time() - 60) == 0
    for path in left.parent.iterdir():
        os.utime(path, (1, 1))
    assert blobs.drop_partials(time.time() - 60) == 1
    assert (blobs.partial(NAME, OWNER), left.exists()) == (0, False)
    assert list(blobs.every()) == [sha256(LARGE)]


def test_many_at_once(blobs: Blobs) -> None:
    errors: list[Exception] = []
    contents = [bytes([number]) * 50_000 for number in range(8)]

    def work() -> None:
        try:
            for content in contents:
                put(blobs, content)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(blobs.every()) == sorted(map(sha256, contents))


def test_files_are_private(tmp_path: Path) -> None:
    directory = tmp_path / "store"
    blobs = LocalBlobs(directory)
    previous = os.umask(0)
    try:
        put(blobs, HELLO)
        blobs.append(sha256(LARGE), 0, len(LARGE), io.BytesIO(LARGE[:5]), OWNER)
    finally:
        os.umask(previous)
    modes = {path: path.stat().st_mode & 0o777 for path in (directory, *directory.rglob("*"))}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o600}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}


def test_a_store_that_is_away_is_unavailable(s3_url: str, tmp_path: Path) -> None:
    gone = open_blobs(Settings(data_dir=str(tmp_path), blob_store="s3://no-such-bucket", s3_endpoint=s3_url))
    for ask in (lambda: put(gone, HELLO), lambda: list(gone.every())):
        with pytest.raises(Unavailable) as away:
            ask()
        assert away.value.code == "blob-store"
    (tmp_path / "file").write_text("")
    blocked = LocalBlobs(tmp_path / "file")
    for verb in (lambda: put(blocked, HELLO), lambda: read(blocked, NAME)):
        with pytest.raises(MusterError) as away:
            verb()
        assert away.value.code == "blob-store"


@pytest.mark.parametrize(
    "named", ["relative/path", "http://host/bucket", "s3://", "s3:///prefix", "s3://Bad_Name/x"]
)
def test_what_is_no_store_is_said(tmp_path: Path, named: str) -> None:
    with pytest.raises(InvalidInput) as wrong:
        open_blobs(Settings(data_dir=str(tmp_path), blob_store=named))
    assert wrong.value.code == "bad-setting"
