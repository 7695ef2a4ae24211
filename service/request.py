"""What a request says, read before anything is computed: its options, its terms, its body."""

import asyncio
from typing import Annotated, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service import problems
from service.batcher import Priority
from service.documents import JSON
from service.predict import Options
from service.stages import STAGE, within

LONGEST_MS = 600_000
M = TypeVar("M", bound=BaseModel)


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
    """How large the body of a JSON request is, or at most may be. Raises Refused beyond `limit`."""
    media_type, _, parameters = request.headers.get("content-type", "").partition(";")
    charset = parameters.lower().replace(" ", "").replace('"', "")
    coding = request.headers.get("content-encoding", "identity")
    if (
        media_type.strip().lower() != JSON
        or charset not in ("", "charset=utf-8")
        or coding.lower() != "identity"
    ):
        raise problems.unsupported_media_type()
    stated = request.headers.get("content-length", "")
    size = int(stated) if stated.isdecimal() else limit
    if size > limit:
        raise problems.too_large(limit)
    return size


async def read_body(request: Request, limit: int, deadline: float) -> bytes:
    """The whole body. `deadline`: by the monotonic clock.

    Stops reading, and raises Refused, beyond `limit` bytes and when the time is over; raises
    ClientDisconnect if the caller hangs up.
    """
    body = bytearray()
    with within(request.scope.get(STAGE), "read"):
        try:
            async with asyncio.timeout_at(deadline):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > limit:
                        raise problems.too_large(limit)
        except TimeoutError:
            raise problems.late() from None
    return bytes(body)
