"""Creates the ASGI app of one bundle: its routes, error handlers and middleware."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio.to_thread
from fastapi import FastAPI
from structlog.typing import FilteringBoundLogger

from service.cache.embedding_cache import EmbeddingCache
from service.http import error_handlers
from service.http.cds_hooks.authentication import CdsAuthentication
from service.http.middleware import (
    AnswersCancelled,
    CrossOrigin,
    HeadAsGet,
    RequestTelemetryMiddleware,
)
from service.http.openapi import OpenAPIApp
from service.http.routes import health, metadata, monitoring, openapi, pages, tim
from service.http.routes.admission import RequestAdmission
from service.http.routes.cds_hooks import CdsHooksRoutes
from service.http.routes.fhir import FhirRoutes
from service.http.routes.hl7v2 import Hl7Routes
from service.http.routes.prediction import PredictionRoutes
from service.prediction.canary import run_canary
from service.prediction.predictor import Predictor
from service.prediction.scheduling.batcher import Batcher
from service.runtime.bundle import LocalGraph
from service.runtime.engine import Engine
from service.security.used_tokens import UsedTokens, UsedTokensInMemory
from service.settings import Settings
from service.telemetry.logging import make_log
from service.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from service.cache.redis_cache import RedisCache
    from service.telemetry.otlp import TraceExporter


def create_app(
    engine: Engine,
    settings: Settings,
    log: FilteringBoundLogger | None = None,
    metrics: Metrics | None = None,
    traces: "TraceExporter | None" = None,
    used_tokens: UsedTokens | None = None,
) -> FastAPI:
    """The app that serves one engine. It answers 503 until the engine is verified.

    `metrics`, `traces` and `used_tokens` belong to the process and outlive a bundle.
    """
    log = log or make_log(settings.log_level, sys.stderr)
    metrics = metrics or Metrics()
    bundle = engine.bundle
    redis = _redis_cache(engine, settings, metrics)
    predictor = Predictor(engine, EmbeddingCache(settings.cache_bytes, redis, metrics), metrics)
    batcher = Batcher(
        predictor,
        metrics,
        settings.queue_ms,
        settings.queue_bytes,
        in_loop=isinstance(bundle.fusion, LocalGraph),
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        batcher.start()
        metrics.add_bundle(bundle.manifest, bundle.digest)
        canary = run_canary(engine, batcher, settings.golden_seconds, log, metrics)
        canary_task = asyncio.create_task(canary)
        yield
        canary_task.cancel()
        await anyio.to_thread.run_sync(batcher.close)
        metrics.remove_bundle(bundle.manifest, bundle.digest)
        if redis is not None:
            await anyio.to_thread.run_sync(redis.close)

    app = OpenAPIApp(bundle.manifest, lifespan, settings.max_batch, settings.root_path)
    error_handlers.install(app)
    admission = RequestAdmission(engine, batcher, settings)
    PredictionRoutes(admission, batcher, settings, log, metrics).add_to(app)
    FhirRoutes(admission, batcher, bundle, settings, log, metrics).add_to(app)
    Hl7Routes(admission, batcher, bundle, settings, log, metrics).add_to(app)
    authentication = CdsAuthentication.of(
        settings, _used_tokens(redis) or used_tokens or UsedTokensInMemory()
    )
    CdsHooksRoutes(admission, batcher, bundle, settings, metrics, authentication, redis).add_to(app)
    app.include_router(metadata.routes(bundle))
    app.include_router(tim.routes(bundle))
    app.include_router(health.routes(engine, metrics))
    app.include_router(monitoring.routes(metrics))
    app.include_router(openapi.routes(app))
    app.include_router(pages.routes(settings.root_path))
    _add_middleware(app, settings, log, metrics, traces)
    return app


def _redis_cache(engine: Engine, settings: Settings, metrics: Metrics) -> "RedisCache | None":
    if settings.redis_url is None or settings.redis_secret is None:
        return None
    # The import takes a tenth of a second.
    from service.cache.redis_cache import RedisCache  # noqa: PLC0415

    return RedisCache(
        settings.redis_url.get_secret_value(),
        settings.redis_secret.get_secret_value(),
        engine.embedding_dims,
        metrics,
        timeout_seconds=settings.redis_ms / 1000,
        entry_seconds=settings.redis_keep_seconds,
    )


def _used_tokens(redis: "RedisCache | None") -> UsedTokens | None:
    if redis is None:
        return None
    from service.cache.redis_marks import RedisMarks  # noqa: PLC0415 - imports redis

    return RedisMarks(redis, b"token")


def _add_middleware(
    app: FastAPI,
    settings: Settings,
    log: FilteringBoundLogger,
    metrics: Metrics,
    traces: "TraceExporter | None",
) -> None:
    """The middleware that is added last sees a request first."""
    app.add_middleware(AnswersCancelled)
    cors = CrossOrigin.of(settings.cors_origins)
    if cors is not None:
        app.add_middleware(cors)
    app.add_middleware(
        RequestTelemetryMiddleware, metrics=metrics, log=log, traces=traces, cors=cors
    )
    app.add_middleware(HeadAsGet)
