"""Pure functions on the head of a request."""

from collections.abc import Iterable

_UPGRADE_HEADERS = (b"upgrade", b"http2-settings")
HEAD_END = b"\r\n\r\n"


def strip_prefix(prefix: str | None, path: str) -> str:
    """The path without the prefix (M3H_ROOT_PATH). Other paths are unchanged."""
    if not prefix or not f"{path}/".startswith(f"{prefix}/"):
        return path
    return path[len(prefix) :] or "/"


def without_upgrade(
    method: bytes, url: bytes, version: str, headers: Iterable[tuple[bytes, bytes]]
) -> bytes:
    """The head without the headers of an upgrade (RFC 9110, section 7.8).

    `headers`: names in lower case.
    """
    lines = [b"%b %b HTTP/%b" % (method, url, version.encode())]
    for name, value in headers:
        if name == b"connection":
            options = [option.strip() for option in value.split(b",")]
            other = b", ".join(o for o in options if o.lower() not in _UPGRADE_HEADERS)
            lines.append(b"connection: " + other)
        elif name not in _UPGRADE_HEADERS:
            lines.append(name + b": " + value)
    return b"\r\n".join(lines) + HEAD_END
