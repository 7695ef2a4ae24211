"""Admission of prediction requests by their headers, before their body is read."""

from collections.abc import Sequence

from fastapi import Request

from service.http import problems
from service.http.negotiation import JSON
from service.http.request_parsing import declared_body_size, parse_scheduling, read_body
from service.prediction.jobs import Job, Options, ParsedJob, PreparedJob
from service.prediction.scheduling.batcher import Admission, Batcher
from service.prediction.scheduling.lane import Priority
from service.runtime.engine import Engine
from service.settings import Settings
from service.telemetry.spans import SPAN_KEY, Span

PredictionBatcher = Batcher[Job, ParsedJob, PreparedJob]


class RequestAdmission:
    """Admits the requests for one engine, and reads their bodies."""

    def __init__(self, engine: Engine, batcher: PredictionBatcher, settings: Settings) -> None:
        self._engine, self._batcher, self._settings = engine, batcher, settings

    def admit(
        self, request: Request, default: Priority, media_types: Sequence[str] = (JSON,)
    ) -> Admission:
        """Admits a request with one of the media types. Raises ProblemError."""
        if not self._engine.verified:
            raise problems.not_ready("the golden answers have not been verified yet")
        headers = parse_scheduling(request)
        size = declared_body_size(request, self._settings.max_body_bytes, media_types)
        deadline_ms = headers.deadline_ms or self._settings.deadline_ms
        return self._batcher.admit(headers.priority or default, size, deadline_ms)

    def request_span(self, request: Request, options: Options, call: Admission) -> Span | None:
        """The span of the request with its attributes, if the request is traced."""
        span: Span | None = request.scope.get(SPAN_KEY)
        if span is not None:
            span.attributes |= {
                "m3h.bundle.digest": self._engine.bundle.digest,
                "m3h.explain": options.explain,
                "m3h.priority": call.priority,
            }
        return span

    async def read(self, request: Request, call: Admission) -> bytes:
        """The whole body. Raises as `read_body`."""
        return await read_body(request, self._settings.max_body_bytes, call)
