"""By which name a service is called: a page of another site must not reach it by its own name."""

import ipaddress
import re
from collections.abc import Collection

_NAME = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?", re.ASCII)


def host_name(header: str) -> str | None:
    """The name or address of a `Host` header: lower case, without port, brackets or final dot.

    None if it is none.
    """
    match = _NAME.fullmatch(header)
    return None if match is None else match["name"].strip("[]").removesuffix(".").lower()


def is_loopback(name: str) -> bool:
    """Whether a name is this machine's own, which nobody else can take."""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


def is_allowed(header: str, allowed: Collection[str]) -> bool:
    """Whether a `Host` header names this machine's loopback or one of the allowed, lower case."""
    name = host_name(header)
    return name is not None and (is_loopback(name) or name in allowed)
