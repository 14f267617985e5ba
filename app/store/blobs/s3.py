"""Blobs in an S3-compatible store. Imported only where one is named: boto3 is an extra.

Credentials, region and the like are boto3's business: its environment, files and roles. Uploads are whole and checked
on this machine before they are handed on, so that nothing unchecked is ever under a blob's name.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from app.errors import InvalidInput, MusterError, NotFound, Unavailable
from app.files.bundles import Source
from app.store.blobs.local import unknown
from app.store.blobs.spool import Incoming, Spool, readable

AT_ONCE = 16
AT_A_STROKE = 1 << 20
"""Bytes up to which a blob is handed on by one plain request; a larger one by boto3's own means, in parts."""

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_ABSENT = ("404", "NoSuchKey", "NotFound")
_NAME = re.compile(r"[0-9a-f]{64}")


class S3Blobs(Incoming):
    """The store in a bucket, which must be there: `url` is s3://BUCKET/PREFIX, `endpoint` "" for Amazon's own.

    `spool` is a directory of this machine for what comes in.
    """

    def __init__(self, url: str, endpoint: str, spool: Path) -> None:
        parts = urlsplit(url)
        if parts.scheme != "s3" or not _BUCKET.fullmatch(parts.netloc):
            raise InvalidInput(
                f"{url!r} names no bucket", hint="for example s3://muster-files/blobs", code="bad-setting"
            )
        self._bucket = parts.netloc
        self._prefix = parts.path.strip("/") + "/" if parts.path.strip("/") else ""
        self._endpoint = endpoint or None
        self._spool = Spool(spool / "parts", stays=True)
        self._made: Any = None

    @property
    def _client(self) -> Any:
        # Made when it is first used, thus behind a fork. A race makes two, of which one is thrown away.
        if self._made is None:
            options = Config(max_pool_connections=AT_ONCE, retries={"max_attempts": 3, "mode": "standard"})
            session = boto3.session.Session()
            self._made = session.client(
                "s3",
                endpoint_url=self._endpoint,
                region_name=session.region_name or "us-east-1",
                config=options,
            )
        return self._made

    @property
    def place(self) -> str:
        return f"s3://{self._bucket}/{self._prefix}"

    def has(self, digests: Collection[str]) -> set[str]:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            sizes = pool.map(self.size, digests)
            return {digest for digest, size in zip(digests, sizes, strict=True) if size is not None}

    def open(self, digest: str, start: int = 0) -> BinaryIO:
        with _answered(digest):
            more = {"Range": f"bytes={start}-"} if start else {}
            answer = self._client.get_object(Bucket=self._bucket, Key=self._key(digest), **more)
            return cast(BinaryIO, answer["Body"])

    def size(self, digest: str) -> int | None:
        try:
            with _answered(digest):
                answer = self._client.head_object(Bucket=self._bucket, Key=self._key(digest))
                return int(answer["ContentLength"])
        except NotFound:
            return None

    def put_many(self, blobs: Iterator[tuple[str, int, Source]]) -> Iterator[str]:
        """Several are handed on at once; at the end of the generator none is on its way any more."""
        under_way: deque[tuple[str, Future[None]]] = deque()
        trouble: Exception | None = None
        with ThreadPoolExecutor(AT_ONCE) as pool:
            while trouble is None:
                try:
                    digest, size, stream = next(blobs)
                    held = ExitStack()
                    path = held.enter_context(self._spool.whole(digest, size, stream))
                except StopIteration:
                    break
                except (MusterError, OSError) as error:
                    trouble = error
                    break
                under_way.append((digest, pool.submit(self._take_held, held, path, digest)))
                if len(under_way) >= AT_ONCE:
                    yield _done(*under_way.popleft())
            while under_way:
                yield _done(*under_way.popleft())
        if trouble is not None:
            with readable():
                raise trouble

    def sync(self) -> None:
        """S3 has answered by then."""

    def open_many(self, digests: Iterable[str]) -> Iterator[tuple[str, BinaryIO]]:
        """Asked for ahead, several at once: it is the wait for each that takes long."""
        under_way: deque[tuple[str, Future[BinaryIO]]] = deque()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for digest in digests:
                under_way.append((digest, pool.submit(self.open, digest)))
                if len(under_way) >= AT_ONCE:
                    first, opened = under_way.popleft()
                    yield first, opened.result()
            while under_way:
                first, opened = under_way.popleft()
                yield first, opened.result()

    def delete(self, digest: str, before: float) -> None:
        place = {"Bucket": self._bucket, "Key": self._key(digest)}
        try:
            with _answered(digest):
                if self._client.head_object(**place)["LastModified"].timestamp() < before:
                    self._client.delete_object(**place)
        except NotFound:
            return

    def every(self) -> Iterator[str]:
        with _answered(""):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix
            )
            for page in pages:
                for found in page.get("Contents", ()):
                    name = str(found["Key"]).rpartition("/")[2]
                    if found["Key"] == self._key(name) and _NAME.fullmatch(name):
                        yield name

    def _key(self, digest: str) -> str:
        return f"{self._prefix}{digest[:2]}/{digest}"

    def _take_held(self, held: ExitStack, path: str, digest: str) -> None:
        with held:
            self._take(path, digest)

    def _take(self, path: str, digest: str) -> None:
        with _answered(digest):
            if os.stat(path).st_size > AT_A_STROKE:
                self._client.upload_file(path, self._bucket, self._key(digest))
                return
            with open(path, "rb") as file:
                self._client.put_object(Bucket=self._bucket, Key=self._key(digest), Body=file)


def _done(digest: str, handed_on: Future[None]) -> str:
    handed_on.result()
    return digest


@contextmanager
def _answered(digest: str) -> Iterator[None]:
    """What the store says is NotFound or Unavailable; nothing of its words but their code goes outside."""
    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", "?"))
        if code in _ABSENT and digest:
            raise unknown(digest) from None
        raise _away(code) from error
    except (BotoCoreError, boto3.exceptions.Boto3Error) as error:
        raise _away(type(error).__name__) from error


def _away(code: str) -> Unavailable:
    return Unavailable(
        f"the blob store does not work: {code[:64]}",
        hint="check MUSTER_BLOB_STORE, MUSTER_S3_ENDPOINT and the credentials of boto3; the log has more",
        code="blob-store",
    )
