"""Parses the query, the headers and the body of a prediction request."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.errors import DeadlineExceeded
from service.http import problems
from service.http.negotiation import JSON, is_unencoded, utf8_media_type
from service.prediction.jobs import Options
from service.prediction.scheduling.batcher import Admission
from service.prediction.scheduling.lane import Priority
from service.telemetry.spans import SPAN_KEY, child_span

MAX_DEADLINE_MS = 600_000
M = TypeVar("M", bound=BaseModel)
N = TypeVar("N", bytes, str)


class SchedulingHeaders(BaseModel):
    """The request headers that set the priority and the deadline of a prediction."""

    model_config = ConfigDict(frozen=True)

    priority: Priority | None = Field(
        None,
        alias="M3H-Priority",
        description="Bulk requests never delay urgent ones. Default: urgent, for a batch bulk",
    )
    deadline_ms: Annotated[
        int | None,
        Field(
            alias="M3H-Deadline-Ms",
            ge=1,
            le=MAX_DEADLINE_MS,
            description="Deadline in milliseconds. A request that cannot meet it gets 504",
        ),
    ] = None


_DEFAULT_OPTIONS, _DEFAULT_SCHEDULING = Options(), SchedulingHeaders()
_SCHEDULING_NAMES = [
    field.alias for field in SchedulingHeaders.model_fields.values() if field.alias is not None
]
# Headers that may be sent only once, because a second value would be ignored.
_SINGLE = {
    name.lower().encode(): name
    for name in ("Host", "Content-Type", "Content-Length", *_SCHEDULING_NAMES)
}


class StrictRoute(APIRoute):
    """A route that refuses repeated query parameters and headers."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            reject_repeated(request)
            return await handler(request)

        return strict


def reject_repeated(request: Request) -> None:
    """Raises ProblemError (422) for a repeated query parameter or single-valued header."""
    names = [name for name, _ in request.scope["headers"]]
    if len(set(names)) < len(names):
        single = [name for name in names if name in _SINGLE]
        _reject_duplicates(single, lambda name: _SINGLE[name])
    if request.scope["query_string"]:
        parameters = [name for name, _ in request.query_params.multi_items()]
        _reject_duplicates(parameters, problems.parameter_name)


def _reject_duplicates(names: Sequence[N], display_name: Callable[[N], str]) -> None:
    repeated = sorted(display_name(name) for name, n in Counter(names).items() if n > 1)
    if repeated:
        raise problems.repeated(repeated)


def parse_options(request: Request) -> Options:
    """The options in the query. Raises RequestValidationError.

    Parsed without FastAPI, as are the headers, because FastAPI takes longer for that than for the
    rest of its work.
    """
    if not request.scope["query_string"]:
        return _DEFAULT_OPTIONS
    return _validate(Options, dict(request.query_params), "query")


def parse_scheduling(request: Request) -> SchedulingHeaders:
    """The scheduling headers. Raises RequestValidationError."""
    headers = request.headers
    values = {name: headers[name] for name in _SCHEDULING_NAMES if name in headers}
    return _validate(SchedulingHeaders, values, "header") if values else _DEFAULT_SCHEDULING


def parse_query(model: type[M], request: Request) -> M:
    """The query parameters as a model. Raises RequestValidationError."""
    return _validate(model, dict(request.query_params), "query")


def _validate(model: type[M], values: dict[str, str], source: str) -> M:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        errors = error.errors(include_input=False, include_url=False)
        raise RequestValidationError(
            [{**fault, "loc": (source, *fault["loc"])} for fault in errors]
        ) from None


def declared_body_size(request: Request, limit: int, media_types: Sequence[str] = (JSON,)) -> int:
    """The Content-Length of a request, or 0 without one.

    Raises ProblemError if the body has none of the media types or is larger than `limit`.
    """
    headers = request.headers
    media_type = utf8_media_type(headers.get("content-type", ""))
    if media_type not in media_types or not is_unencoded(headers):
        raise problems.unsupported_media_type(media_types)
    length = headers.get("content-length", "")
    size = int(length) if length.isdecimal() else 0
    if size > limit:
        raise problems.too_large(limit, "M3H_MAX_BODY_BYTES")
    return size


async def read_body(request: Request, limit: int, call: Admission) -> bytes:
    """The whole body. Its bytes count towards M3H_QUEUE_BYTES as they arrive.

    Raises ProblemError if it is larger than `limit` bytes, DeadlineExceeded after the deadline,
    Overloaded if all bodies together are too large, ClientDisconnect if the client disconnects.
    """
    body = bytearray()
    with child_span(request.scope.get(SPAN_KEY), "read"):
        try:
            async with asyncio.timeout_at(call.deadline):
                async for chunk in request.stream():
                    call.reserve(len(chunk))
                    body += chunk
                    if len(body) > limit:
                        raise problems.too_large(limit, "M3H_MAX_BODY_BYTES")
        except TimeoutError:
            raise DeadlineExceeded from None
    return bytes(body)
