"""Traces for an OpenTelemetry collector. Imported only if there is one: it takes 0.25 s.

Spans are made after an answer has left, and sent by a thread of the SDK. A collector that is slow,
refuses or is gone costs no request anything: what it does not take is dropped.
"""

import logging
import os
import socket
import time
from dataclasses import dataclass
from importlib.metadata import version
from threading import Thread

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    Tracer,
    set_span_in_context,
)
from structlog.typing import FilteringBoundLogger

from service.telemetry.logging import FromLibraries
from service.telemetry.spans import Stage

_SILENT_SECONDS = 3600  # after a trouble was told, until it is told again
# Of the clock, in ns: below, a batch has the very same times in all of its traces.
_STEP = 1_000_000
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "PATCH"))


class Traces:
    """The traces of one process."""

    def __init__(self, endpoint: str, ratio: float, log: FilteringBoundLogger) -> None:
        """`endpoint`: where the collector takes OTLP over HTTP, without /v1/traces. `ratio`: of the
        requests whose caller did not decide, how many are traced.
        """
        self._packages = logging.getLogger("opentelemetry")
        self._told = _Sparing(log)
        self._packages.addHandler(self._told)
        self._packages.propagate = False
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

    def begin(self, traceparent: str | None) -> "Traced | None":
        """A request that has just come; None if it is not to be traced.

        `traceparent`: a valid one of version 00. Nothing else is taken from a caller: tracestate
        and baggage may hold anything.
        """
        parent = Context()
        if traceparent is not None:
            _, trace, span, flags = traceparent.split("-")
            remote = SpanContext(
                int(trace, 16),
                int(span, 16),
                is_remote=True,
                trace_flags=TraceFlags(int(flags, 16)),
            )
            parent = set_span_in_context(NonRecordingSpan(remote), parent)
        stage = Stage("HTTP")
        offset = time.time_ns() - _nanoseconds(time.perf_counter())
        if abs(offset - self._offset) > _STEP:
            self._offset = offset
        began = self._offset + _nanoseconds(stage.began)
        server = self._tracer.start_span("HTTP", parent, SpanKind.SERVER, start_time=began)
        return Traced(self._tracer, server, stage, self._offset) if server.is_recording() else None

    def close(self, seconds: float) -> None:
        """Sends what waits, for so long at most."""
        closing = Thread(target=self._provider.shutdown, name="m3h-flush", daemon=True)
        closing.start()
        closing.join(seconds)
        self._packages.removeHandler(self._told)
        self._packages.propagate = True


@dataclass(frozen=True)
class Traced:
    """A request that is traced. `server`: its span; `offset`: from `perf_counter` to the time since
    1970, in ns.
    """

    tracer: Tracer
    server: Span
    stage: Stage
    offset: int

    @property
    def traceparent(self) -> str:
        own = self.server.get_span_context()
        return f"00-{own.trace_id:032x}-{own.span_id:016x}-{own.trace_flags:02x}"

    def end(self, method: str, route: str | None, status: int) -> None:
        """Once it is answered. `route`: its template, if it has one: a path may hold anything.

        `status`: 0 if there was no answer.
        """
        ended = time.perf_counter()
        known, name = (method, method) if method in _METHODS else ("_OTHER", "HTTP")
        self.server.update_name(name if route is None else f"{name} {route}")
        self.server.set_attribute("http.request.method", known)
        if route is not None:
            self.server.set_attribute("http.route", route)
        if status:
            self.server.set_attribute("http.response.status_code", status)
        self.server.set_attributes(self.stage.attributes)
        if status >= 500 or not status:
            _failed(self.server, self.stage.fault or (str(status) if status else "no answer"))
        self._inside(self.stage, self.server, ended)
        self.server.end(self.offset + _nanoseconds(ended))

    def _inside(self, stage: Stage, span: Span, ended: float) -> None:
        """The spans of a stage's parts. The thread may still be at work for one that is not wanted
        any more.
        """
        context = set_span_in_context(span, Context())
        for part in tuple(stage.inside):
            if part.began > ended:
                continue
            over = part.ended
            end = ended if over is None else min(over, ended)
            made = self.tracer.start_span(
                part.name,
                context,
                attributes=dict(part.attributes),
                start_time=self.offset + _nanoseconds(part.began),
            )
            if over is None:
                made.set_attribute("m3h.unfinished", value=True)
            if part.fault is not None:
                _failed(made, part.fault)
            self._inside(part, made, end)
            made.end(self.offset + _nanoseconds(end))


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)


def _failed(span: Span, fault: str) -> None:
    """By its class only: the message of an exception may quote a payload."""
    span.set_attribute("error.type", fault)
    span.set_status(StatusCode.ERROR)


class _Sparing(FromLibraries):
    """Tells each kind of trouble once an hour, not for each batch of spans."""

    def __init__(self, log: FilteringBoundLogger) -> None:
        super().__init__(log)
        self._silent_until: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        now, kind = time.monotonic(), str(record.msg)
        if now >= self._silent_until.get(kind, 0.0):
            self._silent_until[kind] = now + _SILENT_SECONDS
            super().emit(record)
