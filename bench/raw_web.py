"""The peer's application: one route that reads and writes JSON, one that passes a Redis stream on as events.

RAW_BROKER tells where Redis is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import cast

from flask import Flask, Response, jsonify, request

from bench.raw_wire import connect

Found = list[tuple[bytes, list[tuple[bytes, dict[bytes, bytes]]]]]
"""What a read of streams gives: of each its key and entries, each with its id."""

app = Flask("raw")


@app.get("/healthz")
def healthz() -> Response:
    return jsonify(status="ok")


@app.post("/runs")
def run() -> tuple[Response, int]:
    return jsonify(id="x", parameters=request.get_json()["parameters"]), 201


@app.get("/tail/<key>")
def tail(key: str) -> Response:
    return Response(_events(key), mimetype="text/event-stream")


def _events(key: str) -> Iterator[bytes]:
    yield b": hello\n\n"
    last, client = b"0", connect(os.environ["RAW_BROKER"])
    while True:
        found = cast(Found, client.xread({key: last}, block=5000))
        for entry, fields in (one for _, entries in found or () for one in entries):
            if b"end" in fields:
                yield b"event: end\ndata: {}\n\n"
                return
            yield f"event: stdout\ndata: {json.dumps({'text': fields[b'd'].decode()})}\n\n".encode()
            last = entry
