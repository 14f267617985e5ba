"""Spans of executions, tasks and jobs: who stands under whom, and no value in any of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the extra `otel` is not installed")

from desk import Office
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from app.ids import span_of, trace_of, traceparent
from app.logs import scope
from app.services import otel, spans
from app.settings import Settings

CANARY = "canary-5ecret"
WORKFLOW = """
parameters: {word: {type: string, required: true}}
tasks:
  - name: both
    type: parallel
    tasks: [{name: work, action: core.shell, delegate_to: web-1, input: {command: [echo, "{{ parameters.word }}"]}}]
    on_failure: after
  - {name: after, action: core.noop}
output_map: {word: "{{ parameters.word }}"}
output: {properties: {word: {type: integer}}}
"""


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    made = Office(tmp_path, ["web-1"])
    scope.begin()  # what an earlier test left would be the trace of this one
    yield made
    made.store.close()


def tell(office: Office, to: spans.Tell) -> None:
    office.control = replace(office.control, spans=to)
    office.desk = replace(office.desk, control=office.control)


def run(office: Office, status: str) -> str:
    execution = office.submit(WORKFLOW, word=CANARY)
    office.clock.now += 2.5
    office.take_in(office.sent[0], status)
    return execution


def context(span: ReadableSpan) -> tuple[str, str, str]:
    assert span.context is not None
    parent = f"{span.parent.span_id:016x}" if span.parent is not None else ""
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}", parent


def test_a_span_for_each_that_ends_under_what_it_belongs_to(office: Office) -> None:
    kept = InMemorySpanExporter()
    outbox = otel.Outbox(kept, "control")
    tell(office, outbox)
    execution = run(office, "failed")
    outbox.close()
    found: dict[str, Any] = {span.name: span for span in kept.get_finished_spans()}
    assert sorted(found) == ["after", "both", "inline.workflow", "work", "work.0"]
    ids = {name: context(span) for name, span in found.items()}
    assert {trace for trace, _, _ in ids.values()} == {trace_of(execution)}
    assert ids["inline.workflow"][1:] == (span_of(execution), "")
    assert ids["both"][2] == ids["after"][2] == ids["inline.workflow"][1]
    assert ids["work"][2] == ids["both"][1]
    assert ids["work.0"] == (trace_of(execution), span_of(f"{execution}.work.0.1"), ids["work"][1])
    assert traceparent(trace_of(execution), f"{execution}.work.0.1").split("-")[2] == ids["work.0"][1]
    job, whole = found["work.0"], found["inline.workflow"]
    assert (job.attributes["muster.node"], job.attributes["muster.status"]) == ("web-1", "failed")
    assert [found[name].status.is_ok for name in ("work.0", "work", "both", "after")] == [
        False,
        False,
        False,
        True,
    ]
    assert (whole.attributes["error.type"], whole.attributes["muster.status"]) == ("output", "failed")
    assert whole.end_time - whole.start_time == pytest.approx(2.5e9, rel=0.01)
    assert CANARY not in "".join(span.to_json() for span in found.values())


def test_a_collector_hears_it_over_http(office: Office) -> None:
    heard: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        given = Settings(otel_endpoint=f"http://127.0.0.1:{server.server_port}")
        outbox = spans.exporter(given, "control")
        assert isinstance(outbox, otel.Outbox)
        tell(office, outbox)
        execution = run(office, "succeeded")
        outbox.close()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    ((path, body),) = heard
    assert path == "/v1/traces"
    assert execution.encode() in body
    assert bytes.fromhex(span_of(execution)) in body
    assert bytes.fromhex(trace_of(execution)) in body
    assert CANARY.encode() not in body
