"""Requests that are held open: streams, and waits for an end. Each has a thread of the server, so each needs a seat."""

from __future__ import annotations

import time
from collections.abc import Iterator

from flask import Request, Response

from app.api.wiring import control, wiring
from app.errors import Unavailable
from app.services import queries

EVENTS = "text/event-stream"

LOOK_EVERY = 1.0
"""Seconds between two looks at the rows where nobody says that the end has come: Redis is away, or was late."""


def wants_stream(request: Request) -> bool:
    """Whether the client would rather have server-sent events than JSON."""
    best = request.accept_mimetypes.best_match(["application/json", EVENTS])
    return request.method != "HEAD" and best == EVENTS


def take_seat() -> None:
    """Raises Unavailable where none is free. Who takes one answers with `stream`, or gives it back."""
    if not wiring().seats.take():
        raise Unavailable(
            "too many are following already",
            hint="try again in a moment, or raise MUSTER_API_THREADS",
            code="busy",
        )


def stream(frames: Iterator[bytes]) -> Response:
    """The answer that stays open; the caller has taken a seat, and the end of the answer gives it back."""
    response = Response(frames, content_type=f"{EVENTS}; charset=utf-8")
    # Also where the client is gone before the first frame: a generator that never began would not notice.
    response.call_on_close(wiring().seats.give_back)
    # For proxies that would hold it back until it is whole.
    response.headers["X-Accel-Buffering"] = "no"
    return response


def until_over(execution: str, seconds: float) -> bool:
    """Wait for the end of an execution, so many seconds at the most; False if it goes on, or no seat is free.

    Redis tells of the end, and the rows are looked at then; no session is held in between.
    """
    deadline = time.monotonic() + min(seconds, control().settings.execute_wait)
    heard = "0"
    if not wiring().seats.take():
        return False
    try:
        while True:
            with control().store.glance() as connection:
                if queries.state(connection, execution).over:
                    return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            heard = wiring().ends.wait(execution, min(left, LOOK_EVERY), heard)
    finally:
        wiring().seats.give_back()
