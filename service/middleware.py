"""Around each request: its id and trace, its line in the log, its count, its last resort."""

import re
import secrets
import time
import uuid
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.typing import FilteringBoundLogger

from service import problems
from service.log import where
from service.metrics import Metrics
from service.stages import STAGE

if TYPE_CHECKING:
    from service.traces import Traces

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
# W3C Trace Context, version 00. All-zero ids are invalid.
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)
_QUIET = ("/health/live", "/health/ready", "/metrics")  # asked every few seconds by machines


class Observed:
    """ASGI middleware. Nothing of a query string, a body or an unknown path is written down.

    `traces`: None if nobody wants them.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, log: FilteringBoundLogger, traces: "Traces | None"
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._log = log
        self._traces = traces

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
                message["headers"] = [*message["headers"], *ids]
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
                answer = problems.response(problems.unexpected())
                await answer(scope, receive, send_with_ids)
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


def _taken(given: bytes | None, pattern: re.Pattern[str]) -> str | None:
    text = "" if given is None else given.decode("latin-1")
    return text if pattern.fullmatch(text) else None


def _new_trace() -> str:
    return f"00-{uuid.uuid4().hex}-{secrets.token_hex(8)}-00"
