"""Bytes of files on their way in and out: never a whole one in memory, and never more of them than there are seats."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from flask import Response, g, request
from werkzeug.exceptions import HTTPException
from werkzeug.http import parse_content_range_header
from werkzeug.wrappers import Response as Plain

from app.api import problems
from app.api.held import take_seat
from app.api.wiring import wiring
from app.errors import InvalidInput, NotFound
from app.services.blobs import Part

OCTETS = "application/octet-stream"
BYTES: dict[str, Any] = {"type": "string", "format": "binary"}
PIECE = 1 << 18
DRAINED = 64 << 20
"""Bytes of a refused body that are read all the same: a server that hangs up on its client's words is not heard."""


@contextmanager
def seated() -> Iterator[None]:
    """A request that reads a long body. Raises Unavailable where there is no seat for it."""
    take_seat()
    try:
        yield
    finally:
        wiring().seats.give_back()


def drain(response: Response) -> Response:
    """For a blueprint whose requests have long bodies: read what a refusal has left of one, so that it arrives.

    Not for strangers: reading takes as long as they like.
    """
    is_known = "person" in g or "bearer" in g
    if is_known and response.status_code >= 400 and request.method in ("PUT", "POST"):
        request.max_content_length = sys.maxsize
        left = DRAINED
        try:
            while left > 0 and (piece := request.stream.read(PIECE)):
                left -= len(piece)
        except (HTTPException, OSError):
            response.headers["Connection"] = "close"
    return response


def outgoing(pieces: Iterator[bytes], mimetype: str = OCTETS) -> Response:
    """An answer of many pieces. Raises Unavailable where there is no seat for it."""
    take_seat()
    # Not passed through directly: nobody would be told then that it is over.
    response = Response(pieces, content_type=mimetype)
    response.call_on_close(wiring().seats.give_back)
    return response


def file_of(opened: Callable[[int], BinaryIO], size: int, digest: str) -> Response:
    """A blob, or the part of it that `Range` names. `opened` gives its bytes from an offset on."""
    tag = f'"{digest}"'
    headers = {"ETag": tag, "Accept-Ranges": "bytes"}
    if digest in request.if_none_match:
        return Response(status=304, headers=headers)
    start, end, status = 0, size, 200
    if request.range is not None and request.range.units == "bytes" and _is_current(digest):
        wanted = request.range.range_for_length(size)
        if wanted is None:
            return _no_range(size)
        (start, end), status = wanted, 206
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    if request.method == "HEAD":
        response = Response(status=status, content_type=OCTETS)
    else:
        response = outgoing(_pieces(opened(start), end - start))
        response.status_code = status
    response.headers.update(headers)
    response.content_length = end - start
    return response


def _is_current(digest: str) -> bool:
    found = request.if_range
    return not (found.etag or found.date) or found.etag == digest


def _no_range(size: int) -> Response:
    response = problems.problem(
        416, "bad-range", f"the file has {size} bytes", hint="ask for one range of them: bytes=FIRST-LAST"
    )
    response.headers["Content-Range"] = f"bytes */{size}"
    return response


def _pieces(stream: BinaryIO, length: int) -> Iterator[bytes]:
    with stream:
        while length > 0 and (piece := stream.read(min(length, PIECE))):
            length -= len(piece)
            yield piece


def part_of() -> Part:
    """Which part of a blob the request puts. Raises InvalidInput where its headers do not tell, or contradict."""
    length, given = request.content_length, request.headers.get("Content-Range")
    if length is None and "Transfer-Encoding" not in request.headers:
        length = 0
    if length is None:
        raise _bad("Content-Length", "say how many bytes come: chunks cannot be counted beforehand")
    if given is None:
        return Part(None, length, length)
    found = parse_content_range_header(given)
    if found is None or found.units != "bytes" or found.length is None or found.start is None:
        raise _bad("Content-Range", "it must be `bytes FIRST-LAST/TOTAL`")
    assert found.stop is not None
    if found.stop - found.start != length:
        raise _bad(
            "Content-Range", f"it names {found.stop - found.start} bytes, Content-Length says {length}"
        )
    if found.stop > found.length:
        raise _bad("Content-Range", f"it ends beyond the total of {found.length} bytes")
    return Part(found.start, length, found.length)


def _bad(header: str, detail: str) -> InvalidInput:
    return InvalidInput(f"{header}: {detail}", code="bad-range", errors=[{"detail": detail}])


def absent(error: NotFound, offset: int) -> Plain:
    """That a blob is not there; an upload of it stands at `offset`."""
    response = problems.of_error(error)
    response.headers["Upload-Offset"] = str(offset)
    return response
