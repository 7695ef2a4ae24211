"""`POST /predict` and `POST /predict/batch`."""

import time
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
from fastapi import FastAPI, Request, Response
from structlog.typing import FilteringBoundLogger

from schemas.request_errors import InvalidPayload
from schemas.response import Answer
from service.errors import DeadlineExceeded, ServiceError
from service.http import error_handlers, openapi, openapi_examples, problems
from service.http.request_parsing import SchedulingHeaders, parse_options, reject_repeated
from service.http.routes.admission import PredictionBatcher, RequestAdmission
from service.http.static_response import json_response
from service.prediction.jobs import Job, Options, parse_batch
from service.prediction.scheduling.batcher import INLINE_BYTES
from service.prediction.scheduling.gc_pause import paused_gc
from service.settings import Settings
from service.telemetry.logging import stack_frames
from service.telemetry.metrics import Metrics


class PredictionRoutes:
    """The endpoints of one engine. They are RawRoutes: FastAPI's overhead would be noticeable."""

    def __init__(
        self,
        admission: RequestAdmission,
        batcher: PredictionBatcher,
        settings: Settings,
        log: FilteringBoundLogger,
        metrics: Metrics,
    ) -> None:
        self._admission, self._batcher, self._settings = admission, batcher, settings
        self._log, self._metrics = log, metrics
        # Long batches are parsed in a thread, one at a time.
        self._parsing = anyio.CapacityLimiter(1)

    def add_to(self, app: FastAPI) -> None:
        parameters = openapi.parameters(query=Options, header=SchedulingHeaders)
        statuses = openapi.problems(400, 408, 413, 415, 422, 500, 503, 504)
        app.post(
            "/predict",
            tags=["predict"],
            summary="Predict all tasks for one patient",
            response_model=Answer,
            responses=openapi.example(openapi_examples.ANSWER) | statuses,
            openapi_extra=openapi.body("Payload", openapi_examples.PAYLOAD) | parameters,
        )(self.predict)
        app.post(
            "/predict/batch",
            tags=["predict"],
            summary="Predict all tasks for several patients",
            response_model=openapi.BatchAnswer,
            responses=openapi.example(openapi_examples.BATCH_ANSWER) | statuses,
            openapi_extra=openapi.body("Batch", openapi_examples.BATCH) | parameters,
        )(self.predict_batch)

    async def predict(self, request: Request) -> Response:
        """Send the known data of the patient. Every part is optional, but one is required.

        `explain=default` returns the contribution of each modality to each number, and the five
        tasks with the most attention. `explain=full` also returns the whole attention matrix and
        the most important variables, for the task in `task` or for the three tasks whose
        probability is furthest from their prevalence.
        `explain=none` returns no explanation. `strict=true` refuses input that would otherwise be
        ignored and listed in the receipt.
        """
        reject_repeated(request)
        options = parse_options(request)
        with self._admission.admit(request, "urgent") as call:
            span = self._admission.request_span(request, options, call)
            body = await self._admission.read(request, call)
            job = Job.queued(body, options, span)
            (answer,) = await self._batcher.answer(call, [job], request.receive)
        if isinstance(answer, Exception):
            raise answer
        return await json_response(request, answer)

    async def predict_batch(self, request: Request) -> Response:
        """Returns an Answer or a Problem for each item, in the order of the items."""
        reject_repeated(request)
        options = parse_options(request)
        with self._admission.admit(request, "bulk") as call:
            span = self._admission.request_span(request, options, call)
            body = await self._admission.read(request, call)
            parse = partial(_parse_items, body, self._settings.max_batch, call.deadline)
            if len(body) <= INLINE_BYTES:
                payloads = parse()
            else:
                payloads = await anyio.to_thread.run_sync(parse, limiter=self._parsing)
            jobs = [Job.queued(payload, options, span) for payload in payloads]
            answers = await self._batcher.answer(call, jobs, request.receive)
        contents = [a if isinstance(a, bytes) else self._item_problem(a) for a in answers]
        return await json_response(request, b'{"items":[' + b",".join(contents) + b"]}")

    def _item_problem(self, error: Exception) -> bytes:
        """The problem document of a failed item. Logs an error of the service."""
        if isinstance(error, InvalidPayload):
            problem = problems.invalid_payload(error.errors)
        elif isinstance(error, ServiceError):
            problem = error_handlers.problem_error(error).problem
        else:
            self._log.error("unexpected", error=type(error).__name__, at=stack_frames(error))
            problem = problems.unexpected()
        self._metrics.count_failed_item(problem.status)
        return problem.json_bytes()


def _parse_items(body: bytes, limit: int, deadline: float) -> list[Any]:
    """The payloads of a batch. Raises InvalidPayload, and DeadlineExceeded after the deadline."""
    if time.monotonic() > deadline:
        raise DeadlineExceeded
    with paused_gc():
        return parse_batch(body, limit)
