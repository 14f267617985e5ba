"""HTTP for both sides: gunicorn as the Procfile starts it, its client, and requests on many connections."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Mapping

from app.cli.client import Client
from app.errors import MusterError
from bench.processes import BIN, ROOT, Broken, Processes, wait_for

HOST = "127.0.0.1"
_OURS = '"app.api:create_app()"'
_LOGGER = " --logger-class app.api.gunicorn_log.Logger"


def serve(
    processes: Processes,
    name: str,
    environment: Mapping[str, str],
    *,
    instead: str = "",
    token: str = "",
    port: int = 0,
) -> Client:
    """Starts the Procfile's `api`, or `instead` of it another application with the same settings; its client. Without
    a `port` it gets one that is free.

    The other one has gunicorn's own logger, which does less.
    """
    line = next(
        line for line in (ROOT / "Procfile").read_text("utf-8").splitlines() if line.startswith("api: ")
    )
    command = line.removeprefix("api: ")
    if instead:
        command = command.replace(_OURS, instead).replace(_LOGGER, "")
    port = port or free_port()
    given = {**environment, "MUSTER_API_BIND": f"{HOST}:{port}", "PATH": f"{BIN}:/usr/bin:/bin"}
    processes.start(name, ["/bin/sh", "-c", f"exec {command}"], given)
    client = Client(f"http://{HOST}:{port}", token)
    wait_for(f"{name} answers", lambda: _answers(client), processes)
    return client


def free_port() -> int:
    """A port that is free for now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _answers(client: Client) -> bool:
    try:
        return client.call("GET", "/healthz").status == 200
    except MusterError:
        return False


def rate(client: Client, path: str, body: bytes, *, connections: int = 8, requests: int = 200) -> float:
    """Requests in a second: each connection posts `body` again as soon as it has its answer.

    Raises Broken for an answer that is no 201.
    """
    host, _, port = client.url.removeprefix("http://").partition(":")
    head = f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {client.token}\r\n"
    request = f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    left, asked = requests, 0
    with selectors.DefaultSelector() as selector:
        began = time.perf_counter()
        for _ in range(min(connections, requests)):
            one = socket.create_connection((host, int(port)), timeout=30)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            selector.register(one, selectors.EVENT_READ, bytearray())
            one.sendall(request)
            asked += 1
        while left:
            for key, _ in selector.select(30):
                sock, got = key.fileobj, key.data
                assert isinstance(sock, socket.socket)
                got += sock.recv(65_536) or _closed()
                if not _is_whole(got):
                    continue
                if not got.startswith(b"HTTP/1.1 201 "):
                    raise Broken(f"{path} was answered with {bytes(got[:500])!r}")
                left -= 1
                got.clear()
                if asked < requests:
                    sock.sendall(request)
                    asked += 1
        took = time.perf_counter() - began
        for key in list(selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
    return requests / took


def _is_whole(answer: bytearray) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    return bool(end) and len(body) >= int(length)


def _closed() -> bytes:
    raise Broken("the server closed a connection before it had answered")
