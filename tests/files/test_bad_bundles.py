"""Bundles come from enemies too: each case is refused, whole memory and time of it bounded."""

from __future__ import annotations

import hashlib
import io
import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
import zstandard

from app.files import bundles
from app.files.limits import Limits
from app.files.names import BadTree

CASES = Path(__file__).parents[1] / "cases" / "files"
BUNDLES: list[dict[str, Any]] = yaml.safe_load((CASES / "bundles_bad.yaml").read_text())
END = bytes(40)


def content(frame: dict[str, Any]) -> bytes:
    if "zeros" in frame:
        return bytes(frame["zeros"])
    if "noise" in frame:
        return random.Random(1).randbytes(frame["noise"])
    return str(frame["text"]).encode()


def framed(frames: list[dict[str, Any]]) -> Iterator[bytes]:
    for frame in frames:
        data = content(frame)
        named = str(frame["digest_of"]).encode() if "digest_of" in frame else data
        yield hashlib.sha256(named).digest() + int(frame.get("size", len(data))).to_bytes(8, "big") + data


def stream(case: dict[str, Any]) -> bytes:
    if "raw" in case:
        return bytes.fromhex(case["raw"])
    plain = b"".join(framed(case["frames"])) + (END if case.get("end", True) else b"")
    plain += bytes.fromhex(str(case.get("more", "")).zfill(2) if "more" in case else "")
    plain += b"".join(framed(case.get("more_frames", [])))
    packed = bytearray(zstandard.ZstdCompressor().compress(plain))
    if "turn" in case:
        packed[case["turn"]] ^= 1
    packed = packed[: case.get("keep", len(packed))][: len(packed) - case.get("cut", 0)]
    return bytes(packed) * (2 if case.get("again") else 1) + bytes.fromhex(case.get("behind", ""))


def read_all(data: bytes, limits: Limits, wanted: set[str] | None) -> None:
    for _, blob in bundles.read(io.BytesIO(data), limits, wanted):
        while blob.read(65536):
            pass


@pytest.mark.parametrize("case", BUNDLES, ids=[case["name"] for case in BUNDLES])
def test_no_such_bundle_is_taken(case: dict[str, Any]) -> None:
    wanted = case.get("wanted")
    digests = None if wanted is None else {hashlib.sha256(text.encode()).hexdigest() for text in wanted}
    data = stream(case)
    tracemalloc.start()
    try:
        with pytest.raises(BadTree) as refused:
            read_all(data, Limits(**case.get("limits", {})), digests)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert case["why"] in refused.value.message
    assert peak < 4_000_000


def test_a_blob_that_nobody_reads_is_checked_all_the_same() -> None:
    data = stream({"frames": [{"text": "a", "digest_of": "b"}, {"text": "c"}]})
    with pytest.raises(BadTree, match="is not what its name says"):
        list(bundles.read(io.BytesIO(data)))


def test_a_blob_is_read_in_whatever_pieces_one_likes() -> None:
    data = random.Random(2).randbytes(700_000)
    digest = hashlib.sha256(data).hexdigest()
    out = io.BytesIO()
    bundles.write(out, [(digest, len(data), lambda: io.BytesIO(data))])
    for size in (1000, 262_144, 1 << 30, -1):
        out.seek(0)
        found = []
        for named, blob in bundles.read(out, wanted={digest}):
            assert (named, blob.digest, blob.size) == (digest, digest, len(data))
            while piece := blob.read(size):
                found.append(piece)
        assert b"".join(found) == data
    out.seek(0)
    [(_, blob)] = list(bundles.read(out))
    assert blob.closed, "what a bundle gave is not read after the next was asked for"


@pytest.mark.parametrize("size", [2, 4])
def test_a_file_that_changed_meanwhile_makes_no_bundle(size: int) -> None:
    with pytest.raises(BadTree, match="does not have"):
        bundles.write(io.BytesIO(), [("0" * 64, size, lambda: io.BytesIO(b"abc"))])


def test_what_compresses_well_is_taken_up_to_a_bundle_s_own_size() -> None:
    """People do have files of zeros."""
    data = bytes(bundles.BUNDLE_BYTES - 40)
    digest = hashlib.sha256(data).hexdigest()
    out = io.BytesIO()
    bundles.write(out, [(digest, len(data), lambda: io.BytesIO(data))])
    assert len(out.getvalue()) < 5000
    out.seek(0)
    assert [len(blob.read()) for _, blob in bundles.read(out)] == [len(data)]
