"""`GET /openapi.json`: the OpenAPI document."""

import json
from functools import cache

from fastapi import APIRouter, FastAPI, Request, Response

from service.http.negotiation import JSON
from service.http.request_parsing import StrictRoute
from service.http.static_response import StaticResponse


def routes(app: FastAPI) -> APIRouter:
    router = APIRouter(include_in_schema=False, route_class=StrictRoute)

    @cache
    def document() -> StaticResponse:
        return StaticResponse(json.dumps(app.openapi()).encode(), JSON)

    @router.get("/openapi.json")
    async def openapi(request: Request) -> Response:
        return document().response(request)

    return router
