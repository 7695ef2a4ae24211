"""ASGI middleware: request IDs, traces, access log, metrics, internal errors, CORS, HEAD.

It adds `Cache-Control: no-store` and `X-Content-Type-Options: nosniff` where the app does not.
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
from service.http.fhir.error_response import error_response
from service.http.probe_paths import LIVE, METRICS, READY
from service.telemetry.logging import stack_frames
from service.telemetry.metrics import Metrics
from service.telemetry.spans import SPAN_KEY

if TYPE_CHECKING:
    from service.telemetry.otlp import TraceExporter

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
# W3C Trace Context, version 00. All-zero ids are invalid.
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)
_NO_STORE = [(name.lower().encode(), value.encode()) for name, value in problems.NO_STORE.items()]
# CORS: headers that pages of allowed origins may send and read, in addition to the safelisted ones.
_ALLOWED_HEADERS = (
    "Authorization",
    "If-None-Match",
    "M3H-Deadline-Ms",
    "M3H-Priority",
    "traceparent",
    "X-Request-ID",
)
_EXPOSED_HEADERS = ("Content-Encoding", "ETag", "Retry-After", "traceparent", "X-Request-ID")
_PROBES = (LIVE, READY, METRICS)


class RequestTelemetryMiddleware:
    """Adds the request ID and the trace, logs and counts each request, answers internal errors.

    It records no query string, no body and no unknown path. `traces`: None if tracing is off.
    `cors`: the CORS middleware of the app, if it has one, for responses to internal errors.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        log: FilteringBoundLogger,
        traces: "TraceExporter | None",
        cors: Callable[[ASGIApp], ASGIApp] | None = None,
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._log = log
        self._traces = traces
        self._cors = cors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        headers = dict(scope["headers"])
        request_id = _match(headers.get(b"x-request-id"), _REQUEST_ID) or str(uuid.uuid4())
        trace, traced = _match(headers.get(b"traceparent"), _TRACEPARENT), None
        if self._traces is not None and scope["path"] not in _PROBES:
            traced = self._traces.start(trace)
        if traced is not None:
            scope[SPAN_KEY] = traced.span
            trace = trace or traced.traceparent
        trace = trace or _new_traceparent()
        ids = ((b"x-request-id", request_id.encode()), (b"traceparent", trace.encode()))
        status = 0

        async def send_with_ids(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                names = {name for name, _ in message["headers"]}
                missing = (pair for pair in _NO_STORE if pair[0] not in names)
                message["headers"] = [*message["headers"], *ids, *missing]
            await send(message)

        try:
            await self._app(scope, receive, send_with_ids)
        except Exception as error:  # noqa: BLE001 - logged without its message
            self._log.error(
                "unexpected",
                request_id=request_id,
                error=type(error).__name__,
                at=stack_frames(error),
            )
            if traced is not None:
                traced.span.error = type(error).__name__
            if not status:
                await self._send_internal_error(scope, receive, send_with_ids)
        finally:
            seconds = time.perf_counter() - started
            path = getattr(scope.get("route"), "path", None)
            route = path or "other"
            self._metrics.count_request(route, status, seconds)
            write = self._log.debug if route in _PROBES else self._log.info
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

    async def _send_internal_error(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer: ASGIApp = error_response(scope, problems.unexpected())
        if self._cors is not None:
            answer = self._cors(answer)
        await answer(scope, receive, send)


class HeadAsGet:
    """Answers HEAD like GET, without content (RFC 9110, section 9.3.2)."""

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
    """Answers 503 to a request that the server cancels after M3H_SHUTDOWN_SECONDS.

    The server cancels requests for no other reason.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def send_and_record(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, send_and_record)
        except asyncio.CancelledError:
            if not started:
                error = problems.shut_down()
                answer = error_response(scope, error.problem, error.headers)
                await answer(scope, receive, send)


def _match(header: bytes | None, pattern: re.Pattern[str]) -> str | None:
    """The value of a header if it matches the pattern."""
    text = "" if header is None else header.decode("latin-1")
    return text if pattern.fullmatch(text) else None


def _new_traceparent() -> str:
    return f"00-{uuid.uuid4().hex}-{secrets.token_hex(8)}-00"


class CrossOrigin(CORSMiddleware):
    """CORS: pages of other origins may call the service, without credentials (Fetch standard)."""

    @classmethod
    def of(cls, origins: Sequence[str]) -> Callable[[ASGIApp], ASGIApp] | None:
        """A function that wraps an app in this middleware. None without origins."""
        if not origins:
            return None
        return partial(
            cls,
            allow_origins=[origin.lower() for origin in origins],
            allow_methods=("GET", "HEAD", "POST"),
            allow_headers=_ALLOWED_HEADERS,
            expose_headers=_EXPOSED_HEADERS,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        answer = super().preflight_response(request_headers)
        if answer.status_code == 200:
            return answer
        return problems.response(problems.origin_not_allowed(), {"Vary": "Origin"})
