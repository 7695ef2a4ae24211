"""The cache in Redis: shared, authenticated, and never a reason for a failed prediction."""

import json
import signal
import time
from threading import enumerate as enumerate_threads
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from schemas.features import no_time_limit
from schemas.payload import as_payload
from service.cache.embedding_cache import CacheKeys, EmbeddingCache
from service.cache.redis_cache import RedisCache, pack_entry, unpack_entry
from service.prediction.jobs import Job, Options
from service.prediction.predictor import Predictor
from service.runtime.engine import Embedding, Engine
from service.settings import Settings
from service.telemetry.metrics import Metrics
from service.telemetry.spans import Span
from tests.service.cache.cached_answers import CACHED, SECRET, assert_same_answer, counts
from tests.support.servers.prometheus import scraped
from tests.support.servers.redis_server import RedisServer


def redis_cache(engine: Engine, server: RedisServer, timeout_seconds: float = 1) -> RedisCache:
    return RedisCache(
        server.url,
        SECRET,
        engine.embedding_dims,
        Metrics(),
        timeout_seconds=timeout_seconds,
        entry_seconds=60,
    )


def test_replicas_share_embeddings(replica, server, payload):
    first = replica().predict(payload)
    server.entries(3)
    other = replica()
    assert_same_answer(first, other.predict(payload))
    assert counts(other, "redis") == dict.fromkeys(CACHED, 1)
    assert counts(other, "computed") == dict.fromkeys(CACHED, 0)


def test_a_trace_has_the_origin_of_each_embedding(engine, server, payload):
    def predictor() -> Predictor:
        metrics = Metrics()
        cache = EmbeddingCache(10**7, redis_cache(engine, server, 0.2), metrics)
        return Predictor(engine, cache, metrics)

    def prepared(by: Predictor) -> Span:
        request = Span("HTTP")
        parsed = by.parse(Job.queued(json.dumps(payload).encode(), Options(), request))
        by.run([by.prepare(parsed, no_time_limit)])
        return next(part for part in request.children if part.name == "prepare")

    def origins(prepare: Span) -> set[Any]:
        return {prepare.attributes[f"m3h.cache.{modality}"] for modality in CACHED}

    assert origins(prepared(predictor())) == {"miss"}
    server.entries(3)
    other = predictor()
    first, again = prepared(other), prepared(other)
    assert (origins(first), origins(again)) == ({"redis"}, {"memory"})
    assert {part.name for part in first.children} == {"redis"}
    assert again.children == []  # Redis was not asked


def test_entries_contain_no_patient_data_and_expire(replica, server, payload):
    payload["patient_id"] = "Jane-Roe-1934"
    replica().predict(payload)
    for key in server.entries(3):
        held = key + server.client.get(key)
        for word in (b"Jane", b"Roe", b"1934", b"febrile", b"Patient", b"2031"):
            assert word not in held
        assert 0 < server.client.ttl(key) <= 86_400


def test_a_wrong_or_exchanged_entry_is_refused(replica, server, payload):
    first = replica().predict(payload)
    keys = server.entries(3)
    values = server.client.mget(keys)
    server.client.mset(dict(zip(keys, [values[1], values[2], b"garbage"], strict=True)))
    other = replica()
    assert_same_answer(first, other.predict(payload))
    assert counts(other, "computed") == dict.fromkeys(CACHED, 1)
    name = 'm3h_redis_failures_total{fault="not_whole"}'
    assert scraped(other.client.get("/metrics").text, name) == 3


@given(st.binary(min_size=32, max_size=32), st.data())
def test_an_entry_is_valid_only_complete_and_with_its_key_and_secret(key, data):
    draw = np.random.default_rng(0)
    embedding = Embedding(draw.normal(size=16).astype(np.float32), 0.25)
    secret = b"s" * 64
    entry = pack_entry(secret, key, embedding)
    unpacked = unpack_entry(secret, key, entry, 16)
    assert unpacked is not None
    assert unpacked.unusual == embedding.unusual
    np.testing.assert_array_equal(unpacked.vector, embedding.vector)
    assert unpack_entry(secret, key[::-1] + b"x", entry, 16) is None
    assert unpack_entry(b"t" * 64, key, entry, 16) is None
    assert unpack_entry(secret, key, entry, 17) is None
    at = data.draw(st.integers(0, len(entry) - 1))
    changed = bytearray(entry)
    changed[at] ^= data.draw(st.integers(1, 255))
    assert unpack_entry(secret, key, bytes(changed), 16) is None
    assert unpack_entry(secret, key, entry[: data.draw(st.integers(0, len(entry) - 1))], 16) is None


def test_an_entry_with_another_secret_changes_no_prediction(replica, server, payload):
    first = replica().predict(payload)
    server.entries(3)
    other = replica(redis_secret=SecretStr("another secret, of a stranger"))
    assert_same_answer(first, other.predict(payload))
    assert counts(other, "redis") == dict.fromkeys(CACHED, 0)
    # Its entries do not replace the others: keys depend on the secret, too.
    assert len(server.entries(6)) == 6


def test_a_key_in_redis_does_not_reveal_its_digest(replica, server, bundle, payload):
    replica().predict(payload)
    digests = (
        CacheKeys(bundle.digest, bundle.manifest.spec).content_keys(as_payload(payload)).values()
    )
    held = b"".join(server.entries(3))
    assert not any(digest in held or digest.hex().encode() in held for digest in digests)


def test_redis_needs_a_secret_and_errors_quote_neither_url_nor_secret():
    with pytest.raises(ValidationError, match="openssl rand") as refused:
        Settings(redis_url="redis://:hunter2@redis/0")
    assert refused.value.errors()[0]["loc"] == ("redis_url",)
    with pytest.raises(ValidationError, match="16 characters"):
        Settings(redis_url="redis://:hunter2@redis/0", redis_secret="hunter2")
    with pytest.raises(ValidationError, match="percent-encoded") as malformed:
        Settings(redis_url="redis://:hunter2/x@redis:port/0", redis_secret=SECRET)
    for error in (refused.value, malformed.value):
        assert "hunter2" not in str(error)
        assert all("hunter2" not in fault["msg"] for fault in error.errors())
    assert "hunter2" not in repr(Settings(redis_url="redis://:hunter2@h/0", redis_secret=SECRET))


@pytest.mark.parametrize("harm", ["killed", "paused", "full", "flushed", "never there"])
def test_no_prediction_fails_with_redis(serve, engine, replica, server, payload, harm):
    expected = serve(engine).predict(payload)
    if harm == "never there":
        server.stop()
    service = replica()
    if harm != "never there":
        service.predict({**payload, "notes": [payload["notes"][0] | {"text": "Another."}]})
    match harm:
        case "killed":
            server.stop()
        case "paused":
            server.process.send_signal(signal.SIGSTOP)
        case "full":
            server.client.config_set("maxmemory", "1")
            server.client.config_set("maxmemory-policy", "noeviction")
        case "flushed":
            server.client.flushall()
    began = time.monotonic()
    assert_same_answer(expected, service.predict(payload))
    assert time.monotonic() - began < 5
    failures = 'm3h_redis_failures_total{{fault="{}"}}'
    text = service.client.get("/metrics").text
    if harm == "paused":
        assert scraped(text, failures.format("slow")) == 1
    if harm in ("killed", "never there"):
        assert scraped(text, failures.format("error")) == 1


def test_a_recovered_redis_is_used_again(replica, server, payload, monkeypatch):
    monkeypatch.setattr("service.cache.redis_cache._FIRST_PAUSE", 0.1)
    service = replica()
    server.stop()
    service.predict(payload)
    server.start()
    time.sleep(0.3)
    service.predict({**payload, "notes": [payload["notes"][0] | {"text": "Another."}]})
    server.entries(1)


def test_a_failing_redis_is_not_used_for_a_while(replica, server, payload):
    service = replica()
    server.stop()
    for number in range(5):
        service.predict({**payload, "notes": [payload["notes"][0] | {"text": f"{number}"}]})
    text = service.client.get("/metrics").text
    assert scraped(text, 'm3h_redis_failures_total{fault="error"}') == 1


def test_a_cache_starts_its_threads_on_first_use_and_ends_them_on_close(engine, server):
    def threads() -> set[str]:
        return {thread.name for thread in enumerate_threads() if "m3h-redis" in thread.name}

    before = threads()
    shared = RedisCache(
        server.url, SECRET, engine.embedding_dims, Metrics(), timeout_seconds=1, entry_seconds=60
    )
    assert threads() == before
    shared.put(b"k" * 32, Embedding(np.zeros(engine.embedding_dims["notes"], np.float32), 0.5))
    server.entries(1)
    assert set(shared.get({"notes": b"k" * 32})) == {"notes"}
    shared.close()
    assert threads() == before


def test_all_reads_use_one_connection(engine, server):
    shared = RedisCache(
        server.url, SECRET, engine.embedding_dims, Metrics(), timeout_seconds=1, entry_seconds=60
    )
    before = server.client.info("stats")["total_connections_received"]
    for number in range(5):
        shared.get({"notes": bytes([number]) * 32})
    # A connection of the cache, and that of `info`.
    assert server.client.info("stats")["total_connections_received"] - before == 2
    shared.close()
