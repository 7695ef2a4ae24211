"""Nothing is computed twice; and whatever becomes of Redis, answers are the same."""

import json
import signal
import socketserver
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from threading import enumerate as enumerate_threads
from typing import Any, Self

import numpy as np
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from schemas.features import FeatureSpec, unlimited
from schemas.payload import as_payload
from service.cache.embedding_cache import Cache, Keys
from service.cache.redis_cache import SharedCache, pack, unpack
from service.prediction.predictor import Job, Options, Predictor
from service.runtime.engine import Embedded
from service.settings import Settings
from service.telemetry.metrics import Metrics
from service.telemetry.spans import Stage
from tests.service.conftest import Service, png
from tests.support.prometheus import scraped

KEPT = ("series", "notes", "image")
SPEC = FeatureSpec.default()
SECRET = "of these tests alone"
REDIS = {"redis_secret": SecretStr(SECRET), "redis_ms": 200}


def counts(service: Service, origin: str) -> dict[str, int]:
    text = service.client.get("/metrics").text
    name = 'm3h_embeddings_total{{modality="{}",origin="{}"}}'
    return {m: int(scraped(text, name.format(m, origin))) for m in KEPT}


def numbers(answer: dict[str, Any]) -> list[float]:
    found: list[float] = []
    for one in answer["predictions"]:
        found += [one[name] for name in ("probability", "value") if name in one]
        found += one.get("probabilities", {}).values()
    return found


def alike(one: dict[str, Any], other: dict[str, Any]) -> None:
    np.testing.assert_allclose(numbers(one), numbers(other), atol=1e-5)
    for modality, use in one["receipt"]["modalities"].items():
        also = other["receipt"]["modalities"][modality]
        assert use | {"unusual": None} == also | {"unusual": None}
        assert use.get("unusual") == pytest.approx(also.get("unusual"), abs=1e-5)
    for field in ("used", "ignored", "converted", "merged", "treatments"):
        assert one["receipt"][field] == other["receipt"][field]


# ------------------------------------------------------------------------------------- in memory


def test_what_came_before_is_not_computed_again(serve, engine, payload):
    service = serve(engine)
    payload["images"].insert(0, payload["images"][0] | {"time": payload["notes"][0]["time"]})
    first, again = service.predict(payload), service.predict(payload)
    assert counts(service, "computed") == dict.fromkeys(KEPT, 1)
    assert counts(service, "memory") == dict.fromkeys(KEPT, 1)
    alike(first, again)


@pytest.mark.parametrize("changed", KEPT)
def test_only_what_changed_is_computed(serve, engine, payload, changed):
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
    assert counts(service, "computed") == dict.fromkeys(KEPT, 1) | {changed: 2}
    alike(answer, serve(engine).predict(payload))


def test_a_later_time_alone_leaves_notes_and_images_as_they_are(serve, engine, payload):
    service = serve(engine)
    service.predict(payload)
    payload["as_of"] = payload["as_of"].replace("T12", "T13")
    answer = service.predict(payload)
    assert counts(service, "computed") == dict.fromkeys(KEPT, 1) | {"series": 2}
    alike(answer, serve(engine).predict(payload))


def test_content_that_several_of_a_batch_have_is_computed_once(serve, engine, payload):
    service = serve(engine)
    service.client.post("/predict/batch", json={"items": [payload] * 4})
    assert counts(service, "computed") == dict.fromkeys(KEPT, 1)


def test_what_could_not_be_read_is_never_taken_for_read(serve, engine, payload):
    service = serve(engine)
    payload["images"][0]["data"] = payload["images"][0]["data"][:200]
    for _ in range(2):
        assert service.client.post("/predict", json=payload).status_code == 422
    assert counts(service, "computed")["image"] == 0


def test_each_bundle_and_each_order_of_notes_has_keys_of_its_own(payload):
    one = payload["notes"][0]
    earlier = one | {"text": "Walks.", "time": one["time"].replace("-04T", "-03T")}
    payload["notes"] = [one, earlier]
    keys = Keys("one", SPEC).of_content(as_payload(payload))
    assert Keys("other", SPEC).of_content(as_payload(payload))["notes"] != keys["notes"]
    payload["notes"] = [earlier, one]  # sent in another order, and in time the same
    assert Keys("one", SPEC).of_content(as_payload(payload)) == keys
    payload["notes"] = [one | {"time": earlier["time"]}, earlier | {"time": one["time"]}]
    assert Keys("one", SPEC).of_content(as_payload(payload))["notes"] != keys["notes"]
    payload["notes"] = [one | {"text": one["text"] + "Walks."}]
    assert Keys("one", SPEC).of_content(as_payload(payload))["notes"] != keys["notes"]


def test_the_key_of_notes_is_that_of_the_notes_that_are_read(payload):
    one = payload["notes"][0]
    old = one | {"text": "Pneumonia.", "time": "1999-01-01T00:00:00Z"}
    alone = Keys("one", SPEC).of_content(as_payload(payload | {"notes": [one]}))
    assert Keys("one", SPEC).of_content(as_payload(payload | {"notes": [old, one]})) == alone
    assert "notes" not in Keys("one", SPEC).of_content(as_payload(payload | {"notes": [old]}))
    later = payload | {"notes": [one], "as_of": "2199-12-31T00:00:00Z"}
    assert "notes" not in Keys("one", SPEC).of_content(as_payload(later))


@given(st.lists(st.integers(0, 40), max_size=200), st.integers(0, 10))
def test_memory_is_bounded_and_the_latest_stay(bundle, asked, most):
    size = 4 * 100 + 500
    cache = Cache(most * size, None, Metrics())
    latest: list[int] = []
    for number in asked:
        key = bytes([number])
        found = cache.get({"notes": key})
        assert bool(found) == (number in latest)
        if found:
            assert found["notes"].unusual == number
            latest.remove(number)
        else:
            cache.put("notes", key, Embedded(np.zeros(100, np.float32), number))
        latest = [*latest, number][-most:] if most else []


# -------------------------------------------------------------------------------------- in Redis


@dataclass
class Server:
    """A Redis of one's own, to be treated badly."""

    socket: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    @property
    def client(self) -> "redis.Redis":
        return redis.Redis.from_url(self.url)

    def start(self) -> None:
        command = ["redis-server", "--port", "0", "--unixsocket", str(self.socket)]
        self.process = subprocess.Popen(
            [*command, "--save", "", "--appendonly", "no"], stdout=subprocess.DEVNULL
        )
        for _ in range(200):
            try:
                self.client.ping()
            except redis.RedisError:
                time.sleep(0.02)
            else:
                return
        pytest.fail("redis-server does not start")

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def entries(self, count: int) -> list[bytes]:
        """The keys, once there are so many: they are written behind the answers."""
        for _ in range(200):
            if len(keys := self.client.keys()) >= count:
                return keys
            time.sleep(0.02)
        pytest.fail("nothing was written")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    found = Server(tmp_path / "redis.sock")
    found.start()
    yield found
    if found.process is not None:
        found.process.send_signal(signal.SIGCONT)
    found.stop()


@pytest.fixture
def replica(serve, engine, server) -> Callable[[], Service]:
    # Long enough for a machine that is busy with other tests.
    return lambda **settings: serve(
        engine, **REDIS | {"redis_url": SecretStr(server.url)} | settings
    )


def test_what_one_replica_made_the_others_have(replica, server, payload):
    first = replica().predict(payload)
    server.entries(3)
    other = replica()
    alike(first, other.predict(payload))
    assert counts(other, "redis") == dict.fromkeys(KEPT, 1)
    assert counts(other, "computed") == dict.fromkeys(KEPT, 0)


def test_a_traced_request_says_where_each_came_from(engine, server, payload):
    def predictor() -> Predictor:
        counted = Metrics()
        shared = SharedCache(
            server.url, SECRET, engine.widths, counted, seconds=0.2, keep_seconds=60
        )
        return Predictor(engine, Cache(10**7, shared, counted), counted)

    def prepared(by: Predictor) -> Stage:
        request = Stage("HTTP")
        read = by.read(Job.waiting(json.dumps(payload).encode(), Options(), request))
        by.run([by.prepare(read, unlimited)])
        return next(part for part in request.inside if part.name == "prepare")

    def origins(prepare: Stage) -> set[Any]:
        return {prepare.attributes[f"m3h.cache.{modality}"] for modality in KEPT}

    assert origins(prepared(predictor())) == {"miss"}
    server.entries(3)
    other = predictor()
    first, again = prepared(other), prepared(other)
    assert (origins(first), origins(again)) == ({"redis"}, {"memory"})
    assert {part.name for part in first.inside} == {"redis"}
    assert again.inside == []  # nobody was asked


def test_redis_holds_no_word_of_a_patient_and_nothing_for_ever(replica, server, payload):
    payload["patient_id"] = "Jane-Roe-1934"
    replica().predict(payload)
    for key in server.entries(3):
        held = key + server.client.get(key)
        for word in (b"Jane", b"Roe", b"1934", b"febrile", b"Patient", b"2031"):
            assert word not in held
        assert 0 < server.client.ttl(key) <= 86_400


def test_a_wrong_or_foreign_value_is_refused(replica, server, payload):
    first = replica().predict(payload)
    keys = server.entries(3)
    values = server.client.mget(keys)
    server.client.mset(dict(zip(keys, [values[1], values[2], b"garbage"], strict=True)))
    other = replica()
    alike(first, other.predict(payload))
    assert counts(other, "computed") == dict.fromkeys(KEPT, 1)
    name = 'm3h_redis_failures_total{fault="not_whole"}'
    assert scraped(other.client.get("/metrics").text, name) == 3


@given(st.binary(min_size=32, max_size=32), st.data())
def test_an_entry_is_taken_whole_under_its_own_key_and_secret_or_not_at_all(key, data):
    draw = np.random.default_rng(0)
    made = Embedded(draw.normal(size=16).astype(np.float32), 0.25)
    secret = b"s" * 64
    entry = pack(secret, key, made)
    found = unpack(secret, key, entry, 16)
    assert found is not None
    assert found.unusual == made.unusual
    np.testing.assert_array_equal(found.embedding, made.embedding)
    assert unpack(secret, key[::-1] + b"x", entry, 16) is None
    assert unpack(b"t" * 64, key, entry, 16) is None
    assert unpack(secret, key, entry, 17) is None
    at = data.draw(st.integers(0, len(entry) - 1))
    changed = bytearray(entry)
    changed[at] ^= data.draw(st.integers(1, 255))
    assert unpack(secret, key, bytes(changed), 16) is None
    assert unpack(secret, key, entry[: data.draw(st.integers(0, len(entry) - 1))], 16) is None


def test_whoever_writes_to_redis_without_the_secret_changes_no_prediction(replica, server, payload):
    first = replica().predict(payload)
    server.entries(3)
    other = replica(redis_secret=SecretStr("another secret, of a stranger"))
    alike(first, other.predict(payload))
    assert counts(other, "redis") == dict.fromkeys(KEPT, 0)
    # It made entries of its own: nobody finds those of another secret, even by their keys.
    assert len(server.entries(6)) == 6


def test_a_key_in_redis_does_not_tell_which_note_it_is_of(replica, server, bundle, payload):
    replica().predict(payload)
    digests = Keys(bundle.digest, bundle.manifest.spec).of_content(as_payload(payload)).values()
    held = b"".join(server.entries(3))
    assert not any(digest in held or digest.hex().encode() in held for digest in digests)


def test_a_redis_needs_a_secret_and_no_error_quotes_either():
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
    alike(expected, service.predict(payload))
    assert time.monotonic() - began < 5
    failures = 'm3h_redis_failures_total{{fault="{}"}}'
    text = service.client.get("/metrics").text
    if harm == "paused":
        assert scraped(text, failures.format("slow")) == 1
    if harm in ("killed", "never there"):
        assert scraped(text, failures.format("error")) == 1


def test_redis_that_comes_back_is_used_again(replica, server, payload, monkeypatch):
    monkeypatch.setattr("service.cache.redis_cache._FIRST_PAUSE", 0.1)
    service = replica()
    server.stop()
    service.predict(payload)
    server.start()
    time.sleep(0.3)
    service.predict({**payload, "notes": [payload["notes"][0] | {"text": "Another."}]})
    server.entries(1)


def test_while_redis_fails_it_is_left_alone(replica, server, payload):
    service = replica()
    server.stop()
    for number in range(5):
        service.predict({**payload, "notes": [payload["notes"][0] | {"text": f"{number}"}]})
    text = service.client.get("/metrics").text
    assert scraped(text, 'm3h_redis_failures_total{fault="error"}') == 1


# ------------------------------------------------------------------- a Redis that answers anything


class OddRedis(socketserver.ThreadingTCPServer):
    """Answers each command with the same bytes; `rest` follows without end, while it is read."""

    daemon_threads = allow_reuse_address = True

    def __init__(self, reply: bytes, rest: bytes = b"") -> None:
        super().__init__(("127.0.0.1", 0), _Answering)
        self.reply, self.rest, self.sent = reply, rest, 0

    def __enter__(self) -> Self:
        Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    @property
    def url(self) -> SecretStr:
        return SecretStr(f"redis://127.0.0.1:{self.server_address[1]}/0")


class _Answering(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        with suppress(OSError):
            while received := self.request.recv(65_536):
                for _ in range(received.count(b"*")):
                    if not self.server.reply:
                        return
                    self._send(self.server.reply)
                    while self.server.rest:
                        self._send(self.server.rest)

    def _send(self, content: bytes) -> None:
        self.request.sendall(content)
        self.server.sent += len(content)


ODD = {
    "null": b"$-1\r\n",
    "null array": b"*-1\r\n",
    "RESP3 null": b"_\r\n",
    "an integer": b":7\r\n",
    "an integer of 5,000 digits": b":" + b"7" * 5000 + b"\r\n",
    "a status": b"+OK\r\n",
    "an error": b"-WRONGTYPE Operation against a key\r\n",
    "an error of cluster": b"-MOVED 3999 127.0.0.1:6381\r\n",
    "while it loads": b"-LOADING Redis is loading the dataset in memory\r\n",
    "not UTF-8": b"-\xff\xfe\r\n",
    "an array": b"*2\r\n$1\r\na\r\n$1\r\nb\r\n",
    "an array of nothing": b"*0\r\n",
    "an array of 4,000,000,000": b"*4000000000\r\n",
    "nested arrays": b"*1\r\n" * 1000,
    "two replies": b"$1\r\na\r\n$1\r\nb\r\n",
    "a short value": b"$3\r\nabc\r\n",
    "a value of the right size": b"$164\r\n" + b"x" * 164 + b"\r\n",
    "a negative length": b"$-7\r\n",
    "no length": b"$x\r\nabc\r\n",
    "less than announced": b"$100\r\nabc",
    "HTTP": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "an unknown kind": b"?what\r\n",
    "line breaks": b"\r\n\r\n",
    "nothing, and hangs up": b"",
}


@pytest.mark.parametrize("reply", ODD.values(), ids=ODD.keys())
def test_no_answer_of_redis_fails_a_prediction(serve, engine, payload, reply):
    expected = serve(engine).predict(payload)
    with OddRedis(reply) as odd:
        service = serve(engine, **REDIS | {"redis_url": odd.url})
        alike(expected, service.predict(payload))
        payload["notes"][0]["text"] = "Another."
        service.predict(payload)
        assert counts(service, "redis") == dict.fromkeys(KEPT, 0)


@pytest.mark.parametrize(
    ("reply", "rest"),
    [
        pytest.param(b"$300000000\r\n", b"x" * 65_536, id="a value of 300 MB"),
        pytest.param(b"+", b"x" * 65_536, id="a line without end"),
        pytest.param(b"*300000000\r\n", b"$1\r\na\r\n" * 1000, id="an array without end"),
    ],
)
def test_no_more_is_read_of_an_answer_than_an_entry_has(engine, reply, rest):
    with OddRedis(reply, rest) as odd:
        shared = SharedCache(
            odd.url.get_secret_value(), SECRET, engine.widths, Metrics(), seconds=5, keep_seconds=60
        )
        assert shared.get({"notes": b"k" * 32}) == {}
        shared.close()
    # Beyond what was read is what the system buffers of a connection.
    assert odd.sent < 10_000_000


def test_a_value_of_another_size_in_redis_is_not_read_whole(replica, server, payload):
    first = replica().predict(payload)
    for key in server.entries(3):
        server.client.set(key, b"x" * 50_000_000)
    before = server.client.info("stats")["total_net_output_bytes"]
    other = replica()
    alike(first, other.predict(payload))
    assert server.client.info("stats")["total_net_output_bytes"] - before < 100_000
    name = 'm3h_redis_failures_total{fault="not_whole"}'
    assert scraped(other.client.get("/metrics").text, name) == 3


def test_a_cache_that_was_never_used_has_started_no_thread_and_a_closed_one_leaves_none(
    engine, server
):
    def threads() -> set[str]:
        return {thread.name for thread in enumerate_threads() if "m3h-redis" in thread.name}

    before = threads()
    shared = SharedCache(server.url, SECRET, engine.widths, Metrics(), seconds=1, keep_seconds=60)
    assert threads() == before
    shared.put(b"k" * 32, Embedded(np.zeros(engine.widths["notes"], np.float32), 0.5))
    server.entries(1)
    assert set(shared.get({"notes": b"k" * 32})) == {"notes"}
    shared.close()
    assert threads() == before


def test_one_connection_is_kept_for_all_that_is_read(engine, server):
    shared = SharedCache(server.url, SECRET, engine.widths, Metrics(), seconds=1, keep_seconds=60)
    before = server.client.info("stats")["total_connections_received"]
    for number in range(5):
        shared.get({"notes": bytes([number]) * 32})
    # One of the cache, one of `info`.
    assert server.client.info("stats")["total_connections_received"] - before == 2
    shared.close()
