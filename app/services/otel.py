"""Spans on their way out, by OpenTelemetry's SDK. Imported only where an endpoint is set: it is an extra.

The SDK's queue is in memory and its thread sends: no request and no transaction waits, and what does not fit or is not
taken is lost, with a line of the SDK in the log.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Sequence

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from app.services.spans import Span

PATH = "/v1/traces"
_SCOPE = InstrumentationScope("muster")


class Outbox:
    """Callable with spans. Its thread starts with the first of them, thus behind a fork."""

    def __init__(self, exporter: SpanExporter, process: str) -> None:
        self._exporter = exporter
        self._resource = Resource.create({SERVICE_NAME: "muster", "muster.process": process})
        self._lock = threading.Lock()
        self._processor: BatchSpanProcessor | None = None

    def __call__(self, spans: Sequence[Span]) -> None:
        if not spans:
            return
        with self._lock:
            if self._processor is None:
                self._processor = BatchSpanProcessor(self._exporter)
                atexit.register(self.close)
        for span in spans:
            self._processor.on_end(readable(span, self._resource))

    def close(self) -> None:
        """Send what there is. Waits some seconds for it at the most."""
        with self._lock:
            if self._processor is not None:
                self._processor.shutdown()


def over_http(endpoint: str, process: str) -> Outbox:
    """To a collector: its address, or the whole one of its traces."""
    address = endpoint.rstrip("/")
    return Outbox(OTLPSpanExporter(endpoint=address if address.endswith(PATH) else address + PATH), process)


def readable(span: Span, resource: Resource) -> ReadableSpan:
    """As the SDK has it."""
    return ReadableSpan(
        name=span.name,
        context=_context(span.trace, span.id),
        parent=_context(span.trace, span.parent) if span.parent else None,
        resource=resource,
        attributes=dict(span.attributes),
        kind=SpanKind.INTERNAL,
        status=Status(StatusCode.ERROR if span.failed else StatusCode.UNSET),
        start_time=int(span.started * 1e9),
        end_time=int(span.ended * 1e9),
        instrumentation_scope=_SCOPE,
    )


def _context(trace: str, span: str) -> SpanContext:
    return SpanContext(
        int(trace, 16), int(span, 16), is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED)
    )
