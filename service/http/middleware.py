"""Around each request: its id and trace, its line in the log, its count, its last resort.

No cache keeps an answer that does not say for how long; no browser takes one for what it is not.
"""

import asyncio
import re
import secrets
import time
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.typing import FilteringBoundLogger

from service.http import problems
from service.telemetry.logging import where
from service.telemetry.metrics import Metrics
from service.telemetry.spans import STAGE

if TYPE_CHECKING:
    from service.telemetry.otlp import Traces

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
# W3C Trace Context, version 00. All-zero ids are invalid.
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)
_UNCACHED = [(name.lower().encode(), value.encode()) for name, value in problems.UNCACHED.items()]
# What a page of another site may send and read, besides what it always may (Fetch, section 2.2.2).
_MAY_SEND = ("If-None-Match", "M3H-Deadline-Ms", "M3H-Priority", "traceparent", "X-Request-ID")
_MAY_READ = ("Content-Encoding", "ETag", "Retry-After", "traceparent", "X-Request-ID")
_QUIET = ("/health/live", "/health/ready", "/metrics")  # asked every few seconds by machines


class Observed:
    """ASGI middleware. Nothing of a query string, a body or an unknown path is written down.

    `traces`: None if nobody wants them. `cross_origin`: what is around the app, if anything is, for
    answers that the app does not give.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        log: FilteringBoundLogger,
        traces: "Traces | None",
        cross_origin: Callable[[ASGIApp], ASGIApp] | None = None,
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._log = log
        self._traces = traces
        self._cross_origin = cross_origin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        given = dict(scope["headers"])
        request_id = _taken(given.get(b"x-request-id"), _REQUEST_ID) or str(uuid.uuid4())
        trace, traced = _taken(given.get(b"traceparent"), _TRACEPARENT), None
        if self._traces is not None and scope["path"] not in _QUIET:
            traced = self._traces.begin(trace)
        if traced is not None:
            scope[STAGE] = traced.stage
            trace = trace or traced.traceparent
        trace = trace or _new_trace()
        ids = ((b"x-request-id", request_id.encode()), (b"traceparent", trace.encode()))
        status = 0

        async def send_with_ids(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                names = {name for name, _ in message["headers"]}
                more = (pair for pair in _UNCACHED if pair[0] not in names)
                message["headers"] = [*message["headers"], *ids, *more]
            await send(message)

        try:
            await self._app(scope, receive, send_with_ids)
        except Exception as error:  # noqa: BLE001 - the last resort; never silent, never an echo
            self._log.error(
                "unexpected", request_id=request_id, error=type(error).__name__, at=where(error)
            )
            if traced is not None:
                traced.stage.fault = type(error).__name__
            if not status:
                await self._answer(scope, receive, send_with_ids)
        finally:
            seconds = time.perf_counter() - started
            path = getattr(scope.get("route"), "path", None)
            route = path or "other"
            self._metrics.request(route, status, seconds)
            write = self._log.debug if route in _QUIET else self._log.info
            write(
                "request",
                request_id=request_id,
                trace=trace,
                route=route,
                status=status,
                ms=round(seconds * 1000, 3),
            )
            if traced is not None:
                traced.end(scope["method"], path, status)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer: ASGIApp = problems.response(problems.unexpected())
        if self._cross_origin is not None:
            answer = self._cross_origin(answer)
        await answer(scope, receive, send)


class HeadAsGet:
    """ASGI middleware. Answers HEAD as GET without the content (RFC 9110, section 9.3.2)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.body":
                message["body"] = b""
            await send(message)

        await self._app({**scope, "method": "GET"}, receive, send_head)


class AnswersCancelled:
    """ASGI middleware. A request that outlasts M3H_SHUTDOWN_SECONDS is cancelled by the server, by
    which nothing else is, and is answered by a 503.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def send_on(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, send_on)
        except asyncio.CancelledError:
            if not started:
                ended = problems.ended()
                await problems.response(ended.problem, ended.headers)(scope, receive, send)


def _taken(given: bytes | None, pattern: re.Pattern[str]) -> str | None:
    text = "" if given is None else given.decode("latin-1")
    return text if pattern.fullmatch(text) else None


def _new_trace() -> str:
    return f"00-{uuid.uuid4().hex}-{secrets.token_hex(8)}-00"


class CrossOrigin(CORSMiddleware):
    """Lets pages of other sites ask from a browser, without credentials (Fetch, section 3.3)."""

    @classmethod
    def of(cls, origins: Sequence[str]) -> Callable[[ASGIApp], ASGIApp] | None:
        """What is put around an app. Nothing if there are no origins."""
        if not origins:
            return None
        return partial(
            cls,
            allow_origins=[origin.lower() for origin in origins],
            allow_methods=("GET", "HEAD", "POST"),
            allow_headers=_MAY_SEND,
            expose_headers=_MAY_READ,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        answer = super().preflight_response(request_headers)
        if answer.status_code == 200:
            return answer
        return problems.response(problems.origin_not_allowed(), {"Vary": "Origin"})
