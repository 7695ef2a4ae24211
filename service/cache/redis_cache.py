"""The cache that all replicas share: Redis, which may be slow, full, lost or emptied at any time.

No prediction waits for Redis longer than `seconds`, and none fails with it: what goes wrong is
counted, and Redis is left alone for a while. Redis is not trusted. Keys and entries are
authenticated with a secret that only the replicas have: whoever reads Redis cannot test whether a
note is known, and whoever writes to it cannot forge an embedding.
"""

import hashlib
import hmac
import socket
import struct
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooSlow
from threading import BoundedSemaphore
from typing import Any, Literal

import numpy as np
import redis
from redis._parsers import _RESP2Parser

from schemas.response import Modality
from service.runtime.engine import Embedded
from service.telemetry.metrics import Metrics

Fault = Literal["slow", "error", "not_whole"]

_PREFIX = b"m3h:2:"  # of keys, with the version of the entries
_UNUSUAL = struct.Struct("<f")
_MAC = 32  # bytes
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0  # seconds
_WAITING = 1000  # entries that are still to be written; more are not kept
_LONGEST_LINE = 4096  # bytes of a reply beside its entry: an error's text


class SharedCache:
    """Embeddings in Redis. Safe to call from several threads; starts none before it is used.

    `secret`: the same for all replicas; entries that were made with another one are misses.
    `widths`: of the embeddings, as the bundle says.
    """

    def __init__(
        self,
        url: str,
        secret: str,
        widths: Mapping[Modality, int],
        metrics: Metrics,
        *,
        seconds: float,
        keep_seconds: int,
    ) -> None:
        """Raises ValueError if `url` is no URL of a Redis."""
        self._client = redis.Redis.from_url(
            url,
            socket_timeout=seconds,
            socket_connect_timeout=seconds,
            retry=None,
            protocol=2,
            parser_class=_parser(max(map(_size, widths.values()))),
        )
        self._secret = hashlib.sha512(secret.encode()).digest()
        self._widths, self._metrics = widths, metrics
        self._seconds, self._keep_seconds = seconds, keep_seconds
        self._pause, self._closed_until = _FIRST_PAUSE, 0.0
        # Even to look up a host's name can take seconds, whatever the socket's timeout.
        self._reader = ThreadPoolExecutor(1, "m3h-redis")
        self._writer = ThreadPoolExecutor(1, "m3h-redis-write")
        self._free = BoundedSemaphore(_WAITING)

    def get(self, keys: Mapping[Modality, bytes]) -> dict[Modality, Embedded]:
        """What Redis has of these; nothing while it is left alone."""
        if not self._open():
            return {}
        asked = self._reader.submit(self._read, keys)
        try:
            values = asked.result(self._seconds)
        except TooSlow:
            asked.cancel()
            self._fail("slow")
            return {}
        except Exception as error:  # noqa: BLE001 - an odd reply may raise anything
            self._fail("slow" if isinstance(error, redis.TimeoutError) else "error")
            return {}
        if not all(isinstance(value, bytes) for value in values):
            self._drop_connections()  # what follows may answer something else
            self._fail("error")
            return {}
        self._pause = _FIRST_PAUSE
        found = {}
        for (modality, key), value in zip(keys.items(), values, strict=True):
            made = unpack(self._secret, key, value, self._widths[modality])
            if made is not None:
                found[modality] = made
            elif value:
                self._metrics.redis_failed("not_whole")
        return found

    def _read(self, keys: Mapping[Modality, bytes]) -> list[Any]:
        """Of each key, in order, no more than one byte beyond its entry; empty if there is none."""
        pipeline = self._client.pipeline(transaction=False)
        for modality, key in keys.items():
            pipeline.getrange(self._name(key), 0, _size(self._widths[modality]))
        return pipeline.execute(raise_on_error=False)

    def put(self, key: bytes, made: Embedded) -> None:
        """Some time later; not at all if Redis does not keep up."""
        if not self._open():
            return
        if not self._free.acquire(blocking=False):
            self._metrics.redis_failed("slow")
            return
        self._writer.submit(self._write, key, made)

    def _write(self, key: bytes, made: Embedded) -> None:
        try:
            if self._open():
                value = pack(self._secret, key, made)
                self._client.set(self._name(key), value, ex=self._keep_seconds)
        except Exception as error:  # noqa: BLE001 - an odd reply may raise anything
            self._fail("slow" if isinstance(error, redis.TimeoutError) else "error")
        finally:
            self._free.release()

    def close(self) -> None:
        """Ends the threads, if there are some, and the connections. What is not written is lost."""
        self._reader.shutdown(cancel_futures=True)
        self._writer.shutdown(cancel_futures=True)
        self._drop_connections()

    def _name(self, key: bytes) -> bytes:
        """The key in Redis: it does not tell whose digest it is."""
        return _PREFIX + _mac(self._secret, b"key", key)

    def _open(self) -> bool:
        return time.monotonic() >= self._closed_until

    def _fail(self, fault: Fault) -> None:
        self._metrics.redis_failed(fault)
        self._closed_until = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def _drop_connections(self) -> None:
        self._client.connection_pool.disconnect()


# ----------------------------------------------------------------------------------------- entries


def pack(secret: bytes, key: bytes, made: Embedded) -> bytes:
    """An entry: MAC (of key and content), how unusual it is, the embedding; little-endian."""
    content = _UNUSUAL.pack(made.unusual) + made.embedding.astype("<f4").tobytes()
    return _mac(secret, b"entry", key, content) + content


def unpack(secret: bytes, key: bytes, value: bytes, width: int) -> Embedded | None:
    """None if it is not what was put under this key with this secret, whole."""
    if len(value) != _size(width):
        return None
    mac, content = value[:_MAC], value[_MAC:]
    if not hmac.compare_digest(mac, _mac(secret, b"entry", key, content)):
        return None
    (unusual,) = _UNUSUAL.unpack_from(content)
    embedding = np.frombuffer(content, "<f4", offset=_UNUSUAL.size).astype(np.float32)
    return Embedded(embedding, unusual)


def _size(width: int) -> int:
    """Bytes of an entry."""
    return _MAC + _UNUSUAL.size + 4 * width


def _mac(secret: bytes, purpose: bytes, *parts: bytes) -> bytes:
    """BLAKE2b, keyed with the secret. All parts but the last have the length of a digest."""
    found = hashlib.blake2b(key=secret, person=purpose, digest_size=_MAC)
    for part in parts:
        found.update(part)
    return found.digest()


# ----------------------------------------------------------------------------------------- replies


class _Limited:
    """A socket that gives no more than `left` bytes."""

    def __init__(self, connected: socket.socket, left: int) -> None:
        self._connected, self.left = connected, left

    def recv(self, size: int) -> bytes:
        """Raises redis.ConnectionError once nothing is left: the rest is not read."""
        if self.left <= 0:
            raise redis.ConnectionError("the reply is longer than an entry")
        received = self._connected.recv(min(size, self.left))
        self.left -= len(received)
        return received

    def settimeout(self, seconds: float | None) -> None:
        self._connected.settimeout(seconds)


def _parser(largest: int) -> type[_RESP2Parser]:
    """A parser of replies that reads few bytes beyond an entry of `largest` bytes.

    Those of redis-py have no limit: a server may announce any number of bytes and send them.
    """
    most = largest + _LONGEST_LINE

    class Bounded(_RESP2Parser):
        def on_connect(self, connection: Any) -> None:
            super().on_connect(connection)  # type: ignore[no-untyped-call]  # it has no types
            buffer: Any = self._buffer
            self._limited = buffer._sock = _Limited(buffer._sock, most)  # noqa: SLF001 - no other way

        def read_response(self, *args: Any, **kwargs: Any) -> Any:
            self._limited.left = most
            return super().read_response(*args, **kwargs)

    return Bounded
