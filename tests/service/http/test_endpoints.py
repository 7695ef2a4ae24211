"""Metadata, queue limits, metrics and log."""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from service.prediction.scheduling import batcher
from service.runtime.bundle import Bundle
from service.runtime.engine import Engine
from tests.support.servers.processes import until
from tests.support.servers.prometheus import scraped

# ------------------------------------------------------------------------------------ the model


def test_tasks_are_those_of_the_bundle(service, bundle):
    tasks = service.client.get("/tasks").json()["tasks"]
    assert [t["name"] for t in tasks] == [f.task.name for f in bundle.manifest.tasks]
    assert all(t["means"] and t["department"] for t in tasks)
    assert "eicu_pattern" not in tasks[0]


def test_variables_list_the_accepted_units(service, bundle):
    variables = service.client.get("/variables").json()
    creatinine = next(v for v in variables["variables"] if v["name"] == "creatinine")
    assert creatinine["units"][0] == "mg/dL"
    assert "umol/L" in creatinine["units"]
    assert "2160-0" in creatinine["loinc"]
    assert len(creatinine["plausible"]) == 2
    assert {t["name"] for t in variables["treatments"]} == {
        t.name for t in bundle.manifest.spec.treatments
    }
    assert variables["categories"]["sex"] == ["female", "male"]


def test_predict_accepts_every_listed_unit(service, payload):
    """`POST /predict` accepts every unit that `GET /variables` lists."""
    variables = service.client.get("/variables").json()
    time = payload["as_of"]
    payload["series"] = [
        {"variable": v["name"], "unit": unit, "times": [time], "values": [1]}
        for v in variables["variables"]
        for unit in v["units"]
    ]
    service.predict(payload)


def test_model_metadata_is_that_of_the_manifest(service, bundle):
    model = service.client.get("/model").json()
    assert (model["name"], model["digest"]) == (bundle.manifest.name, bundle.digest)
    assert model["evaluation"] == bundle.manifest.evaluation
    assert [c["name"] for c in model["cohorts"]] == [c.name for c in bundle.manifest.cohorts]
    assert "recalibration" not in model


DOCUMENTS = {"tim.json": "/tim", "MODEL_CARD.md": "/model-card"}


def test_the_model_card_is_served_unchanged(service, bundle_dir):
    answer = service.client.get("/model-card")
    assert answer.text == (bundle_dir / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert answer.headers["content-type"] == "text/markdown; charset=utf-8"
    again = service.client.get("/model-card", headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304


def test_missing_bundle_files_are_404(serve, changed_bundle):
    def remove_files(manifest: dict[str, Any], path: Path) -> None:
        for name in DOCUMENTS:
            (path / name).unlink(missing_ok=True)
            manifest["files"].pop(name, None)

    client = serve(Engine(Bundle.load(changed_bundle(remove_files), "cpu"))).client
    for path, name in (("/tim", "TIM"), ("/model-card", "model card")):
        answer = client.get(path)
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["detail"] == f"the served bundle has no {name}"


@pytest.mark.parametrize("path", ["/tasks", "/variables", "/model"])
def test_static_content_has_an_etag(service, path):
    tag = service.client.get(path).headers["etag"]
    again = service.client.get(path, headers={"If-None-Match": f'"other", W/{tag}'})
    assert again.status_code == 304
    assert again.content == b""
    assert service.client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


# ------------------------------------------------------------------------------------- the queue


@pytest.fixture
def busy(serve, engine, payload, monkeypatch) -> Iterator[Any]:
    """A service whose queue has room for four payloads, one of which runs until the test ends."""
    entered, released = Event(), Event()
    run = engine.run

    def blocked(*arguments: Any) -> Any:
        entered.set()
        assert released.wait(60)
        return run(*arguments)

    monkeypatch.setattr(engine, "run", blocked)
    service = serve(engine, queue_bytes=4 * len(json.dumps(payload)))
    # Inference runs in the thread, so that the event loop can refuse requests.
    monkeypatch.setattr(batcher, "INLINE_BYTES", 0)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(service.client.post, "/predict", json=payload)
        assert entered.wait(60)
        yield service
        released.set()
        assert first.result().status_code == 200


def test_a_full_queue_is_503_with_retry_after(busy, payload):
    payload["notes"][0]["text"] += 4 * json.dumps(payload)
    answer = busy.client.post("/predict", json=payload)
    assert answer.status_code == 503
    assert answer.json()["type"] == "urn:m3h:problem:busy"
    assert int(answer.headers["retry-after"]) >= 1


def test_a_missed_deadline_is_504(busy, payload):
    headers = {"M3H-Priority": "bulk", "M3H-Deadline-Ms": "50"}
    answer = busy.client.post("/predict", json=payload, headers=headers)
    assert answer.status_code == 504
    assert answer.json()["type"] == "urn:m3h:problem:late"
    batch = busy.client.post("/predict/batch", json={"items": [payload] * 2}, headers=headers)
    assert batch.status_code == 200
    assert [item["status"] for item in batch.json()["items"]] == [504, 504]


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("M3H-Priority", "soon", "must be one of 'urgent' or 'bulk'"),
        ("M3H-Deadline-Ms", "0", "must be 1 or more"),
        ("M3H-Deadline-Ms", "987654321", "must be 600000 or less"),
        ("M3H-Deadline-Ms", "12345x", "must be a whole number"),
    ],
)
def test_an_invalid_scheduling_header_is_refused_by_name(service, payload, name, value, allowed):
    answer = service.client.post("/predict", json=payload, headers={name: value})
    assert answer.status_code == 422
    (fault,) = answer.json()["errors"]
    assert (fault["parameter"], fault["detail"]) == (name, allowed)


# ---------------------------------------------------------------------------- metrics and the log


@pytest.mark.parametrize(
    ("method", "path", "route", "status"),
    [
        ("POST", "/predict", "/predict", 200),
        ("GET", "/predict", "/predict", 405),
        ("GET", "/tasks", "/tasks", 200),
        ("GET", "/openapi.json", "/openapi.json", 200),
        ("GET", "/docs", "/docs", 200),
        ("GET", "/no/such/path", "other", 404),
    ],
)
def test_a_request_is_counted_once_by_its_route(service, payload, method, path, route, status):
    name = f'm3h_requests_total{{route="{route}",status="{status}"}}'
    before = service.client.get("/metrics").text
    service.client.request(method, path, json=payload if method == "POST" else None)
    after = service.client.get("/metrics").text
    assert scraped(after, name) - scraped(before, name) == 1
    seconds = f'm3h_request_seconds_count{{route="{route}"}}'
    assert scraped(after, seconds) - scraped(before, seconds) == 1


def test_predictions_are_counted_by_stage_modality_and_reason(service, payload):
    del payload["notes"]
    payload["tabular"]["sex"] = "unheard of"
    before = service.client.get("/metrics").text
    service.predict(payload)

    def increase(name: str) -> float:
        return scraped(service.client.get("/metrics").text, name) - scraped(before, name)

    # Predictions are counted after the response is sent.
    until(lambda: increase("m3h_attention_entropy_count") == 1)
    after = service.client.get("/metrics").text

    for stage in ("parse", "features", "model", "respond"):
        assert increase(f'm3h_stage_seconds_count{{stage="{stage}"}}') == 1
    assert increase('m3h_modality_present_total{modality="image"}') == 1
    assert increase('m3h_modality_present_total{modality="notes"}') == 0
    assert increase('m3h_input_unusual_count{modality="image"}') == 1
    assert increase('m3h_input_unusual_count{modality="notes"}') == 0
    assert increase('m3h_input_ignored_total{reason="unknown_category"}') == 1
    assert increase("m3h_predictions_total") == 1
    assert increase('m3h_variable_present_total{variable="heart_rate"}') == 1
    assert 'm3h_variable_present_total{variable="lactate"}' in after  # although no request had one
    assert increase('m3h_variable_present_total{variable="lactate"}') == 0
    assert increase("m3h_attention_entropy_count") == 1
    assert 0 < increase("m3h_attention_entropy_sum") <= 1


def test_usage_equals_the_metrics(service, payload, bundle):
    del payload["notes"]
    payload["tabular"]["sex"] = "unheard of"
    before = service.client.get("/usage").json()
    service.predict(payload)
    predictions = before["predictions"] + 1
    until(lambda: service.client.get("/usage").json()["predictions"] == predictions)
    after = service.client.get("/usage").json()
    assert set(after["variables"]) == {v.name for v in bundle.manifest.spec.variables}

    def increase(group: str) -> dict[str, int]:
        increases = {name: n - before[group].get(name, 0) for name, n in after[group].items()}
        return {name: n for name, n in increases.items() if n}

    assert increase("modalities") == {"tabular": 1, "series": 1, "image": 1}
    assert increase("variables").items() >= {("heart_rate", 1), ("creatinine", 1)}
    assert increase("ignored")["unknown_category"] == 1
    assert increase("requests")["200"] >= 2
    assert set(after["modalities"]) == {"tabular", "series", "notes", "image"}


def test_metrics_name_the_bundle(service, bundle):
    text = service.client.get("/metrics").text
    assert f'digest="{bundle.digest}"' in text
    assert service.client.get("/metrics").headers["content-type"].startswith("text/plain")


def test_request_ids_are_echoed(service):
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    sent = {"X-Request-ID": "ward-7.42", "traceparent": trace}
    answer = service.client.get("/tasks", headers=sent)
    assert answer.headers["x-request-id"] == "ward-7.42"
    assert answer.headers["traceparent"] == trace


@pytest.mark.parametrize("sent", [{}, {"X-Request-ID": "a b", "traceparent": f"00-{'0' * 32}-1"}])
def test_missing_or_unsafe_ids_are_generated(service, sent):
    answers = [service.client.get("/no/such/path", headers=sent) for _ in range(2)]
    assert len({a.headers["x-request-id"] for a in answers}) == 2
    for answer in answers:
        assert re.fullmatch(r"[0-9a-f-]{36}", answer.headers["x-request-id"])
        assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-00", answer.headers["traceparent"])


def test_the_log_has_one_json_line_per_request_without_query(service, payload):
    sent = {"X-Request-ID": "one-line"}
    service.client.post("/predict?explain=full", json=payload, headers=sent)
    lines = [json.loads(line) for line in service.log.getvalue().splitlines()]
    (line,) = [line for line in lines if line.get("request_id") == "one-line"]
    assert line["route"] == "/predict"
    assert line["status"] == 200
    assert line["ms"] > 0
    assert "explain" not in json.dumps(line)
