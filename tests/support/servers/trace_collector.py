"""An OpenTelemetry collector that stores the spans that it receives."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from schemas.response import MODALITIES

# The header `traceparent` of a request that its caller traces, and of one that it does not trace.
SAMPLED, NOT_SAMPLED = (
    f"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags}" for flags in ("01", "00")
)
# The spans of the encoders of a request with all modalities, without children.
ENCODERS: dict[str, Any] = {f"encoder {modality}": {} for modality in MODALITIES}


@dataclass
class Span:
    name: str
    trace: str
    id: str
    parent: str
    start: int
    end: int
    attributes: dict[str, Any]
    failed: bool
    pid: int


@dataclass
class Collector:
    """A collector that stores every request body. It answers with `status` once `open` is set."""

    bodies: list[bytes] = field(default_factory=list)
    status: int = 200
    open: Event = field(default_factory=Event)
    url: str = ""

    def spans(self) -> list[Span]:
        return [
            Span(
                span.name,
                span.trace_id.hex(),
                span.span_id.hex(),
                span.parent_span_id.hex(),
                span.start_time_unix_nano,
                span.end_time_unix_nano,
                {a.key: _value(a.value) for a in span.attributes},
                span.status.code == 2,
                next(
                    a.value.int_value for a in group.resource.attributes if a.key == "process.pid"
                ),
            )
            for body in tuple(self.bodies)
            for group in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in group.scope_spans
            for span in scope.spans
        ]

    def servers(self) -> list[Span]:
        """The spans of requests, in order of arrival."""
        names = {span.id for span in self.spans()}
        servers = [span for span in self.spans() if span.parent not in names]
        return sorted(servers, key=lambda span: span.start)

    def children(self, parent: Span) -> list[Span]:
        children = [span for span in self.spans() if span.parent == parent.id]
        return sorted(children, key=lambda span: span.start)

    def tree(self, parent: Span) -> dict[str, Any]:
        """The names of the spans below a span."""
        return {child.name: self.tree(child) for child in self.children(parent)}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return getattr(value, kind)


@contextmanager
def running_collector() -> Iterator[Collector]:
    """Runs a collector on a free port."""
    collector = Collector()
    collector.open.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            body = self.rfile.read(int(self.headers["Content-Length"]))
            collector.bodies.append(body)
            collector.open.wait()
            self.send_response(collector.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    Thread(target=server.serve_forever, daemon=True).start()
    collector.url = f"http://127.0.0.1:{server.server_port}"
    yield collector
    collector.open.set()
    server.shutdown()
    server.server_close()
