"""`GET /tim`: the task interaction matrix, whole or one row, as JSON or CSV."""

import csv
import io
from difflib import get_close_matches
from functools import lru_cache
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from schemas.tim import Tim
from service.http import openapi, problems
from service.http.negotiation import JSON, preferred
from service.http.request_parsing import StrictRoute
from service.http.static_response import CSV, StaticResponse
from service.runtime.bundle import Bundle

_SUGGESTIONS = 5  # maximum number of similar task names in a problem


class TimQuery(BaseModel):
    """Query parameters of `GET /tim`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str | None = Field(None, description="Return only the row of this task")
    top: Annotated[
        int | None,
        Field(ge=1, description="Return only the cells of the row with the largest absolute value"),
    ] = None


def routes(bundle: Bundle) -> APIRouter:
    router = APIRouter(tags=["model"], route_class=StrictRoute)
    responses = None if bundle.tim is None else TimResponses(bundle.tim, bundle.digest)

    @router.get(
        "/tim",
        summary="How learning one task helps another",
        response_model=Tim,
        responses=openapi.merge(*_examples(bundle.tim), openapi.problems(404, 422)),
    )
    async def get_tim(request: Request, query: Annotated[TimQuery, Query()]) -> Response:
        """`source` selects the row of the task that is helped, `top` the row's largest cells.

        With `Accept: text/csv` the response has one line per cell.
        """
        if responses is None:
            raise problems.not_in_bundle("TIM")
        return responses.response(request, query)

    return router


def _examples(tim: Tim | None) -> list[dict[int | str, dict[str, Any]]]:
    """The two largest cells of the first row, in both media types."""
    if tim is None:
        return []
    part = tim.select_source(tim.sources[0], 2)
    return [openapi.example(part), openapi.text(CSV, to_csv(part))]


class TimResponses:
    """The responses for one bundle's matrix. Each is made at its first request and then cached."""

    def __init__(self, tim: Tim, bundle: str) -> None:
        """`bundle`: digest of the bundle."""
        self._tim = tim.model_copy(update={"bundle": bundle})
        self._static_response = lru_cache(maxsize=4 * len(self._tim.tasks))(self._make)
        self._static_response(TimQuery(), JSON)

    def response(self, request: Request, query: TimQuery) -> Response:
        """Raises ProblemError for an unknown source, and for `top` without `source`."""
        if query.source is None and query.top is not None:
            raise problems.parameter("top", "needs_source", "needs the parameter source")
        if query.source is not None and query.source not in self._tim.sources:
            similar = get_close_matches(
                query.source.lower(), self._tim.sources, _SUGGESTIONS, cutoff=0.4
            )
            hint = f"; similar tasks: {', '.join(similar)}" if similar else ""
            detail = f"is not a task{hint} (GET /tasks lists all)"
            raise problems.parameter("source", "unknown_task", detail)
        media_type = preferred(request.headers, (JSON, CSV))
        return self._static_response(query, media_type).response(request)

    def _make(self, query: TimQuery, media_type: str) -> StaticResponse:
        tim = (
            self._tim if query.source is None else self._tim.select_source(query.source, query.top)
        )
        text = tim.model_dump_json() if media_type == JSON else to_csv(tim)
        return StaticResponse(text.encode(), media_type, {"Vary": "Accept, Accept-Encoding"})


def to_csv(tim: Tim) -> str:
    """One line per cell, without the diagonal (RFC 4180)."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["source", "task", "metric", "tim", "lower", "upper", "certain", "bundle"])
    for i, source in enumerate(tim.sources):
        for j, task in enumerate(tim.tasks):
            if source != task:
                cell = (tim.matrix[i][j], tim.lower[i][j], tim.upper[i][j], tim.certain[i][j])
                writer.writerow([source, task, tim.metric[i], *cell, tim.bundle])
    return out.getvalue()
