"""Spans hold no input, and no part of the service traces unless a collector is set."""

import io
import subprocess
import sys
import time

import pytest

from service.telemetry.logging import make_log
from service.telemetry.otlp import TraceExporter
from tests.support.servers.http_client import JSON
from tests.support.servers.trace_collector import SAMPLED

CANARY = "Zz7canary"


def test_no_span_holds_input(start_traced, payload):
    """Covers valid and invalid payloads, headers, paths and queries."""
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
