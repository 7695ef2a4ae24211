"""Which names a request may address the service by (RFC 9112, section 3.2).

A page of another site can make a browser send requests to a name of its own that resolves to this
machine (DNS rebinding). Such a request names the other site in its Host header.
"""

import re
from collections.abc import Sequence

ANY = "*"
LOOPBACK = ("localhost", "*.localhost", "127.0.0.1", "[::1]")
# Without the characters that RFC 3986 allows in a name and no name has.
_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~-]*)(?::[0-9]*)?")
_REMEMBERED = 64  # values of the header whose verdict is kept


class AllowedHosts:
    """Host names without a port; `*.example.org` has all names below example.org, `*` all names.

    `names`: without any, it depends on the address that the service listens on: a loopback
    address has the names of loopback, another address all names.
    """

    def __init__(self, names: Sequence[str] | None, address: str) -> None:
        if not names:
            names = (*LOOPBACK, address) if _is_loopback(address) else (ANY,)
        self._names = frozenset(map(_normal, names))
        self._remembered: dict[bytes, bool] = {}

    def allows(self, host: bytes) -> bool:
        """`host`: the value of a Host header. Raises ValueError if it is not valid."""
        allowed = self._remembered.get(host)
        if allowed is None:
            found = _HOST.fullmatch(host)
            if found is None:
                raise ValueError("not a host")
            allowed = self._has(_normal(found[1].decode()))
            if len(self._remembered) < _REMEMBERED:
                self._remembered[host] = allowed
        return allowed

    def _has(self, name: str) -> bool:
        labels = name.split(".")
        wider = (f"*.{'.'.join(labels[at:])}" for at in range(1, len(labels)))
        return not self._names.isdisjoint((ANY, name, *wider))


def _is_loopback(address: str) -> bool:
    return address == "localhost" or address.startswith("127.") or address == "::1"


def _normal(name: str) -> str:
    """In lower case, without a final dot; an IPv6 address in brackets."""
    name = name.strip().lower().removesuffix(".")
    return f"[{name}]" if name.count(":") > 1 and not name.startswith("[") else name
