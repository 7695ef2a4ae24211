"""What does not change while the service runs, served from memory with its entity tag."""

from collections.abc import Mapping
from typing import Final

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from schemas.manifest import sha256

JSON: Final = "application/json"
CSV: Final = "text/csv"
MARKDOWN: Final = "text/markdown"


class Document:
    """Bytes, their type, and what headers say of them besides."""

    def __init__(
        self, content: bytes, media_type: str, headers: Mapping[str, str] | None = None
    ) -> None:
        self._content = content
        self._media_type = media_type
        tag = {"ETag": f'"{sha256(content)[:32]}"', "Cache-Control": "no-cache"}
        self._headers = tag | dict(headers or {})

    @classmethod
    def of(cls, listing: BaseModel) -> "Document":
        return cls(listing.model_dump_json(exclude_none=True).encode(), JSON)

    def response(self, request: Request) -> Response:
        """The document, or 304 if the client has it (RFC 9110, section 13.1.2)."""
        known = request.headers.get("if-none-match", "")
        tags = {tag.strip().removeprefix("W/") for tag in known.split(",")}
        if self._headers["ETag"] in tags or "*" in tags:
            return Response(status_code=304, headers=self._headers)
        return Response(self._content, headers=self._headers, media_type=self._media_type)
