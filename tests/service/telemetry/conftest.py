"""Fixtures: a collector of OpenTelemetry spans, and services that send their spans to it."""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from service.runtime.engine import Engine
from service.telemetry.logging import make_log
from service.telemetry.otlp import TraceExporter
from tests.service.conftest import Service
from tests.support.servers.trace_collector import Collector, running_collector


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
