"""What a client sends and takes, by its headers: media types, charsets and content codings."""

from collections.abc import Sequence
from typing import Final

from starlette.datastructures import Headers

JSON: Final = "application/json"
# JSON is UTF-8 (RFC 8259, section 8.1). ASCII is part of it; "utf8" is a label that clients send.
_CHARSETS = ("utf-8", "utf8", "us-ascii", "ascii")


def is_json(content_type: str) -> bool:
    """Whether the value of a Content-Type header means JSON in UTF-8 (RFC 9110, section 8.3)."""
    media_type, *parameters = content_type.lower().split(";")
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        charset = value.strip().strip('"').strip().replace("_", "-")
        if name.strip() == "charset" and charset not in _CHARSETS:
            return False
    return media_type.strip() == JSON


def is_uncoded(headers: Headers) -> bool:
    """Whether a body is sent without a content coding."""
    codings = ",".join(headers.getlist("content-encoding")).lower().split(",")
    return all(coding.strip() in ("", "identity") for coding in codings)


def accepts_gzip(headers: Headers) -> bool:
    """Whether the client takes gzip, and does not prefer the answer as it is (RFC 9110, 12.5.3)."""
    accepted = _weights(headers, "accept-encoding")
    if not accepted:
        return False
    other = accepted.get("*")
    identity = accepted.get("identity", other)
    # Who only says that it does not take an answer as it is takes a coding that all know.
    unnamed = 1.0 if identity == 0 and other is None else other or 0.0
    gzip = accepted.get("gzip", accepted.get("x-gzip", unnamed))
    return gzip > 0 and gzip >= (identity or 0.0)


def preferred(headers: Headers, media_types: Sequence[str]) -> str:
    """The media type that the client prefers; of those alike, and if it takes none, the first.

    The most specific range counts (RFC 9110, section 12.5.1).
    """
    accepted = _weights(headers, "accept")

    def weight(media_type: str) -> float:
        ranges = (media_type, f"{media_type.partition('/')[0]}/*", "*/*")
        return next((accepted[name] for name in ranges if name in accepted), 0.0)

    return max(media_types, key=weight)


def _weights(headers: Headers, name: str) -> dict[str, float]:
    """What a header lists, in lower case, each with its weight. What has no valid weight is left
    out, and so are parameters of media types.
    """
    found = {}
    for part in ",".join(headers.getlist(name)).lower().split(","):
        entry, *parameters = (piece.strip() for piece in part.split(";"))
        weights = [value.strip() for key, _, value in map(_pair, parameters) if key == "q"]
        weight = _weight(weights[0]) if weights else 1.0
        if entry and weight is not None:
            found[entry] = weight
    return found


def _pair(parameter: str) -> tuple[str, str, str]:
    name, equals, value = parameter.partition("=")
    return name.strip(), equals, value


def _weight(text: str) -> float | None:
    """From 0 to 1, with three decimals at most (RFC 9110, section 12.4.2)."""
    whole, _, decimals = text.partition(".")
    if whole not in ("0", "1") or len(decimals) > 3 or not (decimals or "0").isdecimal():
        return None
    weight = float(f"{whole}.{decimals or 0}")
    return weight if weight <= 1 else None
