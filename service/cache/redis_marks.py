"""Short values in Redis that all replicas share: cards that were shown, tokens that were used.

Names and values are authenticated as those of `service.cache.redis_cache`, whose connection, time
limit and pauses apply.
"""

import hmac
from collections.abc import Mapping, Sequence

import redis

from service.cache.redis_cache import RedisCache

_PREFIX = b"m3h:mark:1:"
_MAC_BYTES = 32
_MAX_BYTES = 4096  # of a value with its MAC; above it, a value is not stored


class RedisMarks:
    """Marks of one purpose, which is at most 16 bytes. Keys are digests of one length."""

    def __init__(self, cache: RedisCache, purpose: bytes) -> None:
        self._cache, self._purpose = cache, purpose

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The value of each key; None if it is absent or not authentic, or Redis fails."""

        def read(pipeline: redis.client.Pipeline) -> None:
            for key in keys:
                pipeline.getrange(self._name(key), 0, _MAX_BYTES)

        values = self._cache.execute(read)
        if values is None:
            return [None] * len(keys)
        if not all(isinstance(value, bytes) for value in values):
            self._cache.fail_odd_reply()
            return [None] * len(keys)
        return [self._unpack(key, value) for key, value in zip(keys, values, strict=True)]

    def put(self, values: Mapping[bytes, bytes], seconds: int) -> None:
        """Stores values for a time. A failure is counted, and the values are lost."""

        def write(pipeline: redis.client.Pipeline) -> None:
            for key, value in values.items():
                packed = self._mac(key, value) + value
                if len(packed) <= _MAX_BYTES:
                    pipeline.set(self._name(key), packed, ex=seconds)

        self._cache.execute(write)

    def claim(self, key: bytes, seconds: int) -> bool | None:
        """Whether this is the first claim of a key within `seconds`; None if Redis fails."""

        def write(pipeline: redis.client.Pipeline) -> None:
            pipeline.set(self._name(key), self._mac(key, b""), ex=seconds, nx=True)

        replies = self._cache.execute(write)
        if replies is None:
            return None
        (reply,) = replies
        if reply is None or reply is True:
            return reply is True
        self._cache.fail_odd_reply()
        return None

    def _unpack(self, key: bytes, packed: bytes) -> bytes | None:
        value = packed[_MAC_BYTES:]
        is_whole = hmac.compare_digest(packed[:_MAC_BYTES], self._mac(key, value))
        return value if is_whole else None

    def _name(self, key: bytes) -> bytes:
        return _PREFIX + self._cache.mac(b"name", self._purpose.ljust(16), key)

    def _mac(self, key: bytes, value: bytes) -> bytes:
        return self._cache.mac(b"mark", self._purpose.ljust(16), key, value)
