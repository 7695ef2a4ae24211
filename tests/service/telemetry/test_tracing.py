"""Traces: what a collector of OpenTelemetry is told of a request, and what it is never told."""

import io
import json
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from threading import Event, Thread
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from schemas.response import MODALITIES
from service.prediction import batcher
from service.runtime.engine import Engine
from service.telemetry.logging import make_log
from service.telemetry.otlp import Traces
from tests.service.conftest import Service

SAMPLED, NOT_SAMPLED = (
    f"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags}" for flags in ("01", "00")
)


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
    """A collector that keeps all that it is sent. `status`: what it answers, once `open`."""

    bodies: list[bytes] = field(default_factory=list)
    status: int = 200
    open: Event = field(default_factory=Event)
    url: str = ""

    def spans(self) -> list[Span]:
        return [
            Span(
                one.name,
                one.trace_id.hex(),
                one.span_id.hex(),
                one.parent_span_id.hex(),
                one.start_time_unix_nano,
                one.end_time_unix_nano,
                {a.key: _value(a.value) for a in one.attributes},
                one.status.code == 2,
                next(a.value.int_value for a in of.resource.attributes if a.key == "process.pid"),
            )
            for body in tuple(self.bodies)
            for of in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in of.scope_spans
            for one in scope.spans
        ]

    def servers(self) -> list[Span]:
        """The spans of requests, in the order that they came."""
        names = {span.id for span in self.spans()}
        found = [span for span in self.spans() if span.parent not in names]
        return sorted(found, key=lambda span: span.start)

    def parts(self, of: Span) -> list[Span]:
        found = [span for span in self.spans() if span.parent == of.id]
        return sorted(found, key=lambda span: span.start)

    def tree(self, of: Span) -> dict[str, Any]:
        """The names of what is inside."""
        return {part.name: self.tree(part) for part in self.parts(of)}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return getattr(value, kind)


@pytest.fixture
def collector(monkeypatch) -> Iterator[Collector]:
    """Listens on a free port."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")  # ms from one export to the next
    found = Collector()
    found.open.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.bodies.append(body)
            found.open.wait()
            self.send_response(found.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    Thread(target=server.serve_forever, daemon=True).start()
    found.url = f"http://127.0.0.1:{server.server_port}"
    yield found
    found.open.set()
    server.shutdown()
    server.server_close()


@dataclass
class Watched:
    """A service whose requests are traced."""

    service: Service
    traces: Traces
    collector: Collector

    def told(self) -> Collector:
        """Once all is sent; nothing more is from then on."""
        self.traces.close(10)
        return self.collector


@pytest.fixture
def watched(serve, engine, collector) -> Iterator[Callable[..., Watched]]:
    made = []

    def start(engine: Engine = engine, ratio: float = 1.0, **changed: Any) -> Watched:
        traces = Traces(collector.url, ratio, make_log("info", io.StringIO()))
        made.append(traces)
        return Watched(serve(engine, traces, **changed), traces, collector)

    yield start
    for traces in made:
        traces.close(0)


# ------------------------------------------------------------------------------- what is told


ENCODERS = {f"encoder {modality}": {} for modality in MODALITIES}


def test_a_trace_has_the_stages_of_a_request_within_each_other(watched, payload, bundle):
    one = watched()
    one.service.predict(payload)
    told = one.told()
    (server,) = told.servers()
    assert server.name == "POST /predict"
    assert told.tree(server) == {
        "read": {},
        "queue": {},
        "prepare": {},
        "batch": ENCODERS | {"fusion": {}},
        "respond": {"explanation": {}},
    }
    by_id = {span.id: span for span in told.spans()}
    for span in told.spans():
        around = by_id.get(span.parent, server)
        assert around.start <= span.start <= span.end <= around.end, span.name
        assert span.trace == server.trace
    stages = told.parts(server)
    assert all(a.end <= b.start for a, b in pairwise(stages))
    assert 1e6 < sum(s.end - s.start for s in stages) <= server.end - server.start
    assert server.attributes == {
        "http.request.method": "POST",
        "http.route": "/predict",
        "http.response.status_code": 200,
        "m3h.bundle.digest": bundle.digest,
        "m3h.explain": "default",
        "m3h.priority": "urgent",
    }
    (prepare,) = (span for span in told.spans() if span.name == "prepare")
    assert set(prepare.attributes.pop("m3h.modalities")) == set(MODALITIES)
    assert prepare.attributes.keys() == {f"m3h.cache.{m}" for m in ("series", "notes", "image")}


def test_an_encoder_that_did_not_run_has_no_span(watched, payload):
    one = watched()
    payload["notes"][0]["text"] = "Sent twice."
    del payload["images"]
    for _ in range(2):
        one.service.predict(payload, explain="none")
    told = one.told()
    first, second = (told.tree(server)["batch"] for server in told.servers())
    assert first.keys() == {"encoder tabular", "encoder series", "encoder notes", "fusion"}
    assert second.keys() == {"encoder tabular", "fusion"}
    first, second = (span.attributes for span in told.spans() if span.name == "prepare")
    for modality in ("series", "notes"):
        assert first[f"m3h.cache.{modality}"] == "miss"
        assert second[f"m3h.cache.{modality}"] == "memory"


def test_what_a_full_explanation_leaves_out_in_turn_is_a_stage_of_its_own(watched, payload):
    one = watched()
    answer = one.service.predict(payload, explain="full")
    assert answer["explanation"]["variables"]
    told = one.told()
    (server,) = told.servers()
    (occlusion,) = (span for span in told.spans() if span.name == "occlusion")
    assert told.tree(server)["batch"].keys() == {*ENCODERS, "fusion", "occlusion"}
    assert occlusion.attributes["m3h.batch.rows"] > 5
    assert server.attributes["m3h.explain"] == "full"


def test_a_batch_is_in_the_trace_of_each_request_in_it_with_its_rows(watched, payload, monkeypatch):
    monkeypatch.setattr(batcher, "INLINE_BYTES", 0)  # so that others gather while one is computed
    monkeypatch.setitem(batcher.BATCH_SECONDS, "urgent", 10.0)
    one = watched(cache_bytes=0, queue_ms=60_000, deadline_ms=60_000)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: one.service.predict(payload), range(32)))
    told = one.told()
    batches = [span for span in told.spans() if span.name == "batch"]
    times = Counter((span.start, span.end) for span in batches)
    assert max(times.values()) > 1
    for span in batches:
        assert span.attributes["m3h.batch.rows"] == times[span.start, span.end]
    assert len(batches) == len({span.trace for span in batches}) == len(told.servers())


def test_items_of_one_request_share_a_trace_and_their_batches(watched, payload):
    one = watched(cache_bytes=0)
    items = [payload, {"as_of": "no time"}, payload]
    answer = one.service.client.post("/predict/batch", json={"items": items})
    assert [item.get("status", 200) for item in answer.json()["items"]] == [200, 422, 200]
    told = one.told()
    (server,) = told.servers()
    names = Counter(span.name for span in told.parts(server))
    assert (names["queue"], names["prepare"], names["respond"]) == (3, 3, 2)
    rows = [s.attributes["m3h.batch.rows"] for s in told.parts(server) if s.name == "batch"]
    assert sum(rows) == 2
    failed = [s.attributes.get("error.type") for s in told.spans() if s.failed]
    assert failed == ["InvalidPayload"]
    assert server.attributes["m3h.priority"] == "bulk"


@pytest.fixture
def blocked(engine, monkeypatch) -> Iterator[Event]:
    """The engine computes nothing until this is set."""
    run, leave = engine.run, Event()
    monkeypatch.setattr(engine, "run", lambda *asked: leave.wait(60) and run(*asked))
    monkeypatch.setattr(batcher, "INLINE_BYTES", 0)  # in the thread, or nobody could be refused
    yield leave
    leave.set()


def test_what_a_request_waited_for_when_its_time_was_over_is_told(watched, payload, blocked):
    one = watched()
    for _ in range(2):  # the first is computed for too long, the second waits
        answer = one.service.client.post(
            "/predict", json=payload, headers={"M3H-Deadline-Ms": "200"}
        )
        assert answer.status_code == 504
    blocked.set()
    told = one.told()
    for server, last in zip(told.servers(), ("batch", "queue"), strict=True):
        assert server.failed
        assert server.attributes["error.type"] == "504"
        assert told.parts(server)[-1].name == last
        (unfinished,) = (s for s in told.parts(server) if s.attributes.get("m3h.unfinished"))
        assert unfinished.name == last
        assert unfinished.end == server.end


def test_an_error_of_the_service_is_told_by_its_class(watched, payload, engine, monkeypatch):
    def fail(*_: Any) -> None:
        raise ArithmeticError(CANARY)

    one = watched()
    with monkeypatch.context() as broken:
        broken.setattr(engine, "run", fail)
        assert one.service.client.post("/predict", json=payload).status_code == 500
    told = one.told()
    (server,) = told.servers()
    assert server.failed
    assert server.attributes["error.type"] == "ArithmeticError"
    assert [span.name for span in told.spans() if span.failed] == ["batch", "POST /predict"]
    assert CANARY.encode() not in b"".join(told.bodies)


def test_probes_are_not_traced(watched):
    one = watched()
    for path in ("/health/live", "/health/ready", "/metrics", "/tasks"):
        one.service.client.get(path)
    assert [server.name for server in one.told().servers()] == ["GET /tasks"]


# -------------------------------------------------------------------------- who is to be traced


def test_the_span_of_a_caller_is_the_parent(watched):
    one = watched(ratio=0.0)
    answer = one.service.client.get("/tasks", headers={"traceparent": SAMPLED})
    assert answer.headers["traceparent"] == SAMPLED
    (server,) = one.told().servers()
    assert f"00-{server.trace}-{server.parent}-01" == SAMPLED


def test_whom_the_caller_does_not_trace_is_not_traced(watched):
    one = watched(ratio=1.0)
    answer = one.service.client.get("/tasks", headers={"traceparent": NOT_SAMPLED})
    assert answer.headers["traceparent"] == NOT_SAMPLED
    assert one.told().spans() == []


def test_a_trace_that_is_made_is_found_by_the_answer_and_the_log(watched):
    one = watched()
    answer = one.service.client.get("/tasks")
    (server,) = one.told().servers()
    assert server.parent == ""
    made = answer.headers["traceparent"]
    version, trace, span, flags = made.split("-")
    assert (version, trace, span, int(flags, 16) & 1) == ("00", server.trace, server.id, 1)
    assert made in one.service.log.getvalue()


@pytest.mark.parametrize(("ratio", "least", "most"), [(0.0, 0, 0), (0.5, 60, 140)])
def test_of_the_others_as_many_are_traced_as_the_ratio_says(watched, ratio, least, most):
    one = watched(ratio=ratio)
    flags = [one.service.client.get("/tasks").headers["traceparent"][-2:] for _ in range(200)]
    traced = len(one.told().servers())
    assert least <= traced <= most
    assert sum(int(flag, 16) & 1 for flag in flags) == traced


# ------------------------------------------------------------------------- what is never told


CANARY = "Zz7canary"


def test_no_span_holds_what_a_caller_sent(watched, payload):
    """In payloads that are valid or not, and in all other places of a request."""
    one = watched()
    client = one.service.client
    payload["patient_id"] = CANARY
    payload["notes"][0]["text"] = f"{CANARY} has fever. {CANARY} is confused."
    payload["tabular"]["admission_source"] = CANARY
    payload["series"][0]["values"][-1] = 123.45678
    payload["series"].append(payload["series"][0] | {"variable": CANARY, "unit": CANARY})
    headers = {
        "X-Request-ID": CANARY,
        "traceparent": SAMPLED,
        "tracestate": f"{CANARY.lower()}={CANARY}",
        "baggage": f"patient={CANARY}",
        "User-Agent": CANARY,
        "Referer": f"http://{CANARY}/",
        "Cookie": CANARY,
        "Host": CANARY,
    }
    asked = [
        client.post("/predict", json=payload, headers=headers),
        client.post("/predict?explain=full", json=payload, headers=headers),
        client.post("/predict?strict=true", json=payload, headers=headers),
        client.post(f"/predict?{CANARY}={CANARY}", json=payload, headers=headers),
        client.post(f"/predict?explain=full&task={CANARY}", json=payload, headers=headers),
        client.post("/predict", json=payload, headers=headers | {"M3H-Priority": CANARY}),
        client.post("/predict", json={CANARY: CANARY}, headers=headers),
        client.post("/predict", content=CANARY, headers=headers | JSON),
        client.post("/predict", content=CANARY, headers=headers | {"Content-Type": CANARY}),
        client.post("/predict/batch", json={"items": [payload, CANARY]}, headers=headers),
        client.get(f"/{CANARY}", headers=headers),
        client.get(f"/tim?source={CANARY}", headers=headers),
        client.request(CANARY, "/predict", headers=headers),
    ]
    statuses = [200, 200, 422, 422, 422, 422, 422, 400, 415, 200, 404, 422, 405]
    assert [answer.status_code for answer in asked] == statuses
    told = one.told()
    assert [s.attributes["http.response.status_code"] for s in told.servers()] == statuses
    sent = b"".join(told.bodies)
    assert b"encoder notes" in sent  # it can be read
    for secret in (CANARY, "123.45678", "febrile", "canary"):
        assert secret.lower().encode() not in sent.lower()


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize("traced", [False, True])
def test_frameworks_do_not_trace_on_their_own(serve, engine, collector, monkeypatch, traced):
    """They would tell the query string. A cluster may set these variables for all its pods."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")
    traces = Traces(collector.url, 1.0, make_log("info", io.StringIO())) if traced else None
    client = serve(engine, traces).client
    assert client.get(f"/tim?source={CANARY}").status_code == 422
    if traces is not None:
        traces.close(10)
    time.sleep(0.2)
    assert CANARY.encode() not in b"".join(collector.bodies)
    assert [span.name for span in collector.spans()] == ["GET /tim"] * traced


OFF = """
import sys
from pathlib import Path
import service.cli
from service.http.app import create_app
from service.runtime.bundle import Bundle
from service.runtime.engine import Engine
from service.settings import Settings
from starlette.testclient import TestClient

engine = Engine(Bundle.load(Path(sys.argv[1]), "cpu"))
engine.replay_golden()
with TestClient(create_app(engine, Settings())) as client:
    body = '{"as_of": "2026-01-02T12:00:00Z", "tabular": {"age": 67}}'
    client.post("/predict", content=body, headers={"Content-Type": "application/json"})
parts = (
    "opentelemetry.sdk", "opentelemetry.exporter", "requests", "service.telemetry.otlp", "redis"
)
print([name for name in sys.modules if name.startswith(parts)])
"""


def test_without_a_collector_nothing_of_it_is_loaded(bundle_dir):
    done = subprocess.run(
        [sys.executable, "-c", OFF, str(bundle_dir)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


# ------------------------------------------------------------------------- as a process of its own


@pytest.mark.parametrize("graphs", ["own", "shared"])
def test_what_waits_is_sent_before_a_process_ends(started, collector, payload, graphs):
    process, url = started(
        M3H_WORKERS="2",
        M3H_GRAPHS=graphs,
        M3H_OTLP_ENDPOINT=f"{collector.url}/",
        OTEL_BSP_SCHEDULE_DELAY="600000",
    )
    for _ in range(12):  # over connections of their own, so that both workers have some
        assert httpx.post(f"{url}/predict", json=payload).status_code == 200
    assert collector.bodies == []
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    servers = collector.servers()
    assert [server.name for server in servers] == ["POST /predict"] * 12
    assert len({server.pid for server in servers}) == 2
    assert ENCODERS.keys() <= {span.name for span in collector.spans()}


@pytest.mark.parametrize("fault", ["gone", "refuses", "hangs"])
def test_a_collector_that_fails_costs_no_answer_and_is_told_once(
    started, collector, payload, fault
):
    url = collector.url
    if fault == "gone":
        url = "http://127.0.0.1:9"  # discard: nobody listens
    elif fault == "refuses":
        collector.status = 400
    else:
        collector.open.clear()
    process, service = started(
        M3H_WORKERS="1", M3H_DRAIN_SECONDS="0", M3H_OTLP_ENDPOINT=url, OTEL_BSP_MAX_QUEUE_SIZE="512"
    )
    seconds = []
    with httpx.Client(base_url=service) as client:
        for _ in range(200):
            began = time.perf_counter()
            assert client.post("/predict", json=payload).status_code == 200
            seconds.append(time.perf_counter() - began)
    # Whoever waited for the collector would wait ten seconds; a busy machine is no such wait.
    assert statistics.median(seconds) < 5
    assert max(seconds) < 10
    if fault == "refuses":
        assert len(collector.bodies) > 2
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert time.monotonic() - began < 10
    lines = [json.loads(line) for line in process.stderr]
    told = Counter(
        line["event"].partition(" ")[0]
        for line in lines
        if line.get("logger", "").startswith("opentelemetry")
    )
    assert set(told.values()) <= {1}
    expected = {"gone": "Transient", "refuses": "Failed", "hangs": "Queue"}
    assert expected[fault] in told
