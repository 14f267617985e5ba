"""An HTTP server that behaves as its path says: slowly, endlessly, wrongly."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


class OddServer(ThreadingHTTPServer):
    """`asked` counts requests by method and path; `gate` holds those to /held until it is set."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, host: str) -> None:
        super().__init__((host, 0), _Handler)
        self.asked: Counter[str] = Counter()
        self.gate = threading.Event()
        self.closing = threading.Event()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is what the tests are about."""


@contextmanager
def odd_server(host: str = "127.0.0.1") -> Iterator[OddServer]:
    server = OddServer(host)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.gate.set()
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: OddServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Says nothing."""

    def answer(self) -> None:
        parts = urlsplit(self.path)
        self.server.asked[f"{self.command} {parts.path}"] += 1
        first, _, rest = parts.path.strip("/").partition("/")
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        getattr(self, f"answer_{first or 'plain'}")(rest, query)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer

    def give(self, status: int, body: bytes, kind: str = "text/plain", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def answer_slow_charset(self, *_: Any) -> None:
        self.give(200, b"-" + b"b" * 200_000, "text/plain; charset=punycode")

    def raw(self, data: bytes) -> None:
        with suppress(OSError):
            self.wfile.write(data)
            self.wfile.flush()
        self.close_connection = True

    def answer_plain(self, rest: str, query: dict[str, str]) -> None:
        self.give(200, b"hello")

    def answer_status(self, rest: str, query: dict[str, str]) -> None:
        self.give(int(rest), b"as you say")

    def answer_echo(self, rest: str, query: dict[str, str]) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        headers = {name.lower(): value for name, value in self.headers.items()}
        told = {"method": self.command, "path": self.path, "headers": headers, "body": body}
        self.give(200, json.dumps(told).encode(), "application/json")

    def answer_json(self, rest: str, query: dict[str, str]) -> None:
        bodies = {
            "good": b'{"a": [1, 2.5, null]}',
            "bad": b'{"a": ',
            "nan": b'{"a": NaN}',
            "inf": b'{"a": 1e999}',
            "digits": b"1" * 10_000,
            "deep": b"[" * 500 + b"]" * 500,
            "deeper": b"[" * 5000 + b"]" * 5000,
            "surrogate": rb'"\ud800"',
        }
        self.give(200, bodies[rest], "application/problem+json; charset=utf-8")

    def answer_latin(self, rest: str, query: dict[str, str]) -> None:
        self.give(200, "caf\u00e9".encode("latin-1"), f"text/plain; charset={rest}")

    def answer_bytes(self, rest: str, query: dict[str, str]) -> None:
        self.give(200, b"a\0b\xff", "application/octet-stream")

    def answer_to(self, rest: str, query: dict[str, str]) -> None:
        self.give(int(rest), b"", Location=query["url"])

    def answer_round(self, rest: str, query: dict[str, str]) -> None:
        self.give(302, b"", Location=f"/round/{int(rest) - 1}" if int(rest) > 1 else "/plain")

    def answer_huge(self, rest: str, query: dict[str, str]) -> None:
        self.send_response(200)
        self.end_headers()
        with suppress(OSError):
            while not self.server.closing.is_set():
                self.wfile.write(b"x" * 65536)

    def answer_chunked(self, rest: str, query: dict[str, str]) -> None:
        self.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n")

    def answer_broken(self, rest: str, query: dict[str, str]) -> None:
        self.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")

    def answer_short(self, rest: str, query: dict[str, str]) -> None:
        self.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")

    def answer_garbage(self, rest: str, query: dict[str, str]) -> None:
        self.raw(b"220 mail.example ESMTP\r\n")

    def answer_nothing(self, rest: str, query: dict[str, str]) -> None:
        self.close_connection = True

    def answer_longline(self, rest: str, query: dict[str, str]) -> None:
        self.raw(b"HTTP/1.1 200 OK\r\nA: " + b"x" * 200_000 + b"\r\n\r\n")

    def answer_longhead(self, rest: str, query: dict[str, str]) -> None:
        self.raw(b"HTTP/1.1 200 OK\r\n" + (b"A: " + b"x" * 8000 + b"\r\n") * 20 + b"\r\n")

    def answer_manyheads(self, rest: str, query: dict[str, str]) -> None:
        self.raw(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n")

    def answer_twice(self, rest: str, query: dict[str, str]) -> None:
        self.raw(b"HTTP/1.1 200 OK\r\nX-A: 1\r\nx-a: 2\r\nContent-Length: 0\r\n\r\n")

    def answer_drip(self, rest: str, query: dict[str, str]) -> None:
        """A byte at a time, of the head or of the body: each read is quick, and there is no end."""
        with suppress(OSError):
            self.wfile.write(b"HTTP/1.1 200 OK\r\n" + (b"\r\n" if rest == "body" else b"A: "))
            while not self.server.closing.wait(0.05):
                self.wfile.write(b"x")
                self.wfile.flush()

    def answer_held(self, rest: str, query: dict[str, str]) -> None:
        self.server.gate.wait()
        with suppress(OSError):
            self.give(200, b"at last")
