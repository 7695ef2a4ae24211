"""The spans that an OpenTelemetry collector receives."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from threading import Event
from typing import Any

import pytest

from schemas.response import MODALITIES
from service.prediction.scheduling import batcher, lane
from tests.support.servers.trace_collector import ENCODERS


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


SECRET = "Zz7canary"


def test_an_internal_error_is_exported_by_its_class(start_traced, payload, engine, monkeypatch):
    def fail(*_: Any) -> None:
        raise ArithmeticError(SECRET)

    traced = start_traced()
    with monkeypatch.context() as broken:
        broken.setattr(engine, "run", fail)
        assert traced.service.client.post("/predict", json=payload).status_code == 500
    collector = traced.export()
    (server,) = collector.servers()
    assert server.failed
    assert server.attributes["error.type"] == "ArithmeticError"
    assert [span.name for span in collector.spans() if span.failed] == ["batch", "POST /predict"]
    assert SECRET.encode() not in b"".join(collector.bodies)


def test_probes_are_not_traced(start_traced):
    traced = start_traced()
    for path in ("/health/live", "/health/ready", "/metrics", "/tasks"):
        traced.service.client.get(path)
    assert [server.name for server in traced.export().servers()] == ["GET /tasks"]
