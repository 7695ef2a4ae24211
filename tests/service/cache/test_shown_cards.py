"""Replicas share which cards were shown, and Redis learns no identity and cannot forge an entry."""

import pytest
from pydantic import SecretStr

from service.cache.redis_cache import RedisCache
from service.cache.redis_marks import RedisMarks
from service.cache.shown_cards import _MAX_ENTRIES, ShownCards
from service.telemetry.metrics import Metrics
from tests.service.cache.cached_answers import SECRET
from tests.support.servers.redis_server import OddRedis

CARD, OTHER = ("digest", "patient-view", "Practitioner/abc", "p-1", "stay"), ("digest", "p-2")
STATE = {"sepsis": 0.41, "septic_shock": 0.2}


def marks_of(url: str, secret: str = SECRET) -> RedisMarks:
    dims = {"series": 8, "notes": 8, "image": 8}
    cache = RedisCache(url, secret, dims, Metrics(), timeout_seconds=1.0, entry_seconds=60)
    return RedisMarks(cache, b"card")


def test_a_card_is_remembered_for_its_time():
    cards = ShownCards(60, None)
    cards.put({CARD: STATE})
    assert cards.get([CARD, OTHER]) == [STATE, None]
    expired = ShownCards(-1, None)
    expired.put({CARD: STATE})
    assert expired.get([CARD]) == [None]


def test_nothing_is_remembered_without_a_time():
    cards = ShownCards(0, None)
    cards.put({CARD: STATE})
    assert cards.get([CARD]) == [None]


def test_the_memory_is_bounded_and_forgets_the_oldest():
    cards = ShownCards(60, None)
    cards.put({(str(i),): STATE for i in range(_MAX_ENTRIES + 5)})
    assert len(cards._entries) == _MAX_ENTRIES
    assert cards.get([("4",), ("5",)]) == [None, STATE]


def test_parts_of_an_identity_are_not_joined():
    cards = ShownCards(60, None)
    cards.put({("ab", "c"): STATE})
    assert cards.get([("a", "bc")]) == [None]


def test_the_memory_holds_no_identity():
    cards = ShownCards(60, None)
    cards.put({CARD: STATE})
    assert not any(part.encode() in key for key in cards._entries for part in CARD)


def test_replicas_share_the_cards_of_redis(server):
    first, second = (ShownCards(60, marks_of(server.url)) for _ in range(2))
    first.put({CARD: STATE})
    assert second.get([CARD, OTHER]) == [STATE, None]
    (name,) = server.client.keys()
    value = server.client.get(name)
    for part in CARD:
        assert part.encode() not in name
        assert part.encode() not in value
    assert 0 < server.client.ttl(name) <= 60


def test_another_secret_does_not_read_or_forge_an_entry(server):
    ShownCards(60, marks_of(server.url, "another secret")).put({CARD: STATE})
    cards = ShownCards(60, marks_of(server.url))
    assert cards.get([CARD]) == [None]
    cards.put({CARD: STATE})
    for name in server.entries(1):
        server.client.set(name, server.client.get(name)[:-2] + b"9}")
    assert cards.get([CARD]) == [None]


def test_a_token_is_claimed_once(server):
    first, second = marks_of(server.url), marks_of(server.url)
    key = bytes(32)
    assert first.claim(key, 60) is True
    assert second.claim(key, 60) is False
    assert second.get([key]) == [b""]


def test_a_lost_redis_shows_a_card_again_and_accepts_no_token(server):
    marks = marks_of(server.url)
    cards = ShownCards(60, marks)
    cards.put({CARD: STATE})
    server.stop()
    assert cards.get([CARD]) == [None]
    assert marks.claim(bytes(32), 60) is None


@pytest.mark.parametrize("reply", [b"$-1\r\n", b":7\r\n", b"-ERR\r\n", b"$3\r\nabc\r\n", b"?\r\n"])
def test_an_odd_reply_is_no_card_and_no_claim(reply):
    with OddRedis(reply) as odd:
        url = odd.url.get_secret_value() if isinstance(odd.url, SecretStr) else odd.url
        assert ShownCards(60, marks_of(url)).get([CARD]) == [None]
        assert marks_of(url).claim(bytes(32), 60) is not True
