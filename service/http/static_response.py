"""Answers: documents that do not change while the service runs, and what is made for a request.

A client that takes gzip gets it, where it makes an answer smaller.
"""

import gzip
from collections.abc import Mapping
from typing import Final

import anyio.to_thread
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from schemas.manifest import sha256
from service.http.negotiation import JSON, accepts_gzip

CSV: Final = "text/csv"
MARKDOWN: Final = "text/markdown"
_SMALL_BYTES = 1024  # what is made for one request and is no larger is sent as it is
# Of an answer that is made once for many, and of one that is made for each request: 42 KB become
# 11 KB in 0.1 ms; the best level would make 10 KB of it in 0.6 ms.
_LEVEL, _FAST_LEVEL = 9, 1
_LONG_BYTES = 256 * 2**10  # more is packed in a thread


class Document:
    """Bytes, their type, and what headers say of them besides."""

    def __init__(
        self, content: bytes, media_type: str, headers: Mapping[str, str] | None = None
    ) -> None:
        self._media_type = media_type
        more = {"Cache-Control": "no-cache", "Vary": "Accept-Encoding"} | dict(headers or {})
        self._plain = (content, more | _tag(content))
        packed = gzip.compress(content, _LEVEL, mtime=0)
        self._packed = self._plain
        if len(packed) < len(content):
            self._packed = (packed, more | _tag(packed) | {"Content-Encoding": "gzip"})

    @classmethod
    def of(cls, listing: BaseModel) -> "Document":
        return cls(listing.model_dump_json(exclude_none=True).encode(), JSON)

    def response(self, request: Request) -> Response:
        """The document, or 304 if the client has it (RFC 9110, section 13.1.2)."""
        content, headers = self._packed if accepts_gzip(request.headers) else self._plain
        known = request.headers.get("if-none-match", "")
        tags = {tag.strip().removeprefix("W/") for tag in known.split(",")}
        if headers["ETag"] in tags or "*" in tags:
            kept = {name: value for name, value in headers.items() if name != "Content-Encoding"}
            return Response(status_code=304, headers=kept)
        return Response(content, headers=headers, media_type=self._media_type)


def _tag(content: bytes) -> dict[str, str]:
    return {"ETag": f'"{sha256(content)[:32]}"'}


async def json_response(request: Request, content: bytes) -> Response:
    """What was made for one request."""
    headers = {"Vary": "Accept-Encoding"}
    if len(content) > _SMALL_BYTES and accepts_gzip(request.headers):
        headers["Content-Encoding"] = "gzip"
        if len(content) > _LONG_BYTES:
            content = await anyio.to_thread.run_sync(_packed, content)
        else:
            content = _packed(content)
    return Response(content, headers=headers, media_type=JSON)


def _packed(content: bytes) -> bytes:
    return gzip.compress(content, _FAST_LEVEL, mtime=0)
