"""A server that speaks the API's contract as each test tells it to: the edge of the command line."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from waiting import PATIENCE

Handler = Callable[["Request"], None]

EXECUTIONS = "/api/v1/workflow-executions"
ONE = f"{EXECUTIONS}/01X"
EVENTS = f"{ONE}/events"
GOOD = "ref: a.b\ntasks: [{name: x, action: core.noop}]\n"


class Request(BaseHTTPRequestHandler):
    """One request, and how to answer it."""

    protocol_version = "HTTP/1.1"
    server: Server

    def answer(self, status: int, data: Any = None, headers: dict[str, str] | None = None) -> None:
        body = b"" if data is None else json.dumps(data).encode()
        kind = "application/problem+json" if status >= 400 else "application/json"
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def stream(self, chunks: list[str], *, then_hang: bool = False) -> None:
        """Answers with an event stream; its end is the end of the connection."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for chunk in chunks:
            data = chunk.encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        if then_hang:
            self.server.released.wait(PATIENCE)
        self.close_connection = True

    def hang_up(self) -> None:
        """No answer at all."""
        self.close_connection = True

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length)
        path, _, self.query = self.path.partition("?")
        self.server.seen.append((self.command, path, self.query, dict(self.headers), self.body))
        handler = self.server.routes.get((self.command, path))
        if handler is None:
            self.answer(404, {"title": "Not Found", "detail": f"there is no {path}", "code": "not-found"})
        else:
            handler(self)

    do_GET = do_POST = do_DELETE = do_PUT = do_PATCH = _serve

    def log_message(self, *_: object) -> None:
        """Silence."""


class Server(ThreadingHTTPServer):
    """`routes` maps (method, path) to a handler; `seen` are all requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.routes: dict[tuple[str, str], Handler] = {}
        self.seen: list[tuple[str, str, str, dict[str, str], bytes]] = []
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def says(self, method: str, path: str, status: int, data: Any = None) -> None:
        """The same answer every time."""
        self.routes[method, path] = lambda request: request.answer(status, data)

    def in_turn(self, method: str, path: str, *handlers: Handler) -> None:
        """One handler for each request; the last one stays."""
        left = list(handlers)
        self.routes[method, path] = lambda request: (left.pop(0) if len(left) > 1 else left[0])(request)

    def requests(self, method: str, path: str) -> list[tuple[str, dict[str, str], bytes]]:
        """Query, headers and body of every request to a route."""
        return [
            (query, headers, body)
            for verb, where, query, headers, body in self.seen
            if (verb, where) == (method, path)
        ]


@contextmanager
def speaking() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.released.set()
            server.shutdown()
            thread.join()


def event(kind: str, data: Any, id_: int | None = None) -> str:
    """One server-sent event as text."""
    head = "" if id_ is None else f"id: {id_}\n"
    return f"{head}event: {kind}\ndata: {json.dumps(data)}\n\n"


def started(server: Server, *, status: str = "completed", **more: Any) -> None:
    """An execution 01X that a POST starts and that ends with `status`."""
    server.says("POST", EXECUTIONS, 201, {"id": "01X", "status": "requested"})
    server.says("GET", ONE, 200, {"id": "01X", "status": status, **more})
    row = {"task": "x", "node": "web-1", "status": "succeeded", "exit_code": 0, "duration": 1.5}
    server.says("GET", f"{ONE}/tasks", 200, {"items": [row]})
