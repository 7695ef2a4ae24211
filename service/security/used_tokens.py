"""Remembers tokens that were used, so that none is accepted twice (replay protection)."""

import time
from collections import OrderedDict
from threading import Lock
from typing import Protocol

_MAX_ENTRIES = 100_000  # about 20 MB


class UsedTokens(Protocol):
    """Remembers tokens until they expire."""

    def claim(self, key: bytes, seconds: int) -> bool | None:
        """Whether this is the first claim of a key; None if that cannot be known now."""


class UsedTokensInMemory:
    """The tokens that this process has accepted. Safe to call from several threads."""

    def __init__(self, max_entries: int = _MAX_ENTRIES) -> None:
        self._max_entries = max_entries
        self._expiries: OrderedDict[bytes, float] = OrderedDict()
        self._lock = Lock()

    def claim(self, key: bytes, seconds: int) -> bool | None:
        """Whether this is the first claim of a key; None if too many tokens are remembered."""
        now = time.monotonic()
        with self._lock:
            if self._expiries.get(key, 0.0) > now:
                return False
            if len(self._expiries) >= self._max_entries:
                expired = [k for k, expiry in self._expiries.items() if expiry <= now]
                for k in expired:
                    del self._expiries[k]
                if not expired:
                    return None
            self._expiries[key] = now + seconds
        return True
