"""What encoders made of content that comes again: kept in memory and, if there is one, in Redis.

A hospital sends a patient anew whenever a vital sign changes; notes and X-rays are the same as an
hour ago. What was made of them is found by the digest of the content as it was sent, and of the
bundle. Only content that was read and checked gets in, so that what is found need not be read.
"""

import hashlib
import struct
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from threading import Lock
from typing import TYPE_CHECKING

from schemas.features import Array, FeatureSpec, film_read, notes_in_window
from schemas.payload import Payload
from schemas.response import Modality
from service.runtime.engine import Embedded
from service.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from service.cache.redis_cache import SharedCache

Key = bytes
# An entry's key, its place in the order, and the objects that hold it, beside the numbers.
_OVERHEAD = 500


class Cache:
    """Least recently used goes first, beyond `most_bytes`. Safe to call from several threads.

    `shared`: whether Redis is asked for what is not in memory.
    """

    def __init__(self, most_bytes: int, shared: "SharedCache | None", metrics: Metrics) -> None:
        self._most_bytes, self._shared, self._metrics = most_bytes, shared, metrics
        self._entries: OrderedDict[Key, Embedded] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()
        self.shared = shared is not None

    def get(self, keys: Mapping[Modality, Key]) -> dict[Modality, Embedded]:
        """What is known of these."""
        found = {}
        with self._lock:
            for modality, key in keys.items():
                if key in self._entries:
                    self._entries.move_to_end(key)
                    found[modality] = self._entries[key]
        for modality in found:
            self._metrics.cached(modality, "memory")
        missing = {modality: key for modality, key in keys.items() if modality not in found}
        if missing and self._shared is not None:
            for modality, made in self._shared.get(missing).items():
                self._keep(missing[modality], made)
                self._metrics.cached(modality, "redis")
                found[modality] = made
        return found

    def put(self, modality: Modality, key: Key, made: Embedded) -> None:
        self._metrics.cached(modality, "computed")
        self._keep(key, made)
        if self._shared is not None:
            self._shared.put(key, made)

    def _keep(self, key: Key, made: Embedded) -> None:
        with self._lock:
            if key not in self._entries:
                self._bytes += made.embedding.nbytes + _OVERHEAD
            self._entries[key] = made
            while self._bytes > self._most_bytes:
                _, oldest = self._entries.popitem(last=False)
                self._bytes -= oldest.embedding.nbytes + _OVERHEAD

    def __contains__(self, key: Key) -> bool:
        return key in self._entries


class Keys:
    """The keys of content, for one bundle, and its spec."""

    def __init__(self, bundle: str, spec: FeatureSpec) -> None:
        self._spec = spec
        self._of: dict[Modality, hashlib._Hash] = {}
        for modality in ("series", "notes", "image"):
            self._of[modality] = hashlib.sha256(f"{bundle} {modality}".encode())

    def of_content(self, payload: Payload) -> dict[Modality, Key]:
        """Of the notes and the film that are read, as they were sent: all they depend on."""
        found: dict[Modality, Key] = {}
        if notes := notes_in_window(payload, self._spec):
            found["notes"] = self._key("notes", (payload.notes[i].text.encode() for i in notes))
        film = film_read(payload, self._spec)
        if film is not None:
            image = payload.images[film]
            found["image"] = self._key("image", (image.media_type.encode(), image.data))
        return found

    def of_series(self, arrays: Mapping[str, Array]) -> Key:
        """Of series and treatments, by what was read of them: that depends on `as_of`, too."""
        return self._key("series", (array.tobytes() for array in arrays.values()))

    def _key(self, modality: Modality, parts: Iterable[bytes]) -> Key:
        digest = self._of[modality].copy()
        for part in parts:
            digest.update(struct.pack("<Q", len(part)))
            digest.update(part)
        return digest.digest()
