"""Export of spans by a real process, with working and failing collectors."""

import json
import signal
import statistics
import time
from collections import Counter

import httpx
import pytest

from tests.support.servers.trace_collector import ENCODERS


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
