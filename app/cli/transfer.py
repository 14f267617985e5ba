"""Files to the server and back: only what is missing travels, small ones together, large ones in parts.

What breaks off goes on where it was: a bundle that was lost is asked for again, an upload of one file tells how far
it came. All of it may be repeated without harm.
"""

from __future__ import annotations

import io
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from app.cli.client import ANSWER_LOST, Answer, Client, api
from app.cli.failures import ApiProblem
from app.cli.progress import Progress
from app.errors import InvalidInput, Unavailable
from app.files import bundles
from app.files.limits import Limits
from app.files.manifest import Manifest
from app.files.names import BadTree, Globs
from app.files.places import reading
from app.files.tree import scan

T = TypeVar("T")
Place = Mapping[str, str]
"""Where files are had from: `snapshot` and `execution`, for people whose role is bounded."""

TOGETHER = 8 << 20
"""Bytes of small files in one bundle; a file of more travels alone, in parts of so many."""

MOST_TOGETHER = 10_000
"""Files in one bundle."""

IN_MEMORY = 64 << 20
"""Bytes of fetched files that are not written to disk before they come to their place."""

UNBOUNDED = Limits(files=1 << 40, bytes=1 << 60)
"""What is too much is the server's to say: it knows its settings."""

_TRIES = 5
_WAIT = 0.2
"""Seconds before the second try; doubled each time."""
_LATER = (429, 502, 503)
_OCTETS = {"Content-Type": "application/octet-stream"}


def upload(client: Client, directory: str, globs: Globs) -> tuple[Manifest, list[str]]:
    """Bring a directory's files to the server as a snapshot; what it holds, and the paths of links and the like, which
    it cannot hold.

    Raises InvalidInput for a directory that cannot be read or holds what cannot travel, and what the server says.
    """
    found, left_out = _scanned(directory, globs)
    answer = _again(lambda: _post(client, found)).data
    missing, paths = set(answer["missing"]), {entry.sha256: path for path, entry in found.files.items()}
    wanted = {digest: found.files[paths[digest]].size for digest in paths if digest in missing}
    with Progress("uploading", sum(wanted.values())) as progress, reading(directory) as opened:

        def file_of(digest: str) -> BinaryIO:
            return os.fdopen(opened(paths[digest]), "rb")

        for some in _together(wanted):
            try:
                _put(client, some, file_of, progress)
            except (ApiProblem, OSError, BadTree) as error:
                raise _changed(error, [paths[digest] for digest in some]) from None
    return found, left_out


def _scanned(directory: str, globs: Globs) -> tuple[Manifest, list[str]]:
    left_out: list[str] = []
    try:
        return scan(directory, globs, UNBOUNDED, left_out=left_out), left_out
    except OSError as error:
        raise InvalidInput(
            f"{error.filename or directory}: {error.strerror}", hint="give a directory that can be read"
        ) from None


def _post(client: Client, found: Manifest) -> Answer:
    return client.call(
        "POST", api("snapshots"), body=found.to_bytes(), headers={"Content-Type": "application/json"}
    )


def _changed(error: Exception, paths: list[str]) -> Exception:
    """A file that is no longer what it was as the directory was read, named; other errors stay as they are."""
    if isinstance(error, ApiProblem) and error.code != "bad-tree":
        return error
    named = paths[0] if len(paths) == 1 else f"{paths[0]} or one of {len(paths) - 1} more"
    return InvalidInput(
        f"{named} changed while it was uploaded", hint="try again while nothing writes there", code="changed"
    )


def _together(sizes: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """The blobs in groups that make a bundle; a large one alone."""
    some: dict[str, int] = {}
    room = TOGETHER
    for digest, size in sizes.items():
        if size > TOGETHER:
            yield {digest: size}
            continue
        if size > room or len(some) == MOST_TOGETHER:
            yield some
            some, room = {}, TOGETHER
        some[digest] = size
        room -= size
    if some:
        yield some


def _put(
    client: Client, some: Mapping[str, int], file_of: Callable[[str], BinaryIO], progress: Progress
) -> None:
    digest, size = next(iter(some.items()))
    if size > TOGETHER:
        _put_large(client, digest, size, file_of, progress)
        return
    out = io.BytesIO()
    bundles.write(out, [(one, some[one], partial(file_of, one)) for one in some])
    _again(lambda: client.call("POST", api("blobs", "bundle"), body=out.getvalue(), headers=_OCTETS))
    progress.add(sum(some.values()))


def _put_large(
    client: Client, digest: str, size: int, file_of: Callable[[str], BinaryIO], progress: Progress
) -> None:
    """One file in parts. Where an answer was lost, the server tells how far it came."""
    offset = 0
    with file_of(digest) as file:
        while offset < size:
            file.seek(offset)
            body = file.read(min(TOGETHER, size - offset))
            if not body:
                raise BadTree(f"the file has fewer than {size} bytes")
            headers = {**_OCTETS, "Content-Range": f"bytes {offset}-{offset + len(body) - 1}/{size}"}
            came = _again(partial(_put_part, client, digest, body, headers))
            progress.add(max(0, came - offset))
            offset = came


def _put_part(client: Client, digest: str, body: bytes, headers: Mapping[str, str]) -> int:
    try:
        answer = client.call("PUT", _blob(digest), body=body, headers=headers)
    except ApiProblem as error:
        if error.code != "wrong-offset":
            raise
        return int(error.headers["upload-offset"])
    return int(answer.headers["upload-offset"])


def _blob(digest: str) -> str:
    return f"{api('blobs')}/sha256:{digest}"


class Held:
    """Blobs that were fetched, for as long as the block of `with` lasts: in memory, and what is too much on disk."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="muster-")
        self._kept: dict[str, bytes] = {}
        self._room = IN_MEMORY

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        self._directory.cleanup()

    def open(self, digest: str) -> BinaryIO:
        """The bytes of a blob. Whoever reads them checks that they are what their name says."""
        kept = self._kept.get(digest)
        return self.path(digest).open("rb") if kept is None else io.BytesIO(kept)

    def put(self, digest: str, content: bytes) -> None:
        if len(content) <= self._room:
            self._room -= len(content)
            self._kept[digest] = content
        else:
            self.path(digest).write_bytes(content)

    def path(self, digest: str) -> Path:
        """Where a large one is written to."""
        return Path(self._directory.name) / digest


def fetch(client: Client, sizes: Mapping[str, int], place: Place, held: Held) -> None:
    """Bring blobs from the server. Raises what the server says."""
    with Progress("downloading", sum(sizes.values())) as progress:
        for some in _together(sizes):
            digest, size = next(iter(some.items()))
            if size > TOGETHER:
                with held.path(digest).open("wb") as file:
                    for piece in pieces(client, _blob(digest), size, place):
                        file.write(piece)
                        progress.add(len(piece))
            else:
                _again(partial(_get, client, some, place, held))
                progress.add(sum(some.values()))


def _get(client: Client, some: Mapping[str, int], place: Place, held: Held) -> None:
    body = {"digests": list(some), **place}
    answer = client.call("POST", api("blobs", "fetch"), body=body)
    for digest, blob in bundles.read(io.BytesIO(answer.body), UNBOUNDED, wanted=some):
        held.put(digest, blob.read())


def pieces(client: Client, path: str, size: int, query: Mapping[str, str]) -> Iterator[bytes]:
    """The bytes of one file at an address of the API, in parts, each asked for again if it is lost."""
    offset = 0
    while offset < size:
        asked = {"Range": f"bytes={offset}-{min(size, offset + TOGETHER) - 1}", "Accept": "*/*"}
        answer = _again(partial(client.call, "GET", path, query=query, headers=asked))
        if not answer.body:
            raise Unavailable("the server's answer ended too early", hint="try again")
        offset += len(answer.body)
        yield answer.body


def sizes_of(found: Iterable[Any]) -> dict[str, int]:
    """The sizes of the blobs of some entries, each once."""
    return {entry.sha256: entry.size for entry in found}


def _again(ask: Callable[[], T]) -> T:
    """What `ask` gives, asked again where the answer was lost on the way, or the server has no room just now."""
    for number in range(_TRIES - 1):
        try:
            return ask()
        except Unavailable as error:
            if error.code != ANSWER_LOST:
                raise
        except ApiProblem as error:
            # Another run of the same person's is at the same file: its part will be there soon.
            if error.status not in _LATER and error.code != "upload-busy":
                raise
        time.sleep(_WAIT * 2**number)
    return ask()
