"""Long requests end at their deadline and do not delay short requests."""

import base64
import copy
import io
import json
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from threading import Thread
from threading import enumerate as enumerate_threads
from typing import Any

import PIL.Image
import pytest
from starlette.testclient import TestClient

from schemas.features.notes import encoding
from service.cache.embedding_cache import EmbeddingCache
from service.http.app import create_app
from service.prediction import predictor
from service.prediction.jobs import Job, Options
from service.prediction.scheduling import batcher
from service.runtime.engine import Engine
from service.telemetry.metrics import Metrics
from tests.service.conftest import Service
from tests.support.servers.prometheus import scraped

TEXT = "Patient remains febrile; blood pressure is supported. No chest pain. Plan: continue.\n"


def noted(payload: dict[str, Any], count: int, characters: int) -> dict[str, Any]:
    """The payload with `count` notes of `characters` characters each."""
    as_of = datetime.fromisoformat(payload["as_of"])
    text = (TEXT * (characters // len(TEXT) + 1))[:characters]
    payload["notes"] = [
        {
            "kind": "nursing",
            "time": (as_of - timedelta(minutes=i)).isoformat(),
            "text": f"Note {i}. {text}",
        }
        for i in range(count)
    ]
    return payload


@pytest.fixture
def large(serve: Callable[..., Service], engine: Engine) -> Service:
    return serve(engine, max_body_bytes=2_000_000)


@pytest.mark.parametrize(("count", "characters"), [(100, 600), (200, 600), (500, 600)])
def test_requests_with_hundreds_of_notes_are_explained(large, payload, count, characters):
    answer = large.predict(noted(payload, count, characters), explain="full", task="sepsis")
    assert len(answer["predictions"]) == 44
    passages = [p for p in answer["explanation"]["variables"][0]["because"] if p["kind"] == "note"]
    assert all(len(part["pointers"]) > 1 for part in passages)


@pytest.fixture
def pieces(monkeypatch) -> list[int]:
    """The lengths of the pieces of notes that have been tokenized."""
    lengths: list[int] = []
    read = encoding._split_chunks

    def counted(text: str) -> Any:
        for start, piece in read(text):
            lengths.append(len(piece))
            time.sleep(0.005)
            yield start, piece

    monkeypatch.setattr(encoding, "_split_chunks", counted)
    return lengths


def test_the_computation_of_a_request_ends_at_its_deadline(large, payload, pieces):
    long_payload = noted(copy.deepcopy(payload), 500, 1000)
    headers = {"M3H-Deadline-Ms": "300"}
    answer = large.client.post("/predict?explain=full", json=long_payload, headers=headers)
    assert answer.status_code == 504
    # The long lane is free: it computes the next request, and no more notes of the first one.
    large.predict(noted(copy.deepcopy(payload), 40, 4000), explain="full")
    assert len(pieces) < 500


def test_the_computation_of_a_batch_ends_at_its_deadline(large, payload, pieces):
    long_item = noted(payload, 30, 1000)
    items = [{**long_item, "patient_id": str(i), "notes": long_item["notes"][i:]} for i in range(4)]
    headers = {"M3H-Deadline-Ms": "100"}
    answer = large.client.post("/predict/batch", json={"items": items}, headers=headers)
    assert {item.get("status") for item in answer.json().get("items", [answer.json()])} == {504}
    large.predict(copy.deepcopy(payload) | {"notes": []})
    assert sum(pieces) < 60 * 1000


def test_a_short_request_is_answered_while_a_long_one_is_computed(large, payload, pieces):
    long_payload = noted(copy.deepcopy(payload), 500, 1000)
    answers: list[int] = []

    def ask() -> None:
        headers = {"M3H-Deadline-Ms": "60000"}
        url = "/predict?explain=full"
        answers.append(large.client.post(url, json=long_payload, headers=headers).status_code)

    long = Thread(target=ask)
    long.start()
    while not pieces:
        time.sleep(0.001)
    payload["notes"] = []
    for _ in range(5):
        large.predict(payload)
    assert not answers
    assert len(pieces) < 500
    long.join()
    assert answers == [200]


def test_the_time_of_a_request_is_estimated_before_it_is_computed(engine, bundle, payload):
    """The estimate depends on the content, not on the bytes: a small file can be a large image."""
    own = predictor.Predictor(engine, EmbeddingCache(0, None, Metrics()), Metrics())

    def expected(changed: dict[str, Any], **options: Any) -> float:
        body = json.dumps(changed).encode()
        return own.estimate_seconds(own.parse(Job(body, Options(**options))))

    small = payload | {"images": []}
    assert expected(small) < batcher.SHORT_SECONDS
    many = noted(copy.deepcopy(small), 200, 600)
    assert expected(many) > 20 * expected(small | {"notes": []})
    assert expected(many, explain="full") > expected(many) > batcher.INLINE_SECONDS
    pixels = payload | {"notes": []}
    pixels["images"] = [{**payload["images"][0], "data": _white(6000, 6000)}]
    assert len(json.dumps(pixels)) < batcher.INLINE_BYTES
    assert expected(pixels) > batcher.SHORT_SECONDS


def test_a_failed_item_of_a_batch_is_counted(large, payload, monkeypatch):
    def failures(status: int) -> float:
        name = f'm3h_batch_item_failures_total{{status="{status}"}}'
        text = large.client.get("/metrics").text
        return scraped(text, name) if name in text else 0.0

    features = predictor.extract_features

    def fail(read: Any, *args: Any, **named: Any) -> Any:
        if read.patient_id == "fails":
            raise RuntimeError
        return features(read, *args, **named)

    monkeypatch.setattr(predictor, "extract_features", fail)
    before = failures(500), failures(422)
    items = [payload, payload | {"patient_id": "fails"}, {"as_of": 1}, payload]
    answers = large.client.post("/predict/batch", json={"items": items}).json()["items"]
    assert [answer.get("status", 200) for answer in answers] == [200, 500, 422, 200]
    assert (failures(500), failures(422)) == (before[0] + 1, before[1] + 1)


def test_a_closed_service_leaves_no_thread(engine, settings):
    def lanes() -> int:
        return sum(thread.name in ("m3h-short", "m3h-long") for thread in enumerate_threads())

    before = lanes()
    with TestClient(create_app(engine, settings)):
        assert lanes() == before + 2
    assert lanes() == before


def _white(width: int, height: int) -> str:
    out = io.BytesIO()
    PIL.Image.new("1", (width, height), 1).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()
