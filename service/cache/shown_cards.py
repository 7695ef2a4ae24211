"""Remembers which cards of CDS Hooks were shown, so that unchanged ones are not repeated.

Identities, which hold ids of patients and users, are stored as keyed digests only. After a failure
of Redis a card may be shown again; it is never withheld.
"""

import hashlib
import secrets
import struct
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from service.cache.redis_marks import RedisMarks

_MAX_ENTRIES = 20_000  # in memory, about 10 MB

State = Mapping[str, float]
Identity = tuple[str, ...]


class ShownCards:
    """The cards of the last `seconds`, in memory and in Redis if `marks` is given.

    Nothing is remembered if `seconds` is 0. Safe to call from several threads.
    """

    def __init__(self, seconds: int, marks: "RedisMarks | None") -> None:
        self._seconds, self._marks = seconds, marks
        self._secret = secrets.token_bytes(32)
        self._entries: OrderedDict[bytes, tuple[float, dict[str, float]]] = OrderedDict()
        self._lock = Lock()

    def get(self, identities: Sequence[Identity]) -> list[dict[str, float] | None]:
        """The state of each card that was shown; None for other cards."""
        if not self._seconds:
            return [None] * len(identities)
        if self._marks is not None:
            values = self._marks.get([_digest(b"", identity) for identity in identities])
            return [None if value is None else _unpack(value) for value in values]
        now = time.monotonic()
        with self._lock:
            entries = [self._entries.get(self._key(identity)) for identity in identities]
        return [None if entry is None or entry[0] <= now else entry[1] for entry in entries]

    def put(self, states: Mapping[Identity, State]) -> None:
        """Remembers the states of cards that are shown."""
        if not self._seconds or not states:
            return
        if self._marks is not None:
            packed = {
                _digest(b"", identity): orjson.dumps(dict(state))
                for identity, state in states.items()
            }
            self._marks.put(packed, self._seconds)
            return
        expires = time.monotonic() + self._seconds
        with self._lock:
            for identity, state in states.items():
                key = self._key(identity)
                self._entries[key] = (expires, dict(state))
                self._entries.move_to_end(key)
            while len(self._entries) > _MAX_ENTRIES:
                self._entries.popitem(last=False)

    def _key(self, identity: Identity) -> bytes:
        return _digest(self._secret, identity)


def _digest(secret: bytes, identity: Identity) -> bytes:
    """The digest of the parts with their lengths."""
    digest = hashlib.blake2b(key=secret, digest_size=32)
    for part in identity:
        content = part.encode()
        digest.update(struct.pack("<Q", len(content)) + content)
    return digest.digest()


def _unpack(value: bytes) -> dict[str, float] | None:
    """The state in Redis. None if it is of another form, which only another version writes."""
    try:
        state = orjson.loads(value)
    except ValueError:
        return None
    if not isinstance(state, dict):
        return None
    return {name: p for name, p in state.items() if isinstance(p, float | int)}
