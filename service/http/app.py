"""The HTTP interface. The app takes its parts as arguments and holds no state of its own."""

import asyncio
import itertools
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache, partial
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import anyio.to_thread
from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.responses import Response
from structlog.typing import FilteringBoundLogger

from schemas.manifest import BundleError
from schemas.payload import InvalidPayload
from schemas.response import Answer
from schemas.tim import Tim
from service.cache.embedding_cache import EmbeddingCache
from service.errors import DeadlineExceeded, ServiceError
from service.http import openapi, problems
from service.http.middleware import AnswersCancelled, CrossOrigin, HeadAsGet, Observed
from service.http.negotiation import JSON
from service.http.request_parsing import (
    StrictRoute,
    Terms,
    body_size,
    options_of,
    read_body,
    refuse_repeated,
    terms_of,
)
from service.http.routes import dashboard, metadata
from service.http.routes.tim import Asked, TimDocuments
from service.http.static_response import CSV, MARKDOWN, Document, json_response
from service.prediction.batcher import INLINE_BYTES, Admission, Batcher
from service.prediction.gc_pause import paused_gc
from service.prediction.jobs import Job, Options, ParsedJob, PreparedJob, parse_batch
from service.prediction.lane import Priority
from service.prediction.predictor import Predictor
from service.runtime.bundle import Bundle, LocalGraph
from service.runtime.engine import Engine
from service.settings import Settings
from service.telemetry import metrics
from service.telemetry.logging import make_log, where
from service.telemetry.metrics import Metrics
from service.telemetry.spans import STAGE, Stage
from service.telemetry.usage import Usage, usage_of

if TYPE_CHECKING:
    from service.telemetry.otlp import Traces

READY = "/health/ready"


def create_app(
    engine: Engine,
    settings: Settings,
    log: FilteringBoundLogger | None = None,
    counted: Metrics | None = None,
    traces: "Traces | None" = None,
) -> FastAPI:
    """The service of one engine. It answers once the engine has replayed its golden answers.

    `counted`, `traces`: those of the process, which outlive a bundle.
    """
    log = log or make_log(settings.log_level, sys.stderr)
    counted = counted or Metrics()
    shared = None
    if settings.redis_url is not None and settings.redis_secret is not None:
        # Who has no Redis need not wait for its client, which takes a tenth of a second.
        from service.cache.redis_cache import RedisCache  # noqa: PLC0415

        shared = RedisCache(
            settings.redis_url.get_secret_value(),
            settings.redis_secret.get_secret_value(),
            engine.embedding_dims,
            counted,
            timeout_seconds=settings.redis_ms / 1000,
            entry_seconds=settings.redis_keep_seconds,
        )
    predictor = Predictor(engine, EmbeddingCache(settings.cache_bytes, shared, counted), counted)
    batcher = Batcher(
        predictor,
        counted,
        settings.queue_ms,
        settings.queue_bytes,
        in_loop=isinstance(engine.bundle.fusion, LocalGraph),
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        batcher.start()
        counted.serves(engine.bundle.manifest, engine.bundle.digest)
        watch = asyncio.create_task(_watch(engine, batcher, settings, log, counted))
        yield
        watch.cancel()
        await anyio.to_thread.run_sync(batcher.close)
        counted.serves_no_more(engine.bundle.manifest, engine.bundle.digest)
        if shared is not None:
            await anyio.to_thread.run_sync(shared.close)

    app = openapi.Documented(
        engine.bundle.manifest, lifespan, settings.max_batch, settings.root_path
    )
    problems.install(app)
    _predict(app, engine, batcher, settings, log, counted)
    app.include_router(_documents(engine.bundle))
    app.include_router(_health(engine, counted))
    app.include_router(_descriptions(app))
    app.include_router(dashboard.routes(settings.root_path))
    app.add_middleware(AnswersCancelled)
    cross_origin = CrossOrigin.of(settings.cors_origins)
    if cross_origin is not None:
        app.add_middleware(cross_origin)
    app.add_middleware(Observed, metrics=counted, log=log, traces=traces, cross_origin=cross_origin)
    app.add_middleware(HeadAsGet)
    return app


async def _watch(
    engine: Engine,
    batcher: Batcher[Job, ParsedJob, PreparedJob],
    settings: Settings,
    log: FilteringBoundLogger,
    counted: Metrics,
) -> None:
    """Replays a golden request now and then, the way that requests go.

    Whatever goes wrong in it is one failure of the canary: it never ends.
    """
    result: metrics.Canary
    at: list[str]
    for number in itertools.count():
        await asyncio.sleep(settings.golden_seconds)
        if not engine.verified:
            continue  # the readiness probe replays them all
        fault, result, at = "", "passed", []
        try:
            await batcher.run_exclusive(partial(engine.replay, number), settings.golden_seconds)
        except (TimeoutError, ServiceError):  # the queue leaves no time for it
            fault, result = "no answer", "no_answer"
        except BundleError as error:
            fault, result = str(error), "failed"
        except Exception as error:  # noqa: BLE001 - nobody would see this task end
            fault, result, at = type(error).__name__, "failed", where(error)
        engine.hanging = result == "no_answer"
        counted.canary(result, engine.difference)
        if fault:
            log.error("golden request failed", fault=fault, at=at)


def _predict(
    app: FastAPI,
    engine: Engine,
    batcher: Batcher[Job, ParsedJob, PreparedJob],
    settings: Settings,
    log: FilteringBoundLogger,
    counted: Metrics,
) -> None:
    """Routes of the app itself: what FastAPI does for others would be felt here."""
    parameters = openapi.parameters(query=Options, header=Terms)
    one_at_a_time = anyio.CapacityLimiter(1)

    def admitted(request: Request, usual: Priority) -> Admission:
        """A place in the house. Refuses before it reads what it cannot serve."""
        if not engine.verified:
            raise problems.not_ready("the golden answers are not verified yet")
        terms = terms_of(request)
        size = body_size(request, settings.max_body_bytes)
        milliseconds = terms.deadline_ms or settings.deadline_ms
        return batcher.admit(terms.priority or usual, size, milliseconds)

    @app.post(
        "/predict",
        tags=["predict"],
        summary="Predict all tasks for one patient",
        response_model=Answer,
        responses=openapi.problems(400, 408, 413, 415, 422, 500, 503, 504),
        openapi_extra=openapi.body("Payload") | parameters,
    )
    async def predict(request: Request) -> Response:
        """Send whatever is known; every part is optional and one must be there.

        `explain=default`: what each modality contributed to each number, and the five tasks that
        it was drawn from most. `full`: the whole matrix of attention, and the variables that the
        three tasks rest on that stand out most, or the one that `task` names. `none`: no reasons.
        `strict=true` refuses input that would otherwise be ignored and listed in the receipt.
        """
        refuse_repeated(request)
        options = options_of(request)
        with admitted(request, "urgent") as call:
            stage = _traced(request, options, call, engine.bundle)
            body = await read_body(request, settings.max_body_bytes, call)
            job = Job.queued(body, options, stage)
            (found,) = await batcher.answer(call, [job], request.receive)
        if isinstance(found, Exception):
            raise found
        return await json_response(request, found)

    @app.post(
        "/predict/batch",
        tags=["predict"],
        summary="Predict all tasks for several patients",
        response_model=openapi.BatchAnswer,
        responses=openapi.problems(400, 408, 413, 415, 422, 500, 503, 504),
        openapi_extra=openapi.body("Batch") | parameters,
    )
    async def predict_batch(request: Request) -> Response:
        """Items keep their order; each is answered by its Answer or by its own Problem."""
        refuse_repeated(request)
        options = options_of(request)
        with admitted(request, "bulk") as call:
            stage = _traced(request, options, call, engine.bundle)
            body = await read_body(request, settings.max_body_bytes, call)
            reading = partial(_items, body, settings.max_batch, call.deadline)
            if len(body) <= INLINE_BYTES:
                payloads = reading()
            else:
                payloads = await anyio.to_thread.run_sync(reading, limiter=one_at_a_time)
            jobs = [Job.queued(payload, options, stage) for payload in payloads]
            found = await batcher.answer(call, jobs, request.receive)
        answers = [one if isinstance(one, bytes) else problem_of(one) for one in found]
        return await json_response(request, b'{"items":[' + b",".join(answers) + b"]}")

    def problem_of(error: Exception) -> bytes:
        """What is wrong with one item; an error of the service is told to the log, too."""
        if isinstance(error, InvalidPayload):
            problem = problems.invalid_payload(error.errors)
        elif isinstance(error, ServiceError):
            problem = problems.refused(error).problem
        else:
            log.error("unexpected", error=type(error).__name__, at=where(error))
            problem = problems.unexpected()
        counted.item_failed(problem.status)
        return problem.json_bytes()


def _items(body: bytes, limit: int, deadline: float) -> list[Any]:
    """The payloads of a batch. Raises InvalidPayload, and DeadlineExceeded after the deadline."""
    if time.monotonic() > deadline:
        raise DeadlineExceeded
    with paused_gc():
        return parse_batch(body, limit)


def _traced(request: Request, options: Options, call: Admission, bundle: Bundle) -> Stage | None:
    """The request as a stage that says what was asked for, if it is traced."""
    stage: Stage | None = request.scope.get(STAGE)
    if stage is not None:
        stage.attributes |= {
            "m3h.bundle.digest": bundle.digest,
            "m3h.explain": options.explain,
            "m3h.priority": call.priority,
        }
    return stage


def _documents(bundle: Bundle) -> APIRouter:
    routes = APIRouter(tags=["model"], route_class=StrictRoute)
    tasks = Document.of(metadata.tasks(bundle.manifest))
    variables = Document.of(metadata.variables(bundle.manifest))
    model = Document.of(metadata.model(bundle.manifest, bundle.digest))
    tim = None if bundle.tim is None else TimDocuments(bundle.tim, bundle.digest)
    card = None if bundle.model_card is None else Document(bundle.model_card, MARKDOWN)

    @routes.get("/tasks", summary="What is predicted", response_model=metadata.TaskList)
    async def get_tasks(request: Request) -> Response:
        return tasks.response(request)

    @routes.get("/variables", summary="What is read", response_model=metadata.VariableList)
    async def get_variables(request: Request) -> Response:
        return variables.response(request)

    @routes.get("/model", summary="What the model is, in figures", response_model=metadata.Model)
    async def get_model(request: Request) -> Response:
        return model.response(request)

    @routes.get(
        "/tim",
        summary="How learning one task helps another",
        response_model=Tim,
        responses=openapi.content(CSV) | openapi.problems(404, 422),
    )
    async def get_tim(request: Request, asked: Annotated[Asked, Query()]) -> Response:
        """`source` keeps the row of the task that is helped, `top` that row's largest cells.

        `Accept: text/csv` gives one line for each cell.
        """
        if tim is None:
            raise problems.not_in_bundle("TIM")
        return tim.response(request, asked)

    @routes.get(
        "/model-card",
        summary="What the model is for, how it was made, where it fails",
        response_class=Response,
        responses=openapi.content(MARKDOWN) | openapi.problems(404),
    )
    async def get_model_card(request: Request) -> Response:
        if card is None:
            raise problems.not_in_bundle("model card")
        return card.response(request)

    return routes


def _descriptions(app: FastAPI) -> APIRouter:
    routes = APIRouter(include_in_schema=False, route_class=StrictRoute)

    @cache
    def document() -> Document:
        return Document(json.dumps(app.openapi()).encode(), JSON)

    @routes.get("/openapi.json")
    async def openapi(request: Request) -> Response:
        return document().response(request)

    return routes


def _health(engine: Engine, counted: Metrics) -> APIRouter:
    routes = APIRouter(tags=["operations"], route_class=StrictRoute)
    one_at_a_time = anyio.CapacityLimiter(1)

    @routes.get("/health/live", summary="The process answers")
    async def live() -> dict[str, str]:
        return {"status": "live"}

    @routes.get(
        READY,
        summary="The model answers as it did when it was made",
        responses=openapi.problems(503),
    )
    async def ready() -> dict[str, str]:
        """Not verified, or the latest run failed: the golden answers decide."""
        if engine.hanging:
            raise problems.not_ready("the model does not answer")
        if not engine.verified or engine.failing:
            try:
                await anyio.to_thread.run_sync(engine.replay_golden, limiter=one_at_a_time)
            except BundleError as error:
                counted.canary("failed", engine.difference)
                raise problems.not_ready(str(error)) from None
        return {"status": "ready"}

    @routes.get("/usage", summary="What the service has seen since it started")
    async def get_usage() -> Usage:
        return await anyio.to_thread.run_sync(lambda: usage_of(counted.text()))

    @routes.get("/metrics", summary="Prometheus metrics", response_class=Response)
    async def get_metrics() -> Response:
        text = await anyio.to_thread.run_sync(counted.text)
        return Response(text, media_type=metrics.CONTENT_TYPE)

    return routes
