"""One HTTP request from the control side, with redirects: every byte, hop and second of it is bounded.

A name is resolved here, its addresses are checked, and the connection goes to an address that was checked: what the
name means a moment later is of no matter. Proxies of the environment are not used; certificates are checked against
the name.
"""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from app.transport import wires
from app.transport.addresses import Policy
from app.transport.wires import Deadline, Failed

HOPS: Final = 5
"""Redirects that are followed at the most."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PORTS: Final[Mapping[str, int]] = {"http": 80, "https": 443}
_LONGEST_URL = 8192
_KEPT_BY_STRANGERS = frozenset({"accept", "accept-language", "content-type", "user-agent"})
"""Headers that go along when a redirect leads to another server: any other may hold a secret."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for. `final` are statuses that the caller waits for: such a redirect is not followed.

    `confidential`: secrets are in it, so that no redirect takes its body to another server.
    """

    url: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = field(default=None, repr=False)
    final: frozenset[int] = frozenset()
    confidential: bool = False


@dataclass(frozen=True, slots=True)
class Response:
    """What came back: `truncated` says that the body had more bytes than were kept."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    truncated: bool
    url: str


def fetch(request: Request, *, policy: Policy, seconds: float, limit: int) -> Response:
    """Send the request and keep at most `limit` bytes of what comes back.

    Raises Failed: `input` for a URL that cannot be asked, `refused_address`, `connect`, `timeout` (`seconds` over all
    hops), `too_large` (headers), `protocol` and `redirect`.
    """
    deadline = Deadline.within(seconds)
    for _ in range(HOPS + 1):
        response = _ask(request, policy, deadline, limit)
        location = response.headers.get("location")
        if response.status not in _REDIRECTS or response.status in request.final or location is None:
            return response
        request = _redirected(request, response.status, location)
    raise Failed("redirect", f"more than {HOPS} redirects, the last one to {_shown(request.url)}")


def _ask(request: Request, policy: Policy, deadline: Deadline, limit: int) -> Response:
    parts, port = _split(request.url)
    host = parts.hostname or ""
    tls = ssl.create_default_context() if parts.scheme == "https" else None
    kind = http.client.HTTPConnection if tls is None else http.client.HTTPSConnection
    connection = kind(host, port)
    wire = wires.connect(host, port, policy, deadline, tls)
    try:
        connection.sock = wire
        _send(connection, request, parts)
        wire.count_headers()
        answer = connection.getresponse()
        headers = _headers(answer)
        body, truncated = _body(answer, wire, limit)
        return Response(answer.status, headers, body, truncated, request.url)
    except TimeoutError:
        raise Failed("timeout", f"{_shown(request.url)} took too long") from None
    except (http.client.HTTPException, ValueError) as error:
        if isinstance(error, http.client.LineTooLong) or "got more than" in str(error):
            raise Failed("too_large", f"the headers of {_shown(request.url)}: {error}") from None
        message = f"{_shown(request.url)} answers with what is no HTTP: {type(error).__name__} {error}"
        raise Failed("protocol", message[:500]) from None
    except OSError as error:
        raise Failed("connect", f"{_shown(request.url)}: {error}") from None
    finally:
        wire.hang_up()


def _send(connection: http.client.HTTPConnection, request: Request, parts: SplitResult) -> None:
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~")
    query = f"?{quote(parts.query, safe='/%:@!$&()*+,;=~?')}" if parts.query else ""
    connection.putrequest(request.method, path + query, skip_accept_encoding=True)
    given = {name.lower() for name in request.headers}
    plain = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "Muster"}
    for name, value in {**plain, "Connection": "close"}.items():
        if name.lower() not in given:
            connection.putheader(name, value)
    for name, value in request.headers.items():
        connection.putheader(name, value.encode())
    if request.body is not None or request.method in ("POST", "PUT", "PATCH"):
        connection.putheader("Content-Length", str(len(request.body or b"")))
    connection.endheaders(request.body)


def _headers(answer: http.client.HTTPResponse) -> dict[str, str]:
    """By lower-case name; those that came several times are joined."""
    found: dict[str, str] = {}
    for name, value in answer.getheaders():
        key = name.lower()
        found[key] = f"{found[key]}, {value}" if key in found else value
    return found


def _body(answer: http.client.HTTPResponse, wire: wires.Wire, limit: int) -> tuple[bytes, bool]:
    wire.count_body()
    kept = bytearray()
    while len(kept) <= limit:
        piece = answer.read(min(65536, limit + 1 - len(kept)))
        if not piece:
            break
        kept += piece
    if len(kept) <= limit and answer.length:
        raise http.client.IncompleteRead(b"", answer.length)
    return bytes(kept[:limit]), len(kept) > limit


def _split(url: str) -> tuple[SplitResult, int]:
    """The parts of a URL that may be asked, and its port. Raises Failed."""
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError as error:
        raise Failed("input", f"{_shown(url)} is no URL: {error}") from None
    if len(url) > _LONGEST_URL or any(char <= " " or char == "\x7f" for char in url):
        raise Failed("input", f"{_shown(url)}: a URL has no blanks and at most {_LONGEST_URL} characters")
    if parts.scheme not in _PORTS or not parts.hostname:
        raise Failed("input", f"{_shown(url)}: a URL begins with http:// or https:// and names a host")
    if parts.username is not None or parts.password is not None:
        raise Failed("input", "a URL holds no user or password; put them into an Authorization header")
    return parts, port


def _redirected(request: Request, status: int, location: str) -> Request:
    try:
        url = urljoin(request.url, location)
    except ValueError:
        raise Failed("redirect", f"{_shown(request.url)} leads to what is no URL") from None
    before, after = _origin(request.url), _origin(url)
    if before[0] == "https" and after[0] == "http":
        raise Failed("redirect", f"{_shown(request.url)} leads from https to {_shown(url)}")
    follower = replace(request, url=url)
    if status == 303 or (status in (301, 302) and request.method == "POST"):
        headers = {name: value for name, value in request.headers.items() if name.lower() != "content-type"}
        method = "HEAD" if request.method == "HEAD" else "GET"
        follower = replace(follower, method=method, body=None, headers=headers)
    if before != after:
        if follower.confidential and follower.body is not None:
            raise Failed(
                "redirect", f"{_shown(request.url)} leads to another server, and a secret is in the body"
            )
        kept = {name: value for name, value in follower.headers.items() if name.lower() in _KEPT_BY_STRANGERS}
        follower = replace(follower, headers=kept)
    return follower


def _origin(url: str) -> tuple[str, str | None, int]:
    parts, port = _split(url)
    return parts.scheme, parts.hostname, port


def _shown(url: str) -> str:
    """A URL in a message: without its query, which may hold a secret, and without a user."""
    plain = ascii(url.partition("?")[0].partition("#")[0])[1:-1]
    scheme, mark, rest = plain.partition("://")
    return (f"{scheme}{mark}{rest.rpartition('@')[2]}" if mark else plain)[:200]
