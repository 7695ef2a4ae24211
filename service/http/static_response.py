"""Responses: static content with an ETag, and JSON made for one request.

A response is compressed with gzip if the client accepts it and the result is smaller.
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
_MIN_GZIP_BYTES = 1024  # JSON up to this size is not compressed
# Level 1 compresses 42 KB to 11 KB in 0.1 ms, level 9 to 10 KB in 0.6 ms.
_STATIC_LEVEL, _FAST_LEVEL = 9, 1
_THREAD_BYTES = 256 * 2**10  # above this size, compression runs in a thread


class StaticResponse:
    """Content that does not change while the service runs. Compressed once, when it is made."""

    def __init__(
        self, content: bytes, media_type: str, headers: Mapping[str, str] | None = None
    ) -> None:
        self._media_type = media_type
        common = {"Cache-Control": "no-cache", "Vary": "Accept-Encoding"} | dict(headers or {})
        self._plain = (content, common | _etag(content))
        compressed = gzip.compress(content, _STATIC_LEVEL, mtime=0)
        self._compressed = self._plain
        if len(compressed) < len(content):
            gzip_headers = common | _etag(compressed) | {"Content-Encoding": "gzip"}
            self._compressed = (compressed, gzip_headers)

    @classmethod
    def from_model(cls, model: BaseModel) -> "StaticResponse":
        return cls(model.model_dump_json(exclude_none=True).encode(), JSON)

    def response(self, request: Request) -> Response:
        """The content, or 304 if If-None-Match has its ETag (RFC 9110, section 13.1.2)."""
        content, headers = self._compressed if accepts_gzip(request.headers) else self._plain
        if_none_match = request.headers.get("if-none-match", "")
        tags = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
        if headers["ETag"] in tags or "*" in tags:
            unencoded = {name: v for name, v in headers.items() if name != "Content-Encoding"}
            return Response(status_code=304, headers=unencoded)
        return Response(content, headers=headers, media_type=self._media_type)


def _etag(content: bytes) -> dict[str, str]:
    return {"ETag": f'"{sha256(content)[:32]}"'}


async def json_response(request: Request, content: bytes, media_type: str = JSON) -> Response:
    """A JSON response that was made for one request."""
    headers = {"Vary": "Accept-Encoding"}
    if len(content) > _MIN_GZIP_BYTES and accepts_gzip(request.headers):
        headers["Content-Encoding"] = "gzip"
        if len(content) > _THREAD_BYTES:
            content = await anyio.to_thread.run_sync(_compress, content)
        else:
            content = _compress(content)
    return Response(content, headers=headers, media_type=media_type)


def _compress(content: bytes) -> bytes:
    return gzip.compress(content, _FAST_LEVEL, mtime=0)
