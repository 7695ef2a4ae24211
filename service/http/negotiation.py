"""Content negotiation: media types, charsets and content codings in request headers."""

from collections.abc import Sequence
from typing import Final

from starlette.datastructures import Headers

JSON: Final = "application/json"
# JSON is UTF-8 (RFC 8259, section 8.1), and ASCII is a subset of it. Clients also send "utf8".
_CHARSETS = ("utf-8", "utf8", "us-ascii", "ascii")


def utf8_media_type(content_type: str) -> str:
    """The media type of a Content-Type header in lower case; empty if it is not in UTF-8.

    Source: RFC 9110, section 8.3.
    """
    media_type, *parameters = content_type.lower().split(";")
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        charset = value.strip().strip('"').strip().replace("_", "-")
        if name.strip() == "charset" and charset not in _CHARSETS:
            return ""
    return media_type.strip()


def is_unencoded(headers: Headers) -> bool:
    """Whether the body has no content coding."""
    codings = ",".join(headers.getlist("content-encoding")).lower().split(",")
    return all(coding.strip() in ("", "identity") for coding in codings)


def accepts_gzip(headers: Headers) -> bool:
    """Whether the client accepts gzip and does not prefer identity (RFC 9110, section 12.5.3)."""
    accepted = _weights(headers, "accept-encoding")
    if not accepted:
        return False
    other = accepted.get("*")
    identity = accepted.get("identity", other)
    # A client that only refuses identity accepts any common coding.
    unnamed = 1.0 if identity == 0 and other is None else other or 0.0
    gzip = accepted.get("gzip", accepted.get("x-gzip", unnamed))
    return gzip > 0 and gzip >= (identity or 0.0)


def accepts(headers: Headers, media_types: Sequence[str]) -> bool:
    """Whether the client accepts one of the media types (RFC 9110, section 12.5.1)."""
    accepted = _weights(headers, "accept")
    ranges = {r for t in media_types for r in (t, f"{t.partition('/')[0]}/*", "*/*")}
    return not accepted or any(accepted.get(name, 0.0) > 0 for name in ranges)


def preferred(headers: Headers, media_types: Sequence[str]) -> str:
    """The media type that the client prefers; the first if it prefers none or accepts none.

    The most specific range applies (RFC 9110, section 12.5.1).
    """
    accepted = _weights(headers, "accept")

    def weight(media_type: str) -> float:
        ranges = (media_type, f"{media_type.partition('/')[0]}/*", "*/*")
        return next((accepted[name] for name in ranges if name in accepted), 0.0)

    return max(media_types, key=weight)


def _weights(headers: Headers, name: str) -> dict[str, float]:
    """The values of a header, in lower case, with their weights.

    Values with an invalid weight are omitted, and so are the parameters of media types.
    """
    values = {}
    for part in ",".join(headers.getlist(name)).lower().split(","):
        entry, *parameters = (piece.strip() for piece in part.split(";"))
        weights = [value.strip() for key, _, value in map(_pair, parameters) if key == "q"]
        weight = _weight(weights[0]) if weights else 1.0
        if entry and weight is not None:
            values[entry] = weight
    return values


def _pair(parameter: str) -> tuple[str, str, str]:
    name, equals, value = parameter.partition("=")
    return name.strip(), equals, value


def _weight(text: str) -> float | None:
    """Parses a weight from 0 to 1 with at most three decimals (RFC 9110, section 12.4.2)."""
    whole, _, decimals = text.partition(".")
    if whole not in ("0", "1") or len(decimals) > 3 or not (decimals or "0").isdecimal():
        return None
    weight = float(f"{whole}.{decimals or 0}")
    return weight if weight <= 1 else None
