"""`GET /metrics` for Prometheus and `GET /usage` for the dashboard."""

import anyio.to_thread
from fastapi import APIRouter, Response

from service.http import openapi, openapi_examples
from service.http.probe_paths import METRICS
from service.http.request_parsing import StrictRoute
from service.telemetry.metrics import CONTENT_TYPE, Metrics
from service.telemetry.usage import Usage, parse_usage


def routes(metrics: Metrics) -> APIRouter:
    router = APIRouter(tags=["operations"], route_class=StrictRoute)

    @router.get(
        "/usage",
        summary="Usage counts since the service started",
        responses=openapi.example(openapi_examples.USAGE),
    )
    async def get_usage() -> Usage:
        return await anyio.to_thread.run_sync(lambda: parse_usage(metrics.render()))

    @router.get(
        METRICS,
        summary="Prometheus metrics",
        response_class=Response,
        responses=openapi.text("text/plain", openapi_examples.METRICS),
    )
    async def get_metrics() -> Response:
        text = await anyio.to_thread.run_sync(metrics.render)
        return Response(text, media_type=CONTENT_TYPE)

    return router
