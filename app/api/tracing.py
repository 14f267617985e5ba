"""What a request is called: its own id, the trace that it belongs to, and the one line of the log about it."""

from __future__ import annotations

import logging
import re
import time

from flask import Flask, Response, g, request

from app.ids import trace_in, ulid
from app.logs import scope

log = logging.getLogger(__name__)

HEADER = "X-Request-ID"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def register(app: Flask) -> None:
    """Goes before the gate, so that refusals have an id as well."""
    app.before_request(_begin)
    app.after_request(_end)


def _begin() -> None:
    given = request.headers.get(HEADER, "")
    g.request_id = given if _REQUEST_ID.fullmatch(given) else ulid()
    g.began = time.monotonic()
    trace_id, span = trace_in(request.headers.get("traceparent", ""))
    scope.begin(request_id=g.request_id, trace_id=trace_id, parent_span=span)


def _end(response: Response) -> Response:
    response.headers[HEADER] = g.request_id
    # Reads that went well are many (who follows, who scrapes) and change nothing.
    quiet = request.method in ("GET", "HEAD", "OPTIONS") and response.status_code < 400
    person = g.get("person")
    facts = scope.facts(
        method=request.method if request.url_rule else "",
        route=request.url_rule.rule if request.url_rule else "",
        status=response.status_code,
        person=person.login if person else "",
        seconds=round(time.monotonic() - g.began, 4),
    )
    log.log(logging.DEBUG if quiet else logging.INFO, "request", extra=facts)
    return response
