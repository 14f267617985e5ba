"""A small server with control's API about files: real HTTP, in this process, that breaks off when it is told to."""

from __future__ import annotations

import hashlib
import io
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from waiting import PATIENCE

from app.files import bundles
from app.files.manifest import Manifest

TOKEN = "aPass"


@dataclass
class Trouble:
    """What happens to the next requests whose method and path hold `at`, so many `times`.

    `status`: it is answered with that. `cut`: the connection ends after so many bytes of the body, whichever way it
    goes. `wait`: it is not answered before the event is set.
    """

    at: str
    status: int = 0
    cut: int = -1
    wait: threading.Event | None = None
    times: int = 1
    headers: dict[str, str] = field(default_factory=dict)
    problem: dict[str, Any] = field(default_factory=dict)
    met: threading.Event = field(default_factory=threading.Event)


class BlobServer:
    """What is stored survives `stop` and `start`, which begins anew on the same port."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.parts: dict[str, bytes] = {}
        self.snapshots: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.troubles: list[Trouble] = []
        self.sent = 0
        self.received = 0
        self._port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def files(self) -> dict[str, str]:
        return {"url": self.url, "token": TOKEN}

    def start(self) -> None:
        self._server = _Server(("127.0.0.1", self._port), type("Bound", (_Handler,), {"store": self}))
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._server.hang_up()

    def add(self, *contents: bytes) -> list[str]:
        digests = [hashlib.sha256(content).hexdigest() for content in contents]
        self.blobs.update(zip(digests, contents, strict=True))
        return digests

    def snapshot(self, manifest: Manifest) -> str:
        self.snapshots[manifest.digest] = manifest.to_bytes()
        return manifest.digest

    def trouble(self, at: str, **how: Any) -> Trouble:
        made = Trouble(at, **how)
        self.troubles.append(made)
        return made

    def meet(self, request: str) -> Trouble | None:
        self.asked.append(request)
        for one in self.troubles:
            if one.at in request and one.times:
                one.times -= 1
                one.met.set()
                return one
        return None

    def count(self, request: str) -> int:
        return sum(1 for asked in self.asked if asked.startswith(request))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(self, *given: Any) -> None:
        self._open: set[Any] = set()
        super().__init__(*given)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, *_: Any) -> None:
        """A client that hangs up is what these tests are about."""

    def hang_up(self) -> None:
        for one in list(self._open):
            super().shutdown_request(one)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store: BlobServer
    cut = -1

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._serve(self._get)

    def do_HEAD(self) -> None:
        self._serve(self._head)

    def do_PUT(self) -> None:
        self._serve(self._put)

    def do_POST(self) -> None:
        self._serve(self._post)

    def _serve(self, answer: Any) -> None:
        met = self.store.meet(f"{self.command} {self.path}")
        self.cut = met.cut if met is not None else -1
        if self.headers["Authorization"] != f"Pass {TOKEN}":
            self._problem(401, "the pass is not valid", {})
        elif met is not None and met.wait is not None:
            met.wait.wait(PATIENCE)
            self.close_connection = True
        elif met is not None and met.status:
            self._problem(met.status, "trouble", met.headers, met.problem)
        else:
            answer()

    def _problem(
        self, status: int, detail: str, headers: dict[str, str], more: dict[str, Any] | None = None
    ) -> None:
        data = json.dumps({"status": status, "detail": detail, "hint": "do this", **(more or {})}).encode()
        self._answer(status, data, {**headers, "Connection": "close"})

    def _answer(self, status: int, data: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            part = data if self.cut < 0 or status >= 400 else data[: self.cut]
            self.wfile.write(part)
            self.store.sent += len(part)
            if len(part) < len(data):
                self.close_connection = True

    def _body(self) -> bytes | None:
        """The body; None where the connection was cut in it, as `self.part` has what came."""
        length = int(self.headers.get("Content-Length", 0))
        self.part = self.rfile.read(length if self.cut < 0 else min(length, self.cut))
        self.store.received += len(self.part)
        if len(self.part) < length:
            self.close_connection = True
            return None
        return self.part

    def _digest(self) -> str:
        return self.path.rpartition(":")[2]

    def _get(self) -> None:
        if "/snapshots/" in self.path:
            data = self.store.snapshots.get(self.path.rpartition("/")[2])
            self._problem(404, "no such snapshot", {}) if data is None else self._answer(200, data)
            return
        data = self.store.blobs.get(self._digest())
        if data is None:
            self._problem(404, "no such blob", {})
        elif "Range" in self.headers:
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            told = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
            self._answer(206, data[start:], told)
        else:
            self._answer(200, data)

    def _head(self) -> None:
        if self._digest() in self.store.blobs:
            self._answer(200)
        else:
            self._answer(404, headers={"Upload-Offset": str(len(self.store.parts.get(self._digest(), b"")))})

    def _put(self) -> None:
        digest = self._digest()
        span, _, total = self.headers["Content-Range"].removeprefix("bytes ").partition("/")
        there = self.store.parts.get(digest, b"")
        if int(span.split("-")[0]) != len(there):
            self._problem(409, "elsewhere", {"Upload-Offset": str(len(there))}, {"code": "wrong-offset"})
            return
        whole = self._body() is not None
        there += self.part
        self.store.parts[digest] = there
        if not whole:
            return
        if len(there) == int(total):
            del self.store.parts[digest]
            if hashlib.sha256(there).hexdigest() != digest:
                self._problem(422, "another content", {}, {"code": "bad-tree"})
                return
            self.store.blobs[digest] = there
        self._answer(201 if digest in self.store.blobs else 202)

    def _post(self) -> None:
        body = self._body()
        if body is None:
            return
        if self.path.endswith("/blobs/bundle"):
            kept = {digest: blob.read() for digest, blob in bundles.read(io.BytesIO(body))}
            self.store.blobs.update(kept)
            self._answer(200, json.dumps({"stored": len(kept)}).encode())
            return
        digests = json.loads(body)["digests"]
        missing = [digest for digest in digests if digest not in self.store.blobs]
        if self.path.endswith("/blobs/missing"):
            self._answer(200, json.dumps({"missing": missing}).encode())
        elif missing:
            self._problem(404, f"no blob {missing[0]}", {})
        else:
            out = io.BytesIO()
            held = self.store.blobs
            bundles.write(
                out, [(one, len(held[one]), lambda one=one: io.BytesIO(held[one])) for one in digests]
            )
            self._answer(200, out.getvalue())
