"""The spool against a model: whatever is written in whatever pieces, what is kept is head, mark and tail."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runner_bench import decoded

from app.node import spool
from app.transport.messages import Stream


def model(data: bytes, limit: int) -> bytes:
    if len(data) <= limit:
        return data
    tail = limit // 2
    return data[: limit - tail] + spool.cut_mark(len(data) - limit) + (data[-tail:] if tail else b"")


@settings(max_examples=300, deadline=None)
@given(
    pieces=st.lists(st.binary(max_size=40), max_size=30),
    limit=st.integers(min_value=1, max_value=120),
    followed_by=st.integers(min_value=1, max_value=50),
)
def test_what_is_kept(pieces: list[bytes], limit: int, followed_by: int) -> None:
    data = b"".join(pieces)
    with tempfile.TemporaryDirectory() as directory:
        written = spool.Spool(directory, "stdout", limit)
        seen = b""
        with spool.Follower(directory, "stdout") as follower:
            for piece in pieces:
                written.write(memoryview(piece))
                offset, more = follower.read(followed_by)
                assert offset == len(seen)
                seen += more
            stream = written.finish()
            while more := follower.read(followed_by)[1]:
                seen += more
        kept = spool.text(directory, "stdout")
        assert os.listdir(directory) == (["stdout"] if data else [])
    assert kept == seen == model(data, limit)
    assert stream["bytes"] == len(data)
    assert stream["kept"] == min(len(data), limit)
    assert stream["truncated"] == (len(data) > limit)
    assert stream["sha256"] == hashlib.sha256(kept).hexdigest()
    assert decoded(stream) == kept
    assert Stream.from_json(stream).bytes == len(data)


@pytest.mark.parametrize("size", [0, 1, 8191, 8192, 8193, 16383, 16384, 16385, 40_000])
def test_the_excerpts_never_overlap(tmp_path: os.PathLike[str], size: int) -> None:
    data = os.urandom(size)
    written = spool.Spool(str(tmp_path), "stderr", 1 << 20)
    written.write(memoryview(data))
    stream = written.finish()
    if size <= 16384:
        assert decoded(stream) == data
    else:
        assert decoded(stream) == data[:8192] + data[-8192:]
    assert (stream["tail"] == "") == (size <= 8192)


def test_a_follower_may_come_before_the_file_and_may_go_on_later(tmp_path: os.PathLike[str]) -> None:
    directory = str(tmp_path)
    early = spool.Follower(directory, "stdout")
    assert early.read() == (0, b"")
    written = spool.Spool(directory, "stdout", 100)
    written.write(memoryview(b"abcdef"))
    assert early.read(4) == (0, b"abcd")
    later = spool.Follower(directory, "stdout", offset=4)
    assert later.read() == (4, b"ef")
    assert early.read() == (4, b"ef")
    written.finish()
    early.close()
    later.close()


def test_what_a_dead_runner_leaves_is_its_head(tmp_path: os.PathLike[str]) -> None:
    directory = str(tmp_path)
    written = spool.Spool(directory, "stdout", 10)
    written.write(memoryview(b"0123456789abc"))
    stream = spool.abandoned(directory, "stdout")
    assert decoded(stream) == b"01234"
    assert (stream["kept"], stream["truncated"]) == (5, True)
    assert stream["bytes"] >= 10
    assert stream["sha256"] == hashlib.sha256(b"01234").hexdigest()
    nothing = spool.abandoned(directory, "stderr")
    assert (nothing["bytes"], nothing["sha256"]) == (0, spool.EMPTY_SHA256)


@pytest.mark.timeout(10)
def test_what_a_script_puts_in_the_place_of_its_output_is_never_waited_for(tmp_path: Path) -> None:
    """One thread carries the output of all jobs of a node: to wait for a pipe's writer would silence every one."""
    os.mkfifo(tmp_path / "stdout")
    (tmp_path / "stderr").symlink_to("/etc/passwd")
    for stream in spool.STREAMS:
        with (
            spool.Follower(str(tmp_path), stream) as follower,
            pytest.raises(OSError, match=r"regular|symbolic"),
        ):
            follower.read()
        assert spool.abandoned(str(tmp_path), stream)["kept"] == 0


def test_an_empty_stream_is_the_default_of_the_messages() -> None:
    assert Stream().sha256 == spool.EMPTY_SHA256
