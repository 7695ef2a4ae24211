"""`GET /tim`: which task teaches which, whole or of one task, as JSON or as CSV."""

import csv
import io
from difflib import get_close_matches
from functools import lru_cache
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from schemas.tim import Tim
from service.http import problems
from service.http.negotiation import JSON, preferred
from service.http.static_response import CSV, Document

NEAR = 5  # names that a problem lists


class Asked(BaseModel):
    """Query parameters of `GET /tim`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str | None = Field(None, description="The task that is helped: its row alone")
    top: Annotated[
        int | None, Field(ge=1, description="Of that row the largest cells by absolute value")
    ] = None


class TimDocuments:
    """The matrix of one bundle. Each form of it is made when it is first asked for, and kept."""

    def __init__(self, tim: Tim, bundle: str) -> None:
        self._tim = tim.model_copy(update={"bundle": bundle})
        self._document = lru_cache(maxsize=4 * len(self._tim.tasks))(self._make)
        self._document(Asked(), JSON)

    def response(self, request: Request, asked: Asked) -> Response:
        """Raises Refused for a task that the matrix has not, and for `top` without `source`."""
        if asked.source is None and asked.top is not None:
            raise problems.parameter("top", "needs_source", "top narrows the row of a source")
        if asked.source is not None and asked.source not in self._tim.sources:
            near = get_close_matches(asked.source.lower(), self._tim.sources, NEAR, cutoff=0.4)
            detail = f"no such task; near it: {', '.join(near)}" if near else "no such task"
            raise problems.parameter("source", "unknown_task", f"{detail} (GET /tasks lists all)")
        return self._document(asked, preferred(request.headers, (JSON, CSV))).response(request)

    def _make(self, asked: Asked, media_type: str) -> Document:
        tim = (
            self._tim if asked.source is None else self._tim.select_source(asked.source, asked.top)
        )
        text = tim.model_dump_json() if media_type == JSON else table(tim)
        return Document(text.encode(), media_type, {"Vary": "Accept, Accept-Encoding"})


def table(tim: Tim) -> str:
    """One line for each cell, the diagonal left out (RFC 4180)."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["source", "task", "metric", "tim", "lower", "upper", "certain", "bundle"])
    for i, source in enumerate(tim.sources):
        for j, task in enumerate(tim.tasks):
            if source != task:
                cell = (tim.matrix[i][j], tim.lower[i][j], tim.upper[i][j], tim.certain[i][j])
                writer.writerow([source, task, tim.metric[i], *cell, tim.bundle])
    return out.getvalue()
