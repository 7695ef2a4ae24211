"""Exports traces to an OpenTelemetry collector.

Imported only if a collector is configured: the import takes 0.25 s. OpenTelemetry spans are made
after a response has been sent, and a thread of the SDK sends them. A slow, failing or missing
collector delays no request: spans that it does not accept are dropped.
"""

import logging
import os
import socket
import time
from dataclasses import dataclass
from importlib.metadata import version
from threading import Thread

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    Tracer,
    set_span_in_context,
)
from structlog.typing import FilteringBoundLogger

from service.telemetry.logging import LibraryLogHandler
from service.telemetry.spans import Span

_REPEAT_SECONDS = 3600  # interval between two log lines about the same problem
# Tolerance of the offset between the two clocks, in ns. Within it the offset stays the same, so
# that a batch has identical times in the traces of all its requests.
_CLOCK_TOLERANCE = 1_000_000
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "PATCH"))


class TraceExporter:
    """Starts the traces of one process and sends them to the collector."""

    def __init__(self, endpoint: str, ratio: float, log: FilteringBoundLogger) -> None:
        """`endpoint`: the collector's URL for OTLP over HTTP, without /v1/traces. `ratio`: the
        fraction of requests to trace, from 0 to 1, if the caller sends no traceparent header.
        """
        self._library_log = logging.getLogger("opentelemetry")
        self._handler = _RateLimitedHandler(log)
        self._library_log.addHandler(self._handler)
        self._library_log.propagate = False
        resource: dict[str, str | int] = {
            "service.name": "m3h",
            "service.version": version("m3h"),
            "host.name": socket.gethostname(),
            "process.pid": os.getpid(),
        }
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(ratio)),
            resource=Resource.create(resource),
            shutdown_on_exit=False,
        )
        exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces")
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("m3h", version("m3h"))
        self._offset = 0

    def start(self, traceparent: str | None) -> "TracedRequest | None":
        """Starts the trace of a request that has just arrived. None if it is not sampled.

        `traceparent`: a valid header value of version 00. tracestate and baggage are ignored,
        because a caller may put anything into them.
        """
        parent = Context()
        if traceparent is not None:
            _, trace_id, span_id, flags = traceparent.split("-")
            remote = SpanContext(
                int(trace_id, 16),
                int(span_id, 16),
                is_remote=True,
                trace_flags=TraceFlags(int(flags, 16)),
            )
            parent = set_span_in_context(NonRecordingSpan(remote), parent)
        span = Span("HTTP")
        offset = time.time_ns() - _nanoseconds(time.perf_counter())
        if abs(offset - self._offset) > _CLOCK_TOLERANCE:
            self._offset = offset
        started = self._offset + _nanoseconds(span.started)
        server = self._tracer.start_span("HTTP", parent, SpanKind.SERVER, start_time=started)
        if not server.is_recording():
            return None
        return TracedRequest(self._tracer, server, span, self._offset)

    def close(self, seconds: float) -> None:
        """Sends the remaining spans, for at most `seconds`."""
        closing = Thread(target=self._provider.shutdown, name="m3h-flush", daemon=True)
        closing.start()
        closing.join(seconds)
        self._library_log.removeHandler(self._handler)
        self._library_log.propagate = True


@dataclass(frozen=True)
class TracedRequest:
    """A sampled request.

    `server`: its OpenTelemetry span. `span`: the recorded steps. `offset`: the difference between
    Unix time and `perf_counter`, in ns.
    """

    tracer: Tracer
    server: trace.Span
    span: Span
    offset: int

    @property
    def traceparent(self) -> str:
        own = self.server.get_span_context()
        return f"00-{own.trace_id:032x}-{own.span_id:016x}-{own.trace_flags:02x}"

    def end(self, method: str, route: str | None, status: int) -> None:
        """Makes the OpenTelemetry spans, after the response.

        `route`: the path template, or None for an unknown path, which may hold anything.
        `status`: 0 if there was no response.
        """
        ended = time.perf_counter()
        known, name = (method, method) if method in _METHODS else ("_OTHER", "HTTP")
        self.server.update_name(name if route is None else f"{name} {route}")
        self.server.set_attribute("http.request.method", known)
        if route is not None:
            self.server.set_attribute("http.route", route)
        if status:
            self.server.set_attribute("http.response.status_code", status)
        self.server.set_attributes(self.span.attributes)
        if status >= 500 or not status:
            _set_error(self.server, self.span.error or (str(status) if status else "no answer"))
        self._export_children(self.span, self.server, ended)
        self.server.end(self.offset + _nanoseconds(ended))

    def _export_children(self, span: Span, exported: trace.Span, ended: float) -> None:
        """Makes the spans of a span's children.

        A child may still run in the batcher's thread if its request has timed out: it then ends
        with its parent and has the attribute `m3h.unfinished`.
        """
        context = set_span_in_context(exported, Context())
        for child in tuple(span.children):
            if child.started > ended:
                continue
            child_ended = child.ended  # read once: the thread may set it meanwhile
            end = ended if child_ended is None else min(child_ended, ended)
            exported_child = self.tracer.start_span(
                child.name,
                context,
                attributes=dict(child.attributes),
                start_time=self.offset + _nanoseconds(child.started),
            )
            if child_ended is None:
                exported_child.set_attribute("m3h.unfinished", value=True)
            if child.error is not None:
                _set_error(exported_child, child.error)
            self._export_children(child, exported_child, end)
            exported_child.end(self.offset + _nanoseconds(end))


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)


def _set_error(span: trace.Span, error: str) -> None:
    """`error`: a class name or a status. The message of an exception may quote a payload."""
    span.set_attribute("error.type", error)
    span.set_status(StatusCode.ERROR)


class _RateLimitedHandler(LibraryLogHandler):
    """Logs each kind of message at most once an hour, because each export may fail alike."""

    def __init__(self, log: FilteringBoundLogger) -> None:
        super().__init__(log)
        self._silent_until: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        now, kind = time.monotonic(), str(record.msg)
        if now >= self._silent_until.get(kind, 0.0):
            self._silent_until[kind] = now + _REPEAT_SECONDS
            super().emit(record)
