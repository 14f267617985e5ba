"""A node's side of the blob API: what it lacks of a snapshot comes, and what it has changed goes.

Small files travel in bundles, large ones by themselves, in parts: whatever breaks off goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

from app.errors import InvalidInput, NotFound
from app.files import bundles, documents
from app.files.limits import Limits
from app.files.manifest import Manifest
from app.files.names import BadTree
from app.node.asking import Answer, Asking, Passing, Piece, Refused, Request
from app.node.blobcache import BlobCache

LARGE: Final = 8 << 20
"""Bytes above which a file travels by itself; as many as a bundle holds at the most."""
PART: Final = 16 << 20
"""Bytes of a large file that one request takes along."""

_AT_ONCE: Final = 2000
"""Digests that one request names."""
_PIECE: Final = 1 << 18
_JSON: Final = {"Content-Type": "application/json"}
_PARTIAL: Final = re.compile(r"bytes (\d+)-\d+/\d+")


class BlobClient:
    """Fetches into the cache and puts out of it, on behalf of one job.

    `parts` is a directory of the job's own, on the cache's file system, where unfinished files wait to go on. Every
    method raises `asking.Refused`, Unavailable once nothing gets any further, and `asking.Stopped` after `stop`.
    """

    def __init__(self, api: Asking, cache: BlobCache, parts: Path, limits: Limits) -> None:
        self._api = api
        self._cache = cache
        self._parts = parts
        self._limits = limits

    def stop(self) -> None:
        """Ends what is under way. May be called from any thread."""
        self._api.stop()

    def close(self) -> None:
        self._api.close()

    def manifest(self, digest: str) -> Manifest:
        """The snapshot of this name: out of the cache, or else from the API. Raises BadTree for another one."""
        data = self._cached(digest)
        if documents.digest_of(data) != digest:
            data = self._api.ask(Request("GET", f"/snapshots/{digest}"), self._document)
            self._cache.add(digest, len(data), io.BytesIO(data))
        return Manifest.read(data, self._limits)

    def _cached(self, digest: str) -> bytes:
        """What the cache has of a document, or nothing."""
        try:
            with self._cache.open(digest) as file:
                return file.read(self._limits.document_bytes)
        except NotFound:
            return b""

    def _document(self, answer: Answer) -> bytes:
        most = self._limits.document_bytes
        found = bytearray()
        while piece := answer.read(_PIECE):
            found += piece
            if len(found) > most:
                raise BadTree(f"the snapshot's manifest has more than {most} bytes")
        return bytes(found)

    # coming

    def fetch(self, sizes: Mapping[str, int]) -> None:
        """Makes sure that the cache has these blobs, of which the sizes are told. Raises BadTree for another content.

        Hold them meanwhile (`BlobCache.holding`).
        """
        wanted = {digest: sizes[digest] for digest in self._cache.missing(sizes)}
        for group in _groups({digest: size for digest, size in wanted.items() if size <= LARGE}):
            self._twice(partial(self._fetch_bundle, group))
        for digest, size in wanted.items():
            if size > LARGE:
                self._twice(partial(self._fetch_part, digest, size))

    def _twice(self, act: Callable[[], None]) -> None:
        """Does it, and once more where what came was wrong.

        A bundle that broke off looks like this where nothing tells how long it is; so does a file that a power cut
        took a part of.
        """
        try:
            self._api.trying(act)
        except BadTree:
            self._api.trying(act)

    def _fetch_bundle(self, group: Mapping[str, int]) -> None:
        wanted = self._cache.missing(group)
        if not wanted:
            return
        limits = Limits(files=len(wanted), bytes=sum(group[digest] for digest in wanted))
        request = _asking_for("/blobs/fetch", sorted(wanted))
        self._api.once(request, lambda answer: self._take(answer, group, wanted, limits))
        if lacking := self._cache.missing(wanted):
            raise Refused(200, f"the API's bundle lacks {len(lacking)} blobs, {min(lacking)} among them")

    def _take(
        self, answer: Answer, group: Mapping[str, int], wanted: Collection[str], limits: Limits
    ) -> None:
        for digest, blob in bundles.read(answer, limits, wanted):
            self._cache.add(digest, group[digest], blob)
            self._api.moved()

    def _fetch_part(self, digest: str, size: int) -> None:
        """One try to get the rest of a large blob."""
        path = self._parts / digest
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(path, flags, 0o600), "r+b", buffering=0) as file:
            offset = file.seek(0, os.SEEK_END)
            if offset < size:
                headers = {"Range": f"bytes={offset}-"} if offset else {}
                request = Request("GET", f"/blobs/sha256:{digest}", headers, fine=frozenset({200, 206}))
                self._api.once(request, lambda answer: self._append(answer, file, size))
            if file.tell() < size:
                raise Passing(f"the blob {digest} ended at byte {file.tell()} of {size}")
        with open(path, "rb") as whole:
            if hashlib.file_digest(whole, "sha256").hexdigest() != digest:
                path.unlink()
                raise BadTree(f"the blob {digest} is not what its name says", digest=digest)
        self._cache.adopt(digest, size, path)

    def _append(self, answer: Answer, file: BinaryIO, size: int) -> None:
        began = _PARTIAL.match(answer.header("Content-Range"))
        if answer.status == 200:
            # It does not know of parts: once more from the beginning.
            file.truncate(file.seek(0))
        elif began is None or int(began[1]) != file.tell():
            raise Refused(answer.status, "the API answers with another part of a file than it was asked for")
        while file.tell() < size and (piece := answer.read(min(_PIECE, size - file.tell()))):
            file.write(piece)
            self._api.moved()

    # going

    def put(self, sizes: Mapping[str, int]) -> None:
        """Gives the API what it does not have of these blobs of the cache, of which the sizes are told.

        Hold them meanwhile (`BlobCache.holding`).
        """
        wanted: dict[str, int] = {}
        digests = sorted(sizes)
        for at in range(0, len(digests), _AT_ONCE):
            asked = digests[at : at + _AT_ONCE]
            missing = self._api.ask(_asking_for("/blobs/missing", asked), _missing)
            wanted.update((digest, sizes[digest]) for digest in asked if digest in missing)
        for group in _groups({digest: size for digest, size in wanted.items() if size <= LARGE}):
            self._put_bundle(group)
        for digest, size in wanted.items():
            if size > LARGE:
                self._put_large(digest, size)

    def _put_bundle(self, group: Mapping[str, int]) -> None:
        out = io.BytesIO()
        bundles.write(
            out, ((digest, size, partial(self._cache.open, digest)) for digest, size in group.items())
        )
        headers = {"Content-Type": "application/octet-stream"}
        data = out.getbuffer()
        body = partial(_pieces, data)
        self._api.ask(Request("POST", "/blobs/bundle", headers, body, len(data)), _nothing)

    def _put_large(self, digest: str, size: int) -> None:
        offset = 0
        while offset < size:
            offset = self._api.trying(partial(self._put_part, digest, size, offset))

    def _put_part(self, digest: str, size: int, offset: int) -> int:
        """One try to send a part; where the next one begins. The API knows better than `offset` what it has."""
        path = f"/blobs/sha256:{digest}"
        there = self._api.once(Request("HEAD", path, fine=frozenset({200, 404})), partial(_offset, size))
        if there > offset:
            self._api.moved()
        if there >= size:
            return size
        length = min(PART, size - there)
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Range": f"bytes {there}-{there + length - 1}/{size}",
        }
        body = partial(self._file_pieces, digest, there, length)
        try:
            self._api.once(Request("PUT", path, headers, body, length), _nothing)
        except Refused as refused:
            if refused.code != "wrong-offset":
                raise
            raise Passing(refused.message) from None
        self._api.moved()
        return there + length

    def _file_pieces(self, digest: str, start: int, length: int) -> Iterator[Piece]:
        with self._cache.open(digest) as file:
            file.seek(start)
            while length and (piece := file.read(min(_PIECE, length))):
                length -= len(piece)
                yield piece


def connector(
    cache: BlobCache, url: str, patience: float, limits: Limits
) -> Callable[[Mapping[str, str], Path], BlobClient]:
    """What makes the client of a job by `Order.files` ({url, token}) and the directory for its unfinished files.

    `url` is this node's own word on where the API is, and wins. Both are the server's, without `/api/v1`.
    """

    def connect(files: Mapping[str, str], parts: Path) -> BlobClient:
        server = url or files.get("url", "")
        if not server:
            raise InvalidInput(
                "neither the order nor this node says where the API is", hint="set MUSTER_URL here"
            )
        api = Asking(f"{server.rstrip('/')}/api/v1", f"Pass {files.get('token', '')}", patience)
        return BlobClient(api, cache, parts, limits)

    return connect


def _groups(sizes: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """The blobs in groups that fit into a bundle each."""
    group: dict[str, int] = {}
    total = 0
    for digest, size in sizes.items():
        if group and (total + size > LARGE or len(group) >= _AT_ONCE):
            yield group
            group, total = {}, 0
        group[digest] = size
        total += size
    if group:
        yield group


def _asking_for(path: str, digests: Collection[str]) -> Request:
    body = json.dumps({"digests": list(digests)}).encode()
    return Request("POST", path, _JSON, lambda: (body,), len(body))


def _missing(answer: Answer) -> set[str]:
    found = answer.json(4 << 20)
    listed = found.get("missing") if isinstance(found, dict) else None
    if not isinstance(listed, list):
        raise Refused(answer.status, "the API does not say which blobs are missing")
    return {str(digest).removeprefix("sha256:") for digest in listed}


def _offset(size: int, answer: Answer) -> int:
    """How much of a blob the API has."""
    if answer.status == 200:
        return size
    said = answer.header("Upload-Offset")
    return min(size, int(said)) if said.isdecimal() else 0


def _nothing(answer: Answer) -> None:
    """Reads the answer to its end: the connection is for the next request."""
    while answer.read(65_536):
        pass


def _pieces(data: memoryview) -> Iterator[Piece]:
    for at in range(0, len(data), _PIECE):
        yield data[at : at + _PIECE]
