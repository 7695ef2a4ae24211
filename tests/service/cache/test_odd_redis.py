"""A Redis that sends arbitrary replies does not change an answer, nor exhaust the memory."""

import pytest

from service.cache.redis_cache import RedisCache
from service.telemetry.metrics import Metrics
from tests.service.cache.cached_answers import CACHED, REDIS, SECRET, assert_same_answer, counts
from tests.support.servers.prometheus import scraped
from tests.support.servers.redis_server import OddRedis

REPLIES = {
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
    "nothing, then it disconnects": b"",
}


@pytest.mark.parametrize("reply", REPLIES.values(), ids=REPLIES.keys())
def test_no_reply_of_redis_fails_a_prediction(serve, engine, payload, reply):
    expected = serve(engine).predict(payload)
    with OddRedis(reply) as odd:
        service = serve(engine, **REDIS | {"redis_url": odd.url})
        assert_same_answer(expected, service.predict(payload))
        payload["notes"][0]["text"] = "Another."
        service.predict(payload)
        assert counts(service, "redis") == dict.fromkeys(CACHED, 0)


@pytest.mark.parametrize(
    ("reply", "rest"),
    [
        pytest.param(b"$300000000\r\n", b"x" * 65_536, id="a value of 300 MB"),
        pytest.param(b"+", b"x" * 65_536, id="a line without end"),
        pytest.param(b"*300000000\r\n", b"$1\r\na\r\n" * 1000, id="an array without end"),
    ],
)
def test_a_long_reply_is_not_read_to_its_end(engine, reply, rest):
    with OddRedis(reply, rest) as odd:
        shared = RedisCache(
            odd.url.get_secret_value(),
            SECRET,
            engine.embedding_dims,
            Metrics(),
            timeout_seconds=5,
            entry_seconds=60,
        )
        assert shared.get({"notes": b"k" * 32}) == {}
        shared.close()
    # The system buffers some of the rest.
    assert odd.sent < 10_000_000


def test_an_oversized_value_is_not_read_to_its_end(replica, server, payload):
    first = replica().predict(payload)
    for key in server.entries(3):
        server.client.set(key, b"x" * 50_000_000)
    before = server.client.info("stats")["total_net_output_bytes"]
    other = replica()
    assert_same_answer(first, other.predict(payload))
    assert server.client.info("stats")["total_net_output_bytes"] - before < 100_000
    name = 'm3h_redis_failures_total{fault="not_whole"}'
    assert scraped(other.client.get("/metrics").text, name) == 3
