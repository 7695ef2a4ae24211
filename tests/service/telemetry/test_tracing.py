"""Traces: the spans that an OpenTelemetry collector receives, and that they hold no input."""

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
from dataclasses import dataclass
from itertools import pairwise
from threading import Event
from typing import Any

import httpx
import pytest

from schemas.response import MODALITIES
from service.prediction.scheduling import batcher, lane
from service.runtime.engine import Engine
from service.telemetry.logging import make_log
from service.telemetry.otlp import TraceExporter
from tests.service.conftest import Service
from tests.support.servers.trace_collector import Collector, running_collector

SAMPLED, NOT_SAMPLED = (
    f"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags}" for flags in ("01", "00")
)


@pytest.fixture
def collector(monkeypatch) -> Iterator[Collector]:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")  # ms between exports
    with running_collector() as collector:
        yield collector


@dataclass
class TracedService:
    """A traced service and its collector."""

    service: Service
    traces: TraceExporter
    collector: Collector

    def export(self) -> Collector:
        """Sends all spans and ends tracing. Returns the collector."""
        self.traces.close(10)
        return self.collector


@pytest.fixture
def start_traced(serve, engine, collector) -> Iterator[Callable[..., TracedService]]:
    made = []

    def start(engine: Engine = engine, ratio: float = 1.0, **changed: Any) -> TracedService:
        traces = TraceExporter(collector.url, ratio, make_log("info", io.StringIO()))
        made.append(traces)
        return TracedService(serve(engine, traces, **changed), traces, collector)

    yield start
    for traces in made:
        traces.close(0)


# ------------------------------------------------------------------------------------- spans


ENCODERS = {f"encoder {modality}": {} for modality in MODALITIES}


def test_a_trace_has_the_nested_steps_of_a_request(start_traced, payload, bundle):
    traced = start_traced()
    traced.service.predict(payload)
    collector = traced.export()
    (server,) = collector.servers()
    assert server.name == "POST /predict"
    assert collector.tree(server) == {
        "read": {},
        "queue": {},
        "prepare": {},
        "batch": ENCODERS | {"fusion": {}},
        "respond": {"explanation": {}},
    }
    by_id = {span.id: span for span in collector.spans()}
    for span in collector.spans():
        around = by_id.get(span.parent, server)
        assert around.start <= span.start <= span.end <= around.end, span.name
        assert span.trace == server.trace
    stages = collector.children(server)
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
    (prepare,) = (span for span in collector.spans() if span.name == "prepare")
    assert set(prepare.attributes.pop("m3h.modalities")) == set(MODALITIES)
    assert prepare.attributes.keys() == {f"m3h.cache.{m}" for m in ("series", "notes", "image")}


def test_an_encoder_that_did_not_run_has_no_span(start_traced, payload):
    traced = start_traced()
    payload["notes"][0]["text"] = "Sent twice."
    del payload["images"]
    for _ in range(2):
        traced.service.predict(payload, explain="none")
    collector = traced.export()
    first, second = (collector.tree(server)["batch"] for server in collector.servers())
    assert first.keys() == {"encoder tabular", "encoder series", "encoder notes", "fusion"}
    assert second.keys() == {"encoder tabular", "fusion"}
    first, second = (span.attributes for span in collector.spans() if span.name == "prepare")
    for modality in ("series", "notes"):
        assert first[f"m3h.cache.{modality}"] == "miss"
        assert second[f"m3h.cache.{modality}"] == "memory"


def test_occlusion_of_a_full_explanation_has_its_own_span(start_traced, payload):
    traced = start_traced()
    answer = traced.service.predict(payload, explain="full")
    assert answer["explanation"]["variables"]
    collector = traced.export()
    (server,) = collector.servers()
    (occlusion,) = (span for span in collector.spans() if span.name == "occlusion")
    assert collector.tree(server)["batch"].keys() == {*ENCODERS, "fusion", "occlusion"}
    assert occlusion.attributes["m3h.batch.rows"] > 5
    assert server.attributes["m3h.explain"] == "full"


def test_a_batch_is_in_the_trace_of_each_of_its_requests(start_traced, payload, monkeypatch):
    monkeypatch.setattr(batcher, "INLINE_BYTES", 0)  # so that requests queue during inference
    monkeypatch.setitem(lane.BATCH_SECONDS, "urgent", 10.0)
    traced = start_traced(cache_bytes=0, queue_ms=60_000, deadline_ms=60_000)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: traced.service.predict(payload), range(32)))
    collector = traced.export()
    batches = [span for span in collector.spans() if span.name == "batch"]
    times = Counter((span.start, span.end) for span in batches)
    assert max(times.values()) > 1
    for span in batches:
        assert span.attributes["m3h.batch.rows"] == times[span.start, span.end]
    assert len(batches) == len({span.trace for span in batches}) == len(collector.servers())


def test_items_of_one_request_share_a_trace_and_their_batches(start_traced, payload):
    traced = start_traced(cache_bytes=0)
    items = [payload, {"as_of": "no time"}, payload]
    answer = traced.service.client.post("/predict/batch", json={"items": items})
    assert [item.get("status", 200) for item in answer.json()["items"]] == [200, 422, 200]
    collector = traced.export()
    (server,) = collector.servers()
    names = Counter(span.name for span in collector.children(server))
    assert (names["queue"], names["prepare"], names["respond"]) == (3, 3, 2)
    rows = [s.attributes["m3h.batch.rows"] for s in collector.children(server) if s.name == "batch"]
    assert sum(rows) == 2
    failed = [s.attributes.get("error.type") for s in collector.spans() if s.failed]
    assert failed == ["InvalidPayload"]
    assert server.attributes["m3h.priority"] == "bulk"


@pytest.fixture
def blocked(engine, monkeypatch) -> Iterator[Event]:
    """The engine waits until this event is set."""
    run, released = engine.run, Event()
    monkeypatch.setattr(engine, "run", lambda *arguments: released.wait(60) and run(*arguments))
    monkeypatch.setattr(
        batcher, "INLINE_BYTES", 0
    )  # runs in the thread, so that the event loop can answer 504
    yield released
    released.set()


def test_a_late_request_has_its_unfinished_step(start_traced, payload, blocked):
    traced = start_traced()
    for _ in range(2):  # the first one is in inference, the second one in the queue
        answer = traced.service.client.post(
            "/predict", json=payload, headers={"M3H-Deadline-Ms": "200"}
        )
        assert answer.status_code == 504
    blocked.set()
    collector = traced.export()
    for server, last in zip(collector.servers(), ("batch", "queue"), strict=True):
        assert server.failed
        assert server.attributes["error.type"] == "504"
        assert collector.children(server)[-1].name == last
        (unfinished,) = (
            s for s in collector.children(server) if s.attributes.get("m3h.unfinished")
        )
        assert unfinished.name == last
        assert unfinished.end == server.end


def test_an_internal_error_is_exported_by_its_class(start_traced, payload, engine, monkeypatch):
    def fail(*_: Any) -> None:
        raise ArithmeticError(CANARY)

    traced = start_traced()
    with monkeypatch.context() as broken:
        broken.setattr(engine, "run", fail)
        assert traced.service.client.post("/predict", json=payload).status_code == 500
    collector = traced.export()
    (server,) = collector.servers()
    assert server.failed
    assert server.attributes["error.type"] == "ArithmeticError"
    assert [span.name for span in collector.spans() if span.failed] == ["batch", "POST /predict"]
    assert CANARY.encode() not in b"".join(collector.bodies)


def test_probes_are_not_traced(start_traced):
    traced = start_traced()
    for path in ("/health/live", "/health/ready", "/metrics", "/tasks"):
        traced.service.client.get(path)
    assert [server.name for server in traced.export().servers()] == ["GET /tasks"]


# ---------------------------------------------------------------------------------- sampling


def test_the_span_of_the_caller_is_the_parent(start_traced):
    traced = start_traced(ratio=0.0)
    answer = traced.service.client.get("/tasks", headers={"traceparent": SAMPLED})
    assert answer.headers["traceparent"] == SAMPLED
    (server,) = traced.export().servers()
    assert f"00-{server.trace}-{server.parent}-01" == SAMPLED


def test_a_request_that_the_caller_did_not_sample_is_not_traced(start_traced):
    traced = start_traced(ratio=1.0)
    answer = traced.service.client.get("/tasks", headers={"traceparent": NOT_SAMPLED})
    assert answer.headers["traceparent"] == NOT_SAMPLED
    assert traced.export().spans() == []


def test_a_new_trace_id_is_in_the_response_and_the_log(start_traced):
    traced = start_traced()
    answer = traced.service.client.get("/tasks")
    (server,) = traced.export().servers()
    assert server.parent == ""
    made = answer.headers["traceparent"]
    version, trace, span, flags = made.split("-")
    assert (version, trace, span, int(flags, 16) & 1) == ("00", server.trace, server.id, 1)
    assert made in traced.service.log.getvalue()


@pytest.mark.parametrize(("ratio", "least", "most"), [(0.0, 0, 0), (0.5, 60, 140)])
def test_the_ratio_applies_to_requests_without_traceparent(start_traced, ratio, least, most):
    traced = start_traced(ratio=ratio)
    flags = [traced.service.client.get("/tasks").headers["traceparent"][-2:] for _ in range(200)]
    traced = len(traced.export().servers())
    assert least <= traced <= most
    assert sum(int(flag, 16) & 1 for flag in flags) == traced


# --------------------------------------------------------------------------------- privacy


CANARY = "Zz7canary"


def test_no_span_holds_input(start_traced, payload):
    """Neither of valid or invalid payloads nor of any other part of a request."""
    traced = start_traced()
    client = traced.service.client
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
    responses = [
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
    assert [response.status_code for response in responses] == statuses
    collector = traced.export()
    assert [s.attributes["http.response.status_code"] for s in collector.servers()] == statuses
    sent = b"".join(collector.bodies)
    assert b"encoder notes" in sent  # not compressed
    for secret in (CANARY, "123.45678", "febrile", "canary"):
        assert secret.lower().encode() not in sent.lower()


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize("traced", [False, True])
def test_frameworks_do_not_trace_on_their_own(serve, engine, collector, monkeypatch, traced):
    """Their spans hold the query string. A cluster may set these variables for all its pods."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")
    traces = TraceExporter(collector.url, 1.0, make_log("info", io.StringIO())) if traced else None
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


def test_without_a_collector_opentelemetry_is_not_imported(bundle_dir):
    done = subprocess.run(
        [sys.executable, "-c", OFF, str(bundle_dir)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


# --------------------------------------------------------------------------- a real process


@pytest.mark.parametrize("graphs", ["own", "shared"])
def test_remaining_spans_are_sent_before_a_process_ends(started, collector, payload, graphs):
    process, url = started(
        M3H_WORKERS="2",
        M3H_GRAPHS=graphs,
        M3H_OTLP_ENDPOINT=f"{collector.url}/",
        OTEL_BSP_SCHEDULE_DELAY="600000",
    )
    for _ in range(12):  # each over its own connection, so that both workers get some
        assert httpx.post(f"{url}/predict", json=payload).status_code == 200
    assert collector.bodies == []
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    servers = collector.servers()
    assert [server.name for server in servers] == ["POST /predict"] * 12
    assert len({server.pid for server in servers}) == 2
    assert ENCODERS.keys() <= {span.name for span in collector.spans()}


@pytest.mark.parametrize("fault", ["gone", "refuses", "hangs"])
def test_a_failing_collector_delays_no_request_and_is_logged_once(
    started, collector, payload, fault
):
    url = collector.url
    if fault == "gone":
        url = "http://127.0.0.1:9"  # the discard port: no process listens
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
    # A request that waits for the collector takes ten seconds. A busy machine adds less.
    assert statistics.median(seconds) < 5
    assert max(seconds) < 10
    if fault == "refuses":
        assert len(collector.bodies) > 2
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert time.monotonic() - began < 10
    lines = [json.loads(line) for line in process.stderr]
    logged = Counter(
        line["event"].partition(" ")[0]
        for line in lines
        if line.get("logger", "").startswith("opentelemetry")
    )
    assert set(logged.values()) <= {1}
    expected = {"gone": "Transient", "refuses": "Failed", "hangs": "Queue"}
    assert expected[fault] in logged
