"""Where the bytes of files are: a directory of the control side, or an S3-compatible store.

A blob is named by the sha256 of its content, as 64 hexadecimal digits. What is stored is whole and checked; what is
still coming in is kept apart, for each owner alone, so that nobody can spoil what another one uploads.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from app.errors import InvalidInput
from app.files.bundles import Source
from app.settings import Settings
from app.store.blobs.local import LocalBlobs

S3 = "s3://"


class Blobs(Protocol):
    """The store. Digests are taken as they are: whoever takes them from outside checks their form first.

    Every method raises Unavailable where the store does not answer or has no room.
    """

    @property
    def place(self) -> str:
        """Where it is, for people."""

    def has(self, digests: Collection[str]) -> set[str]:
        """Which of them are there."""

    def open(self, digest: str, start: int = 0) -> BinaryIO:
        """The bytes from `start` on; the caller closes it. Raises NotFound."""

    def size(self, digest: str) -> int | None:
        """How many bytes it has; None where it is not there."""

    def put(self, digest: str, size: int, stream: Source) -> None:
        """Keep `size` bytes of `stream`. Raises BadTree where they are another content, and keeps nothing."""

    def put_many(self, blobs: Iterator[tuple[str, int, Source]]) -> Iterator[str]:
        """Keep blobs as they come: digest, size and stream of each, which is good until the next. The digests of those
        that are kept, as they are.

        What is wrong with one, or with where they come from, is raised behind those that came before.
        """

    def sync(self) -> None:
        """Returns once all that was put survives the loss of the machine's power."""

    def open_many(self, digests: Iterable[str]) -> Iterator[tuple[str, BinaryIO]]:
        """The bytes of many, in their order, each to be closed before the next. Raises NotFound."""

    def partial(self, digest: str, owner: str) -> int:
        """How many bytes of an upload that broke off are here."""

    def append(self, digest: str, offset: int | None, total: int, stream: Source, owner: str) -> bool:
        """Go on with an upload of `total` bytes, None: from its start; True when that made it whole.

        What came is kept when `stream` breaks off. Raises Conflict (`wrong-offset`, with the right one as `offset`),
        and BadTree where the whole is another content or too long: then nothing is kept.
        """

    def delete(self, digest: str, before: float) -> None:
        """Forget a blob, if it is there and nobody put it since `before` (Unix seconds)."""

    def every(self) -> Iterator[str]:
        """The digests of all blobs."""

    def drop_partials(self, before: float) -> int:
        """Forget uploads to which nothing was added since `before` (Unix seconds); how many."""


def open_blobs(settings: Settings) -> Blobs:
    """The store that the settings name. Nothing is made or connected yet. Raises InvalidInput for what is no store."""
    named = settings.blob_store
    beside = Path(settings.data_dir) / "blobs"
    if named.startswith(S3):
        return _s3(named, settings.s3_endpoint, beside)
    if named and not named.startswith("/"):
        raise InvalidInput(
            f"MUSTER_BLOB_STORE={named!r} names no store",
            hint="give a directory by its absolute path, or s3://BUCKET/PREFIX; empty: in the data directory",
            code="bad-setting",
        )
    return LocalBlobs(Path(named) if named else beside)


def _s3(url: str, endpoint: str, spool: Path) -> Blobs:
    try:
        found = importlib.import_module("app.store.blobs.s3")
    except ModuleNotFoundError as error:
        raise InvalidInput(
            f"MUSTER_BLOB_STORE={url} needs the package {error.name}",
            hint='install the extra: pip install "muster[s3]"',
            code="bad-setting",
        ) from None
    return cast(Blobs, found.S3Blobs(url, endpoint, spool))
