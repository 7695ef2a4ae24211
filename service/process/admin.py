"""The administration API (`/admin`), on its own port."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.http import error_handlers, problems
from service.http.allowed_hosts import ANY, LOOPBACK, AllowedHosts
from service.process.messages import WorkerReply
from service.settings import Settings

_BODY_BYTES = 64 * 2**10


class Reload(BaseModel):
    """`bundle`: folder of the bundle to serve. Default: reload the folder that is served."""

    model_config = ConfigDict(extra="forbid")

    bundle: str | None = Field(None, max_length=4096)


class Reloaded(BaseModel):
    """The bundle that all workers serve now."""

    model: str
    digest: str


def create_admin(
    reload: Callable[[Path | None], Awaitable[WorkerReply]], settings: Settings
) -> FastAPI:
    """The app of /admin. `reload` makes all workers serve another bundle."""
    app = FastAPI(title="M3H administration", openapi_url=None)
    error_handlers.install(app)
    names = [name for name in settings.allowed_hosts or () if name != ANY]
    hosts = AllowedHosts((*LOOPBACK, settings.admin_host, *names), settings.admin_host)
    app.add_middleware(AdminGuard, hosts=hosts)

    @app.post("/admin/reload")
    async def post_reload(command: Reload | None = None) -> Reloaded:
        """Loads and verifies a bundle beside the served one, then serves it.

        A bundle that fails is refused, and the old one is still served.
        """
        bundle = None if command is None else command.bundle
        reply = await reload(None if bundle is None else Path(bundle))
        if reply.fault and reply.retry:
            raise problems.not_ready(reply.fault)
        if reply.fault:
            raise problems.bundle_refused(reply.fault)
        return Reloaded(model=reply.model, digest=reply.digest)

    return app


class AdminGuard:
    """ASGI middleware that refuses requests which a web page could send from this machine.

    Without a CORS preflight, a page of another site can post a form or a body without a content
    type. Through a host name that resolves to 127.0.0.1 (DNS rebinding) it can post anything.
    """

    def __init__(self, app: ASGIApp, hosts: AllowedHosts) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refused = self._check(scope)
        if refused is None:
            await self._app(scope, receive, send)
        else:
            answer = problems.response(refused.problem, refused.headers)
            await answer(scope, receive, send)

    def _check(self, scope: Scope) -> problems.ProblemError | None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        try:
            if len(hosts) != 1 or not self._allows(hosts[0].encode("latin-1"), scope):
                return problems.host_not_allowed()
        except ValueError:
            return problems.invalid_host("is not a host name")
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2].lower() != hosts[0].lower():
            return problems.other_origin()
        return _check_body(headers) if scope["method"] == "POST" else None

    def _allows(self, host: bytes, scope: Scope) -> bool:
        """The host is allowed, or is the address of this connection. Raises ValueError."""
        address = (scope.get("server") or ("localhost",))[0]
        return self._hosts.allows(host) or AllowedHosts((address,), address).allows(host)


def _check_body(headers: Headers) -> problems.ProblemError | None:
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        return problems.unsupported_media_type()
    if "transfer-encoding" in headers:
        return problems.length_required()
    if int(headers.get("content-length", "0")) > _BODY_BYTES:
        return problems.too_large(_BODY_BYTES)
    return None
