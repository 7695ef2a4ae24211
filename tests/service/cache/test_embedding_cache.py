"""The embedding cache: the same content is not encoded twice."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.features import FeatureSpec
from schemas.payload import as_payload
from schemas.response import Modality
from service.cache.embedding_cache import CacheKey, CacheKeys, EmbeddingCache
from service.runtime.engine import Embedding
from service.telemetry.metrics import Metrics
from tests.service.cache.cached_answers import CACHED, assert_same_answer, counts
from tests.service.conftest import png

SPEC = FeatureSpec.default()


def test_repeated_content_is_not_encoded_again(serve, engine, payload):
    service = serve(engine)
    payload["images"].insert(0, payload["images"][0] | {"time": payload["notes"][0]["time"]})
    first, again = service.predict(payload), service.predict(payload)
    assert counts(service, "computed") == dict.fromkeys(CACHED, 1)
    assert counts(service, "memory") == dict.fromkeys(CACHED, 1)
    assert_same_answer(first, again)


@pytest.mark.parametrize("changed", CACHED)
def test_only_a_changed_modality_is_encoded(serve, engine, payload, changed):
    service = serve(engine)
    service.predict(payload)
    match changed:
        case "series":
            payload["series"][0]["values"][0] += 1
        case "notes":
            payload["notes"][0]["text"] += "!"
        case "image":
            payload["images"][0]["data"] = png(96, 81)
    answer = service.predict(payload)
    assert counts(service, "computed") == dict.fromkeys(CACHED, 1) | {changed: 2}
    assert_same_answer(answer, serve(engine).predict(payload))


def test_a_later_as_of_does_not_encode_notes_and_images_again(serve, engine, payload):
    service = serve(engine)
    service.predict(payload)
    payload["as_of"] = payload["as_of"].replace("T12", "T13")
    answer = service.predict(payload)
    assert counts(service, "computed") == dict.fromkeys(CACHED, 1) | {"series": 2}
    assert_same_answer(answer, serve(engine).predict(payload))


def test_content_that_occurs_twice_in_a_batch_is_encoded_once(serve, engine, payload):
    service = serve(engine)
    service.client.post("/predict/batch", json={"items": [payload] * 4})
    assert counts(service, "computed") == dict.fromkeys(CACHED, 1)


def test_invalid_content_is_never_cached(serve, engine, payload):
    service = serve(engine)
    payload["images"][0]["data"] = payload["images"][0]["data"][:200]
    for _ in range(2):
        assert service.client.post("/predict", json=payload).status_code == 422
    assert counts(service, "computed")["image"] == 0


def keys_of(payload: dict[str, Any], bundle_digest: str = "one") -> dict[Modality, CacheKey]:
    return CacheKeys(bundle_digest, SPEC).content_keys(as_payload(payload))


def test_keys_depend_on_the_bundle_and_the_order_of_notes(payload):
    note = payload["notes"][0]
    earlier = note | {"text": "Walks.", "time": note["time"].replace("-04T", "-03T")}
    payload["notes"] = [note, earlier]
    keys = keys_of(payload)
    assert keys_of(payload, "other")["notes"] != keys["notes"]
    payload["notes"] = [earlier, note]  # sent in another order, but with the same times
    assert keys_of(payload) == keys
    payload["notes"] = [note | {"time": earlier["time"]}, earlier | {"time": note["time"]}]
    assert keys_of(payload)["notes"] != keys["notes"]
    payload["notes"] = [note | {"text": note["text"] + "Walks."}]
    assert keys_of(payload)["notes"] != keys["notes"]


def test_the_key_of_notes_depends_on_the_notes_in_the_window_only(payload):
    note = payload["notes"][0]
    old = note | {"text": "Pneumonia.", "time": "1999-01-01T00:00:00Z"}
    assert keys_of(payload | {"notes": [old, note]}) == keys_of(payload | {"notes": [note]})
    assert "notes" not in keys_of(payload | {"notes": [old]})
    later = payload | {"notes": [note], "as_of": "2199-12-31T00:00:00Z"}
    assert "notes" not in keys_of(later)


@given(st.lists(st.integers(0, 40), max_size=200), st.integers(0, 10))
def test_memory_is_limited_and_recent_entries_stay(numbers, max_entries):
    size = 4 * 100 + 500
    cache = EmbeddingCache(max_entries * size, None, Metrics())
    latest: list[int] = []
    for number in numbers:
        key = bytes([number])
        cached = cache.get({"notes": key})
        assert bool(cached) == (number in latest)
        if cached:
            assert cached["notes"].unusual == number
            latest.remove(number)
        else:
            cache.put("notes", key, Embedding(np.zeros(100, np.float32), number))
        latest = [*latest, number][-max_entries:] if max_entries else []
