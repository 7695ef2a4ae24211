"""What a request says, read before anything is computed: its options, its terms, its body."""

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
from service.http.negotiation import is_json, is_uncoded
from service.prediction.batcher import Admission
from service.prediction.jobs import Options
from service.prediction.lane import Priority
from service.telemetry.spans import STAGE, within

LONGEST_MS = 600_000
M = TypeVar("M", bound=BaseModel)
N = TypeVar("N", bytes, str)


class Terms(BaseModel):
    """How soon a prediction is needed, by the headers of its request."""

    model_config = ConfigDict(frozen=True)

    priority: Priority | None = Field(
        None, alias="M3H-Priority", description="Bulk never delays urgent; default: urgent for one"
    )
    deadline_ms: Annotated[
        int | None,
        Field(
            alias="M3H-Deadline-Ms",
            ge=1,
            le=LONGEST_MS,
            description="Milliseconds after which the answer is of no use",
        ),
    ] = None


_OPTIONS, _TERMS = Options(), Terms()
_TERM_NAMES = [field.alias for field in Terms.model_fields.values() if field.alias is not None]
# Headers that mean one thing: of two of a name, one would be ignored.
_SINGLE = {
    name.lower().encode(): name for name in ("Host", "Content-Type", "Content-Length", *_TERM_NAMES)
}


class StrictRoute(APIRoute):
    """A route that refuses what is given twice."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            refuse_repeated(request)
            return await handler(request)

        return strict


def refuse_repeated(request: Request) -> None:
    """Raises Refused (422) for a query parameter, or a header that means one thing, given twice."""
    names = [name for name, _ in request.scope["headers"]]
    if len(set(names)) < len(names):
        single = [name for name in names if name in _SINGLE]
        _refuse_second(single, lambda name: _SINGLE[name])
    if request.scope["query_string"]:
        given = [name for name, _ in request.query_params.multi_items()]
        _refuse_second(given, problems.parameter_name)


def _refuse_second(given: Sequence[N], named: Callable[[N], str]) -> None:
    repeated = sorted(named(name) for name, count in Counter(given).items() if count > 1)
    if repeated:
        raise problems.repeated(repeated)


def options_of(request: Request) -> Options:
    """Read by hand, as are the headers: FastAPI takes longer for it than for all else it does.

    Raises RequestValidationError.
    """
    if not request.scope["query_string"]:
        return _OPTIONS
    return _valid(Options, dict(request.query_params), "query")


def terms_of(request: Request) -> Terms:
    """Raises RequestValidationError."""
    headers = request.headers
    given = {name: headers[name] for name in _TERM_NAMES if name in headers}
    return _valid(Terms, given, "header") if given else _TERMS


def _valid(model: type[M], given: dict[str, str], place: str) -> M:
    try:
        return model.model_validate(given)
    except ValidationError as error:
        faults = error.errors(include_input=False, include_url=False)
        raise RequestValidationError(
            [{**fault, "loc": (place, *fault["loc"])} for fault in faults]
        ) from None


def body_size(request: Request, limit: int) -> int:
    """How large the body of a JSON request is to be, or 0 if that is not known.

    Raises Refused for another type, and beyond `limit`.
    """
    headers = request.headers
    if not is_json(headers.get("content-type", "")) or not is_uncoded(headers):
        raise problems.unsupported_media_type()
    stated = headers.get("content-length", "")
    size = int(stated) if stated.isdecimal() else 0
    if size > limit:
        raise problems.too_large(limit)
    return size


async def read_body(request: Request, limit: int, call: Admission) -> bytes:
    """The whole body, whose bytes `call` holds as they arrive.

    Raises Refused beyond `limit` bytes, DeadlineExceeded after the call's deadline, Overloaded if
    all bodies together are too large, and ClientDisconnect if the client disconnects.
    """
    body = bytearray()
    with within(request.scope.get(STAGE), "read"):
        try:
            async with asyncio.timeout_at(call.deadline):
                async for chunk in request.stream():
                    call.reserve(len(chunk))
                    body += chunk
                    if len(body) > limit:
                        raise problems.too_large(limit)
        except TimeoutError:
            raise DeadlineExceeded from None
    return bytes(body)
