"""A cache of embeddings in memory, in front of an optional cache in Redis.

A hospital sends a patient again whenever a vital sign changes, mostly with the same notes and
X-rays. Keys are digests of the content as it was sent, and of the bundle. Only validated content is
cached, so that content with a known key needs no validation.
"""

import hashlib
import struct
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from threading import Lock
from typing import TYPE_CHECKING

from schemas.features import Array, FeatureSpec, notes_in_window, select_image
from schemas.payload import Payload
from schemas.response import Modality
from service.runtime.engine import Embedding
from service.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from service.cache.redis_cache import RedisCache

CacheKey = bytes
_ENTRY_OVERHEAD = 500  # bytes of an entry's key and Python objects, without its vector


class EmbeddingCache:
    """A least-recently-used cache of at most `max_bytes`. Safe to call from several threads."""

    def __init__(self, max_bytes: int, redis: "RedisCache | None", metrics: Metrics) -> None:
        self._max_bytes, self._redis, self._metrics = max_bytes, redis, metrics
        self._entries: OrderedDict[CacheKey, Embedding] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    @property
    def uses_redis(self) -> bool:
        return self._redis is not None

    def get(self, keys: Mapping[Modality, CacheKey]) -> dict[Modality, Embedding]:
        """The cached embeddings among these keys. Asks Redis for those that are not in memory."""
        cached = {}
        with self._lock:
            for modality, key in keys.items():
                if key in self._entries:
                    self._entries.move_to_end(key)
                    cached[modality] = self._entries[key]
        for modality in cached:
            self._metrics.count_embedding(modality, "memory")
        missing = {modality: key for modality, key in keys.items() if modality not in cached}
        if missing and self._redis is not None:
            for modality, embedding in self._redis.get(missing).items():
                self._store(missing[modality], embedding)
                self._metrics.count_embedding(modality, "redis")
                cached[modality] = embedding
        return cached

    def put(self, modality: Modality, key: CacheKey, embedding: Embedding) -> None:
        """Stores a computed embedding, also in Redis."""
        self._metrics.count_embedding(modality, "computed")
        self._store(key, embedding)
        if self._redis is not None:
            self._redis.put(key, embedding)

    def _store(self, key: CacheKey, embedding: Embedding) -> None:
        with self._lock:
            if key not in self._entries:
                self._bytes += embedding.vector.nbytes + _ENTRY_OVERHEAD
            self._entries[key] = embedding
            while self._bytes > self._max_bytes:
                _, oldest = self._entries.popitem(last=False)
                self._bytes -= oldest.vector.nbytes + _ENTRY_OVERHEAD

    def __contains__(self, key: CacheKey) -> bool:
        """Whether a key is in memory."""
        return key in self._entries


class CacheKeys:
    """Computes the cache keys of one bundle."""

    def __init__(self, bundle_digest: str, spec: FeatureSpec) -> None:
        self._spec = spec
        self._prefixes: dict[Modality, hashlib._Hash] = {}
        for modality in ("series", "notes", "image"):
            self._prefixes[modality] = hashlib.sha256(f"{bundle_digest} {modality}".encode())

    def content_keys(self, payload: Payload) -> dict[Modality, CacheKey]:
        """The keys of the notes and the image that are read, from their content as it was sent."""
        keys: dict[Modality, CacheKey] = {}
        if notes := notes_in_window(payload, self._spec):
            keys["notes"] = self._key("notes", (payload.notes[i].text.encode() for i in notes))
        selected = select_image(payload, self._spec)
        if selected is not None:
            image = payload.images[selected]
            keys["image"] = self._key("image", (image.media_type.encode(), image.data))
        return keys

    def series_key(self, arrays: Mapping[str, Array]) -> CacheKey:
        """The key of series and treatments, from their features, which also depend on `as_of`."""
        return self._key("series", (array.tobytes() for array in arrays.values()))

    def _key(self, modality: Modality, parts: Iterable[bytes]) -> CacheKey:
        digest = self._prefixes[modality].copy()
        for part in parts:
            digest.update(struct.pack("<Q", len(part)))
            digest.update(part)
        return digest.digest()
