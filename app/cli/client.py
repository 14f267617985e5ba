"""The API's HTTP client, over the standard library: requests, problem+json, and open streams."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

from app.cli.failures import ApiProblem, TimedOut
from app.errors import InvalidInput, Unavailable
from app.ids import ulid

T = TypeVar("T")

API = "/api/v1"
ANSWER_LOST = "answer-lost"
"""The code of an Unavailable after the request was sent: whether it was carried out is not known."""
_LONGEST_ANSWER = 256 << 20
_TRIES = 3


@dataclass(frozen=True, slots=True)
class Answer:
    """A response of 2xx: `data` is its JSON, None where it has none."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def data(self) -> Any:
        if not self.body:
            return None
        try:
            return json.loads(self.body)
        except ValueError:
            raise Unavailable(
                "the server's answer is no JSON", hint="is MUSTER_URL the URL of a Muster API?"
            ) from None


@dataclass(slots=True)
class Stream:
    """An open response: lines until the server or the network ends it."""

    sock: socket.socket
    response: http.client.HTTPResponse
    connection: http.client.HTTPConnection

    @property
    def location(self) -> str:
        """The header of that name; empty where there is none."""
        return self.response.getheader("Location") or ""

    def readline(self, limit: int, timeout: float) -> bytes:
        """The next line, at most `limit` bytes; empty at the end. Raises OSError; `timeout` is seconds."""
        self.sock.settimeout(timeout)
        try:
            return self.response.readline(limit)
        except http.client.HTTPException as error:
            raise ConnectionError(f"the answer broke off: {error!r}") from None

    def close(self) -> None:
        self.response.close()
        self.connection.close()


@dataclass(frozen=True, slots=True)
class Client:
    """Talks to one server. `timeout` is seconds for each answer."""

    url: str
    token: str = field(default="", repr=False)
    timeout: float = 30.0

    def get(self, path: str, /, **query: Any) -> dict[str, Any]:
        """The JSON object at `path`. Query values that are None are left out."""
        found = self.call("GET", path, query=query).data
        if not isinstance(found, dict):
            raise _unexpected(self.url)
        return found

    def items(self, path: str, **query: Any) -> list[dict[str, Any]]:
        """The list at `path`, bare or as `items` of an object."""
        found = self.call("GET", path, query=query).data
        items = found.get("items") if isinstance(found, dict) else found
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise _unexpected(self.url)
        return items

    def post(self, path: str, body: Any = None, **query: Any) -> Any:
        """The JSON answer to a JSON body."""
        return self.call("POST", path, body=body if body is not None else {}, query=query).data

    def post_once(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Posts what must not happen twice: one key over all tries, so a lost answer never starts a second one."""
        headers = {"Idempotency-Key": ulid()}
        found: Mapping[str, Any] = _tried(lambda: self.call("POST", path, body=body, headers=headers)).data
        return found

    def open_once(self, path: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> Stream:
        """The same, answered with a stream."""
        keyed = {**headers, "Idempotency-Key": ulid()}
        return _tried(lambda: self.open(path, keyed, {}, body=body))

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request; a body that is `bytes` goes as it is, anything else as JSON.

        Raises ApiProblem for an answer that is no 2xx, Unavailable where nobody answers, TimedOut.
        """
        connection = self._connection(self.timeout)
        sent = False
        try:
            connection.connect()
            sent = True
            # Who refuses a long body may answer, and hang up, before it has read all of it.
            with suppress(BrokenPipeError, ConnectionResetError):
                self._send(connection, method, _with_query(path, query), body, dict(headers or {}))
            response = connection.getresponse()
            content = response.read(_LONGEST_ANSWER)
        except TimeoutError:
            raise TimedOut(
                f"{self.url} did not answer within {self.timeout:g} s", hint="`muster doctor`"
            ) from None
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error, ANSWER_LOST if sent else "unreachable") from None
        finally:
            connection.close()
        named = {name.lower(): value for name, value in response.getheaders()}
        if not 200 <= response.status < 300:
            raise _problem(response.status, content, named)
        return Answer(response.status, named, content)

    def open(
        self, path: str, headers: Mapping[str, str], query: Mapping[str, Any], *, body: Any = None
    ) -> Stream:
        """An open GET, or a POST where there is a body. Raises as `call` does."""
        connection = self._connection(self.timeout)
        sent = False
        try:
            connection.connect()
            sock: socket.socket = connection.sock
            sent = body is not None
            method = "GET" if body is None else "POST"
            self._send(connection, method, _with_query(path, query), body, dict(headers))
            response = connection.getresponse()
            if response.status != 200:
                raise _problem(response.status, response.read(1 << 20))
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise self._unreachable(error, ANSWER_LOST if sent else "unreachable") from None
        except ApiProblem:
            connection.close()
            raise
        return Stream(sock, response, connection)

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        try:
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if parts.scheme not in ("http", "https") or not host:
            raise InvalidInput(
                f"{self.url!r} is not the URL of a server", hint="for example http://127.0.0.1:8088"
            )
        if parts.scheme == "https":
            return http.client.HTTPSConnection(
                host, port, timeout=timeout, context=ssl.create_default_context()
            )
        return http.client.HTTPConnection(host, port, timeout=timeout)

    def _send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: Any,
        headers: dict[str, str],
    ) -> None:
        headers.setdefault("Accept", "application/json, application/problem+json")
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        if body is not None and not isinstance(body, bytes):
            headers["Content-Type"] = "application/json"
            body = json.dumps(body).encode()
        prefix = urlsplit(self.url).path.rstrip("/")
        try:
            connection.request(method, prefix + path, body, headers)
        except (ValueError, UnicodeError):
            raise InvalidInput(
                "the token or a name has characters that HTTP cannot carry", hint="check MUSTER_TOKEN"
            ) from None

    def _unreachable(self, error: Exception, code: str) -> Unavailable:
        return Unavailable(
            f"{self.url} cannot be reached: {getattr(error, 'strerror', None) or error}",
            hint="start a fleet with `muster up`, or set MUSTER_URL to where the API runs",
            code=code,
        )


def _tried(ask: Callable[[], T]) -> T:
    """What `ask` gives, asked again where the answer was lost: whether it happened is not known then."""
    for _ in range(_TRIES - 1):
        try:
            return ask()
        except Unavailable as error:
            if error.code != ANSWER_LOST:
                raise
    return ask()


def _unexpected(url: str) -> Unavailable:
    return Unavailable(
        f"{url} did not answer as a Muster API of this version",
        hint="is MUSTER_URL right? compare `muster --version`",
    )


def api(*parts: str) -> str:
    """The path of a resource under /api/v1; each part is one step, whatever characters it has."""
    return API + "".join("/" + _quoted(part) for part in parts)


def _quoted(part: str) -> str:
    # `.` and `..` would be taken as steps of the path by whatever stands in between.
    return urlencode({"": part})[1:].replace("+", "%20") if part not in (".", "..", "") else "%00"


def _with_query(path: str, query: Mapping[str, Any] | None) -> str:
    given = {name: value for name, value in (query or {}).items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path


def _problem(status: int, content: bytes, headers: Mapping[str, str] | None = None) -> ApiProblem:
    try:
        data = json.loads(content)
    except ValueError:
        data = None
    problem = data if isinstance(data, dict) else {}
    # What to send in which header is no way out for who types commands.
    if not problem.get("hint") or "Authorization" in str(problem["hint"]):
        problem["hint"] = {
            401: "set MUSTER_TOKEN to a valid token: `muster up` writes one to client.env, administrators make others",
            403: "ask an administrator for a role that may do this",
        }.get(status, "")
    return ApiProblem(status, problem, headers)
