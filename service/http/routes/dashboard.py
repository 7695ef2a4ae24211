"""The dashboard: files that are built from `web/`, served from memory under a strict policy."""

import mimetypes
from importlib.resources import files
from importlib.resources.abc import Traversable

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service.http.request_parsing import StrictRoute
from service.http.static_response import Document

# Content Security Policy Level 3: nothing but what this service itself serves, and no inline code.
POLICY = (
    "default-src 'none'; "
    "script-src 'self'; "
    "style-src 'self'; "
    "img-src 'self' data:; "
    "connect-src 'self'; "
    "base-uri 'none'; "
    "form-action 'none'; "
    "frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
}
_INDEX = "index.html"


def routes(root_path: str | None = None) -> APIRouter:
    """`GET /`, and what it loads below `/page`; the page asks for that below `root_path`."""
    found = APIRouter(include_in_schema=False, route_class=StrictRoute)

    def serve(path: str, entry: Traversable) -> None:
        media_type = mimetypes.guess_type(entry.name)[0] or "application/octet-stream"
        content = entry.read_bytes()
        if path == "/" and root_path:  # the address may end without a slash
            content = content.replace(b'="page/', f'="{root_path}/page/'.encode())
        document = Document(content, media_type, _HEADERS)

        @found.get(path)
        async def get(request: Request) -> Response:
            return document.response(request)

    def walk(folder: Traversable, path: str) -> None:
        for entry in folder.iterdir():
            if entry.is_dir():
                walk(entry, f"{path}/{entry.name}")
            else:
                serve("/" if entry.name == _INDEX else f"{path}/{entry.name}", entry)

    walk(files("service") / "page", "/page")
    return found
