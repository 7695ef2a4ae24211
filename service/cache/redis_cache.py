"""The embedding cache in Redis, which all replicas share.

Redis may be slow, full, unreachable or emptied at any time. No prediction waits for it longer than
`timeout_seconds`, and none fails with it: failures are counted, and then Redis is not used for a
while. Redis is not trusted. Keys and entries are authenticated with a secret that only the replicas
have: a reader of Redis cannot test whether a note is cached, and a writer cannot forge an
embedding.
"""

import hashlib
import hmac
import socket
import struct
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore
from typing import Any, Literal

import numpy as np
import redis
from redis._parsers import _RESP2Parser

from schemas.response import Modality
from service.runtime.engine import Embedding
from service.telemetry.metrics import Metrics

RedisFault = Literal["slow", "error", "not_whole"]

_KEY_PREFIX = b"m3h:2:"  # with the version of the entry format
_UNUSUAL = struct.Struct("<f")
_MAC_BYTES = 32
_FIRST_PAUSE, _MAX_PAUSE = 1.0, 30.0  # seconds
_MAX_PENDING_WRITES = 1000  # entries beyond it are not written
_MAX_REPLY_OVERHEAD = 4096  # bytes of a reply in addition to its entry, such as an error text


class RedisCache:
    """Embeddings in Redis. Safe to call from several threads. Starts no thread before its use.

    `secret`: the same for all replicas; entries made with another secret are misses.
    `embedding_dims`: of the bundle. `entry_seconds`: time after which Redis drops an entry.
    """

    def __init__(
        self,
        url: str,
        secret: str,
        embedding_dims: Mapping[Modality, int],
        metrics: Metrics,
        *,
        timeout_seconds: float,
        entry_seconds: int,
    ) -> None:
        """Raises ValueError if `url` is not the URL of a Redis server."""
        self._client = redis.Redis.from_url(
            url,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            retry=None,
            protocol=2,
            parser_class=_limited_parser(max(map(_entry_bytes, embedding_dims.values()))),
        )
        self._secret = hashlib.sha512(secret.encode()).digest()
        self._embedding_dims, self._metrics = embedding_dims, metrics
        self._timeout_seconds, self._entry_seconds = timeout_seconds, entry_seconds
        self._pause, self._paused_until = _FIRST_PAUSE, 0.0
        # A thread, because looking up a host name can take seconds despite the socket's timeout.
        self._reader = ThreadPoolExecutor(1, "m3h-redis")
        self._writer = ThreadPoolExecutor(1, "m3h-redis-write")
        self._pending_writes = BoundedSemaphore(_MAX_PENDING_WRITES)

    def get(self, keys: Mapping[Modality, bytes]) -> dict[Modality, Embedding]:
        """The embeddings that Redis has for these keys; none after a failure or a timeout."""

        def read(pipeline: redis.client.Pipeline) -> None:
            for modality, key in keys.items():
                size = _entry_bytes(self._embedding_dims[modality])
                # An absent key is empty, and a value is cut off after one byte too many.
                pipeline.getrange(self._name(key), 0, size)

        values = self.execute(read)
        if values is None:
            return {}
        if not all(isinstance(value, bytes) for value in values):
            self.fail_odd_reply()
            return {}
        cached = {}
        for (modality, key), value in zip(keys.items(), values, strict=True):
            embedding = unpack_entry(self._secret, key, value, self._embedding_dims[modality])
            if embedding is not None:
                cached[modality] = embedding
            elif value:
                self._metrics.count_redis_failure("not_whole")
        return cached

    def execute(self, fill: Callable[[redis.client.Pipeline], None]) -> list[Any] | None:
        """The replies to the commands of a pipeline, in order; an error is a reply.

        None after a failure or a timeout, and while Redis is not used.
        """
        if not self._is_available():
            return None
        reading = self._reader.submit(self._execute, fill)
        try:
            replies = reading.result(self._timeout_seconds)
        except TimeoutError:
            reading.cancel()
            self._fail("slow")
            return None
        except Exception as error:  # noqa: BLE001 - an odd reply may raise anything
            self._fail("slow" if isinstance(error, redis.TimeoutError) else "error")
            return None
        self._pause = _FIRST_PAUSE
        return replies

    def _execute(self, fill: Callable[[redis.client.Pipeline], None]) -> list[Any]:
        pipeline = self._client.pipeline(transaction=False)
        fill(pipeline)
        return pipeline.execute(raise_on_error=False)

    def fail_odd_reply(self) -> None:
        """Counts a reply of the wrong type, and disconnects: the next one could be out of step."""
        self._disconnect()
        self._fail("error")

    def mac(self, purpose: bytes, *parts: bytes) -> bytes:
        """Authenticates `parts` with the secret. All parts but the last have a fixed length."""
        return _mac(self._secret, purpose, *parts)

    def put(self, key: bytes, embedding: Embedding) -> None:
        """Writes an entry later, in a thread. Drops it if too many are pending."""
        if not self._is_available():
            return
        if not self._pending_writes.acquire(blocking=False):
            self._metrics.count_redis_failure("slow")
            return
        self._writer.submit(self._write, key, embedding)

    def _write(self, key: bytes, embedding: Embedding) -> None:
        try:
            if self._is_available():
                value = pack_entry(self._secret, key, embedding)
                self._client.set(self._name(key), value, ex=self._entry_seconds)
        except Exception as error:  # noqa: BLE001 - an odd reply may raise anything
            self._fail("slow" if isinstance(error, redis.TimeoutError) else "error")
        finally:
            self._pending_writes.release()

    def close(self) -> None:
        """Ends the threads and connections. Pending writes are lost."""
        self._reader.shutdown(cancel_futures=True)
        self._writer.shutdown(cancel_futures=True)
        self._disconnect()

    def _name(self, key: bytes) -> bytes:
        """The key in Redis, which does not reveal the digest."""
        return _KEY_PREFIX + _mac(self._secret, b"key", key)

    def _is_available(self) -> bool:
        return time.monotonic() >= self._paused_until

    def _fail(self, fault: RedisFault) -> None:
        """Counts a failure and pauses the use of Redis, longer after each failure in a row."""
        self._metrics.count_redis_failure(fault)
        self._paused_until = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, _MAX_PAUSE)

    def _disconnect(self) -> None:
        self._client.connection_pool.disconnect()


# ----------------------------------------------------------------------------------------- entries


def pack_entry(secret: bytes, key: bytes, embedding: Embedding) -> bytes:
    """Encodes an entry: MAC of key and content, unusual score, vector; little-endian."""
    content = _UNUSUAL.pack(embedding.unusual) + embedding.vector.astype("<f4").tobytes()
    return _mac(secret, b"entry", key, content) + content


def unpack_entry(secret: bytes, key: bytes, value: bytes, dim: int) -> Embedding | None:
    """Decodes an entry of `dim` dimensions. None if it is incomplete or its MAC is wrong."""
    if len(value) != _entry_bytes(dim):
        return None
    mac, content = value[:_MAC_BYTES], value[_MAC_BYTES:]
    if not hmac.compare_digest(mac, _mac(secret, b"entry", key, content)):
        return None
    (unusual,) = _UNUSUAL.unpack_from(content)
    vector = np.frombuffer(content, "<f4", offset=_UNUSUAL.size).astype(np.float32)
    return Embedding(vector, unusual)


def _entry_bytes(dim: int) -> int:
    return _MAC_BYTES + _UNUSUAL.size + 4 * dim


def _mac(secret: bytes, purpose: bytes, *parts: bytes) -> bytes:
    """BLAKE2b keyed with the secret. All parts but the last have the length of a digest."""
    mac = hashlib.blake2b(key=secret, person=purpose, digest_size=_MAC_BYTES)
    for part in parts:
        mac.update(part)
    return mac.digest()


# ----------------------------------------------------------------------------------------- replies


class _LimitedSocket:
    """A socket of which at most `remaining` bytes can be received."""

    def __init__(self, connected: socket.socket, remaining: int) -> None:
        self._connected, self.remaining = connected, remaining

    def recv(self, size: int) -> bytes:
        """Raises redis.ConnectionError if the limit is reached. The rest is not received."""
        if self.remaining <= 0:
            raise redis.ConnectionError("the reply is longer than an entry")
        received = self._connected.recv(min(size, self.remaining))
        self.remaining -= len(received)
        return received

    def settimeout(self, seconds: float | None) -> None:
        self._connected.settimeout(seconds)


def _limited_parser(max_entry_bytes: int) -> type[_RESP2Parser]:
    """A parser of replies that receives little more than an entry.

    The parsers of redis-py have no limit: a server may announce and send any number of bytes.
    """
    limit = max_entry_bytes + _MAX_REPLY_OVERHEAD

    class LimitedParser(_RESP2Parser):
        def on_connect(self, connection: Any) -> None:
            super().on_connect(connection)  # type: ignore[no-untyped-call]  # it has no types
            buffer: Any = self._buffer
            limited = _LimitedSocket(buffer._sock, limit)  # noqa: SLF001 - no public name
            self._limited = buffer._sock = limited  # noqa: SLF001 - no public name

        def read_response(self, *args: Any, **kwargs: Any) -> Any:
            self._limited.remaining = limit
            return super().read_response(*args, **kwargs)

    return LimitedParser
