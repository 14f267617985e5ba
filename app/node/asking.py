"""Requests of a node to control's API: over one connection that is kept, and again for as long as it makes sense.

What may pass (no connection, one that breaks, 429 and 5xx) is tried again after a pause that grows, until nothing has
got any further for a while. Everything else that is no success is final.
"""

from __future__ import annotations

import errno
import http.client
import json
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from urllib.parse import SplitResult, urlsplit

from app.errors import InvalidInput, MusterError, Unavailable

T = TypeVar("T")
Piece = bytes | memoryview

CONNECT_WITHIN: Final = 10.0
"""Seconds that a connection may take to come about: a stop waits for no longer than that."""
ANSWER_WITHIN: Final = 60.0
"""Seconds that the other side may be silent."""

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 10.0
_PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_BUSY: Final = "upload-busy"
_LONGEST_PROBLEM: Final = 65_536
_OF_DISK: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})
"""What no connection says, but the disk that an answer is written to: another try would not change it."""


class Stopped(MusterError):
    """`stop` was called: nothing of it is wanted any more."""

    code = "stopped"


class Refused(MusterError):
    """The API will not do it, however often it is asked. `status` is that of its answer."""

    code = "files-refused"

    def __init__(self, status: int, message: str, hint: str = "", code: str = "") -> None:
        super().__init__(message, hint=hint, code=code)
        self.status = status


class Passing(Exception):
    """A try that failed, of which another one may not. `pause` is what the other side asks for, in seconds."""

    def __init__(self, message: str, pause: float = 0.0) -> None:
        super().__init__(message)
        self.pause = pause


@dataclass(frozen=True, slots=True)
class Request:
    """`body` gives its `length` bytes anew for each try. `fine` are the statuses that are answers."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Callable[[], Iterable[Piece]] | None = None
    length: int = 0
    fine: frozenset[int] = frozenset({200, 201, 202, 204})


class Answer:
    """The status, the headers and the bytes of an answer, which come as they are read."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self._response = response

    def header(self, name: str) -> str:
        return self._response.getheader(name) or ""

    def read(self, size: int) -> bytes:
        """At most so many bytes; none at the end only. Raises OSError where the end is missing."""
        data = self._response.read(size)
        if not data and self._response.length:
            raise ConnectionError(f"the answer lacks {self._response.length} bytes")
        return data

    def json(self, most: int) -> Any:
        """The JSON value of an answer of at most `most` bytes."""
        data = b"".join(iter(lambda: self.read(min(65_536, most + 1)), b""))
        try:
            return json.loads(data[: most + 1])
        except (ValueError, RecursionError):
            raise Refused(self.status, "the API's answer is not JSON") from None


class Asking:
    """Asks the API at `url`, with `authorization` as the header of that name.

    `patience` is for how many seconds nothing may get any further before it is given up. One request at a time; only
    `stop` may be called from another thread.
    """

    def __init__(self, url: str, authorization: str, patience: float) -> None:
        self._parts = _split(url)
        self._authorization = authorization
        self._patience = patience
        self._moved_at = time.monotonic()
        self._connection: http.client.HTTPConnection | None = None
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Ends what is under way: it raises Stopped, now and from now on."""
        with self._lock:
            self._stopped.set()
            sock: socket.socket | None = None if self._connection is None else self._connection.sock
            if sock is not None:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._hang_up()

    def moved(self) -> None:
        """Something has got further: the patience begins anew."""
        self._moved_at = time.monotonic()

    def ask(self, request: Request, read: Callable[[Answer], T]) -> T:
        """What `read` makes of the answer. Raises Refused, Unavailable once the patience is over, and Stopped."""
        return self.trying(lambda: self.once(request, read))

    def trying(self, act: Callable[[], T]) -> T:
        """Does it until it does not raise `Passing`. Raises Unavailable once the patience is over, and Stopped."""
        self.moved()
        pause = _FIRST_PAUSE
        while True:
            before = self._moved_at
            try:
                return act()
            except Passing as failed:
                if self._moved_at > before:
                    pause = _FIRST_PAUSE
                waited = time.monotonic() - self._moved_at
                if waited + pause > self._patience:
                    message = f"{self.shown} could not be used for {waited:.0f} s: {failed}"
                    raise Unavailable(message, code="files-unavailable") from None
                # Not all who wait for the same server at the same moment.
                if self._stopped.wait(max(failed.pause, pause * random.uniform(0.5, 1.0))):
                    raise Stopped("the transfer was ended") from None
                pause = min(_LONGEST_PAUSE, pause * 2)

    @property
    def shown(self) -> str:
        """The server, for messages."""
        return f"{self._parts.scheme}://{self._parts.hostname}{f':{self._parts.port}' if self._parts.port else ''}"

    def once(self, request: Request, read: Callable[[Answer], T]) -> T:
        """One try. Raises Passing, Refused and Stopped; OSError where `read` meets a disk that takes no more."""
        answer: Answer | None = None
        try:
            answer = self._answer(request)
            if answer.status not in request.fine:
                raise _failure(answer)
            found = read(answer)
            if answer.read(1):
                self._hang_up()
            return found
        except ssl.SSLCertVerificationError as error:
            self._hang_up()
            hint = "the system's roots decide: install the certificate of whoever signed it"
            raise Refused(0, f"{self.shown} is not who it says: {error.verify_message}", hint) from None
        except (OSError, http.client.HTTPException) as error:
            self._hang_up()
            if isinstance(error, OSError) and error.errno in _OF_DISK:
                raise
            if self._stopped.is_set():
                raise Stopped("the transfer was ended") from None
            raise Passing(
                f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            ) from None
        except BaseException:
            # Whatever else is left of the answer would be taken for the beginning of the next one.
            self._hang_up()
            raise

    def _answer(self, request: Request) -> Answer:
        connection = self._connected()
        connection.putrequest(
            request.method, self._parts.path.rstrip("/") + request.path, skip_accept_encoding=True
        )
        headers = {"Authorization": self._authorization, "User-Agent": "Muster", **request.headers}
        if request.body is not None:
            headers["Content-Length"] = str(request.length)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        try:
            for piece in request.body() if request.body is not None else ():
                connection.send(piece)
        except (BrokenPipeError, ConnectionResetError):
            # Who does not want a body may say so and hang up: the answer tells more than the broken pipe.
            pass
        return Answer(connection.getresponse())

    def _connected(self) -> http.client.HTTPConnection:
        if self._stopped.is_set():
            raise Stopped("the transfer was ended")
        if self._connection is not None:
            return self._connection
        host, port = self._parts.hostname or "", self._parts.port
        made: http.client.HTTPConnection
        if self._parts.scheme == "https":
            context = ssl.create_default_context()
            made = http.client.HTTPSConnection(host, port, timeout=CONNECT_WITHIN, context=context)
        else:
            made = http.client.HTTPConnection(host, port, timeout=CONNECT_WITHIN)
        made.connect()
        made.sock.settimeout(ANSWER_WITHIN)
        made.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._connection = made
        if self._stopped.is_set():
            raise Stopped("the transfer was ended")
        return made

    def _hang_up(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _failure(answer: Answer) -> Passing | Refused:
    """Why the answer is none, in the words of the API where it has any."""
    found: dict[str, Any] = {}
    with suppress(Refused, OSError, http.client.HTTPException):
        data = answer.json(_LONGEST_PROBLEM)
        found = data if isinstance(data, dict) else {}
    said = str(found.get("detail") or found.get("title") or "no reason given")[:500]
    message = f"the API answers {answer.status}: {said}"
    if answer.status in _PASSING or found.get("code") == _BUSY:
        after = answer.header("Retry-After")
        return Passing(message, min(60.0, float(after)) if after.isdecimal() else 0.0)
    return Refused(answer.status, message, str(found.get("hint", ""))[:500], str(found.get("code", ""))[:64])


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        known = False
    if not known:
        raise InvalidInput(
            f"{url[:200]!r} is not the URL of the API", hint="MUSTER_URL=https://muster.example.org"
        )
    return parts
