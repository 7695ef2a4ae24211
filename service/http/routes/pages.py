"""`GET /`, the dashboard, and `GET /docs`, the API documentation in Swagger UI.

Their files are built from `web/` and served from memory.
"""

import mimetypes
from collections.abc import Awaitable, Callable
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service.http.request_parsing import StrictRoute
from service.http.static_response import StaticResponse

# Content Security Policy Level 3: a page loads only what this service serves, and no inline code.
CONTENT_SECURITY_POLICY = (
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
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Referrer-Policy": "no-referrer",
}
_PAGES = {"index.html": "/", "docs.html": "/docs"}  # all other files are below /page


def routes(root_path: str | None = None) -> APIRouter:
    """`GET /`, `GET /docs`, and the files of both below `/page`.

    `root_path`: prefix of the files' URLs.
    """
    router = APIRouter(include_in_schema=False, route_class=StrictRoute)
    for path, static in _static_files(root_path).items():
        router.add_api_route(path, _endpoint(static))
    return router


def _endpoint(static: StaticResponse) -> Callable[[Request], Awaitable[Response]]:
    async def get(request: Request) -> Response:
        return static.response(request)

    return get


@cache
def _static_files(root_path: str | None) -> dict[str, StaticResponse]:
    """The responses by path. Cached, because compression takes a tenth of a second."""
    responses: dict[str, StaticResponse] = {}

    def add_folder(folder: Traversable, path: str) -> None:
        for entry in folder.iterdir():
            if entry.is_dir():
                add_folder(entry, f"{path}/{entry.name}")
            else:
                page = _PAGES.get(entry.name, f"{path}/{entry.name}")
                responses[page] = _static_file(entry, root_path)

    add_folder(files("service") / "page", "/page")
    return responses


def _static_file(file: Traversable, root_path: str | None) -> StaticResponse:
    media_type = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    content = file.read_bytes()
    if media_type == "text/html" and root_path:
        # A relative URL would be wrong if the page is requested without its final slash.
        content = content.replace(b'="page/', f'="{root_path}/page/'.encode())
    return StaticResponse(content, media_type, _HEADERS)
