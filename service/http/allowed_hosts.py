"""Host names that requests may use in the Host header (RFC 9112, section 3.2).

In a DNS rebinding attack, a web page makes a browser send requests to the page's own host name,
which resolves to this machine. Such a request has the page's host name in its Host header.
"""

import re
from collections.abc import Sequence

ANY = "*"
LOOPBACK = ("localhost", "*.localhost", "127.0.0.1", "[::1]")
# Stricter than RFC 3986, which allows characters that no host name has.
_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~-]*)(?::[0-9]*)?")
_CACHE_SIZE = 64  # maximum number of Host values with a cached result


class AllowedHosts:
    """Allowed host names, without ports.

    `*.example.org` allows all subdomains of example.org, `*` allows all names. Without `names`,
    the names of this machine are allowed if `address`, which the service listens on, is a loopback
    address, and otherwise all names.
    """

    def __init__(self, names: Sequence[str] | None, address: str) -> None:
        if not names:
            names = (*LOOPBACK, address) if _is_loopback(address) else (ANY,)
        self._names = frozenset(map(_normalize, names))
        self._cache: dict[bytes, bool] = {}

    def allows(self, host: bytes) -> bool:
        """Whether a Host header is allowed. Raises ValueError if it is not valid."""
        allowed = self._cache.get(host)
        if allowed is None:
            match = _HOST.fullmatch(host)
            if match is None:
                raise ValueError("not a host")
            allowed = self._matches(_normalize(match[1].decode()))
            if len(self._cache) < _CACHE_SIZE:
                self._cache[host] = allowed
        return allowed

    def _matches(self, name: str) -> bool:
        labels = name.split(".")
        wildcards = (f"*.{'.'.join(labels[at:])}" for at in range(1, len(labels)))
        return not self._names.isdisjoint((ANY, name, *wildcards))


def _is_loopback(address: str) -> bool:
    return address == "localhost" or address.startswith("127.") or address == "::1"


def _normalize(name: str) -> str:
    """Lower case, without a final dot; an IPv6 address is put in brackets."""
    name = name.strip().lower().removesuffix(".")
    return f"[{name}]" if name.count(":") > 1 and not name.startswith("[") else name
