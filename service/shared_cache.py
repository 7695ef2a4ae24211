"""The cache that all replicas share: Redis, which may be slow, full, lost or emptied at any time.

No answer waits for it longer than `seconds`, and none fails with it: whatever goes wrong is
counted, and Redis is left alone for a while. What it gives is taken only if it is whole, of this
version, and was put under this very key.
"""

import hashlib
import struct
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooSlow
from queue import Full, Queue
from threading import Thread
from typing import Literal

import numpy as np
import redis

from schemas.response import Modality
from service.engine import Embedded
from service.metrics import Metrics

Fault = Literal["slow", "error", "not_whole"]

_PREFIX = b"m3h:1:"  # of keys, with the version of the entries
_UNUSUAL = struct.Struct("<f")
_CHECKSUM = 16  # bytes
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0  # seconds
_WAITING = 1000  # entries that are still to be written; more are not kept


class SharedCache:
    """For one thread. `widths`: of the embeddings, as the bundle says."""

    def __init__(
        self,
        url: str,
        widths: Mapping[Modality, int],
        metrics: Metrics,
        *,
        seconds: float,
        keep_seconds: int,
    ) -> None:
        """Raises ValueError if that is no URL of a Redis."""
        self._client = redis.Redis.from_url(
            url, socket_timeout=seconds, socket_connect_timeout=seconds, retry=None
        )
        self._widths, self._metrics = widths, metrics
        self._seconds, self._keep_seconds = seconds, keep_seconds
        self._pause, self._closed_until = _FIRST_PAUSE, 0.0
        # Even to look up a host's name can take seconds, whatever the socket's timeout.
        self._reader = ThreadPoolExecutor(1, "m3h-redis")
        self._writing: Queue[tuple[bytes, bytes] | None] = Queue(_WAITING)
        Thread(target=self._write, name="m3h-redis-write", daemon=True).start()

    def get(self, keys: Mapping[Modality, bytes]) -> dict[Modality, Embedded]:
        """What is there of these; nothing while Redis is left alone."""
        if not self._open():
            return {}
        asked = self._reader.submit(self._client.mget, [_PREFIX + key for key in keys.values()])
        try:
            values = asked.result(self._seconds)
        except TooSlow:
            asked.cancel()
            self._fail("slow")
            return {}
        except (redis.RedisError, OSError) as error:
            self._fail("slow" if isinstance(error, redis.TimeoutError) else "error")
            return {}
        self._pause = _FIRST_PAUSE
        found = {}
        for (modality, key), value in zip(keys.items(), values, strict=True):
            if isinstance(value, bytes):
                made = unpack(key, value, self._widths[modality])
                if made is None:
                    self._metrics.redis_failed("not_whole")
                else:
                    found[modality] = made
        return found

    def put(self, key: bytes, made: Embedded) -> None:
        """Some time later; not at all if Redis does not keep up."""
        if self._open():
            try:
                self._writing.put_nowait((key, pack(key, made)))
            except Full:
                self._metrics.redis_failed("slow")

    def close(self) -> None:
        self._writing.put(None)
        self._reader.shutdown(wait=False, cancel_futures=True)

    def _write(self) -> None:
        while (entry := self._writing.get()) is not None:
            if not self._open():
                continue
            key, value = entry
            try:
                self._client.set(_PREFIX + key, value, ex=self._keep_seconds)
            except (redis.RedisError, OSError) as error:
                self._fail("slow" if isinstance(error, redis.TimeoutError) else "error")

    def _open(self) -> bool:
        return time.monotonic() >= self._closed_until

    def _fail(self, fault: Fault) -> None:
        self._metrics.redis_failed(fault)
        self._closed_until = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)


def pack(key: bytes, made: Embedded) -> bytes:
    """An entry: checksum (with the key), how unusual it is, the embedding; little-endian."""
    content = _UNUSUAL.pack(made.unusual) + made.embedding.astype("<f4").tobytes()
    return _checksum(key, content) + content


def unpack(key: bytes, value: bytes, width: int) -> Embedded | None:
    """None if it is not what was put under this key, whole."""
    checksum, content = value[:_CHECKSUM], value[_CHECKSUM:]
    if len(content) != _UNUSUAL.size + 4 * width or checksum != _checksum(key, content):
        return None
    (unusual,) = _UNUSUAL.unpack_from(content)
    embedding = np.frombuffer(content, "<f4", offset=_UNUSUAL.size).astype(np.float32)
    return Embedded(embedding, unusual)


def _checksum(key: bytes, content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_CHECKSUM, key=key).digest()
