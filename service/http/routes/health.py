"""`GET /health/live` and `GET /health/ready`: probes of the orchestrator."""

import anyio
import anyio.to_thread
from fastapi import APIRouter

from schemas.bundle_files import BundleError
from service.http import openapi, problems
from service.http.probe_paths import LIVE, READY
from service.http.request_parsing import StrictRoute
from service.runtime.engine import Engine
from service.telemetry.metrics import Metrics


def routes(engine: Engine, metrics: Metrics) -> APIRouter:
    router = APIRouter(tags=["operations"], route_class=StrictRoute)
    replaying = anyio.CapacityLimiter(1)

    @router.get(
        LIVE,
        summary="Liveness: the process answers",
        responses=openapi.example({"status": "live"}),
    )
    async def live() -> dict[str, str]:
        return {"status": "live"}

    @router.get(
        READY,
        summary="Readiness: the model gives the golden answers",
        responses=openapi.example({"status": "ready"}) | openapi.problems(503),
    )
    async def ready() -> dict[str, str]:
        """Replays the golden requests if they are not verified or the latest replay failed."""
        if engine.hanging:
            raise problems.not_ready("the model does not answer")
        if not engine.verified or engine.failing:
            try:
                await anyio.to_thread.run_sync(engine.replay_golden, limiter=replaying)
            except BundleError as error:
                metrics.count_canary("failed", engine.difference)
                raise problems.not_ready(str(error)) from None
        return {"status": "ready"}

    return router
