"""FHIR R4: `POST /fhir/$predict`, `GET /fhir/metadata` and the OperationDefinition."""

import re
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Annotated, Any

import anyio
import anyio.to_thread
import orjson
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from structlog.typing import FilteringBoundLogger

from schemas.fhir.reader import FhirReader, parse_as_of
from schemas.request_errors import FieldError, InvalidPayload
from service.errors import InputIgnored, ServiceError
from service.http import error_handlers, problems
from service.http.fhir import openapi_entries
from service.http.fhir.error_response import FHIR_JSON, problem_outcome
from service.http.negotiation import JSON, accepts, utf8_media_type
from service.http.problems import Problem
from service.http.request_parsing import parse_query, reject_repeated
from service.http.routes.admission import PredictionBatcher, RequestAdmission
from service.http.static_response import StaticResponse, json_response
from service.interop.fhir.answer.bundle import AnswerBuilder
from service.interop.fhir.answer.receipt import PlacedReceipt
from service.interop.fhir.conformance import (
    NDJSON,
    OPERATION_ID,
    capability_statement,
    operation_definition,
)
from service.interop.fhir.request import FhirRequest
from service.prediction.jobs import Job, Options
from service.runtime.bundle import Bundle
from service.settings import Settings
from service.telemetry.logging import stack_frames
from service.telemetry.metrics import Metrics

_RESOURCE_TYPES = (FHIR_JSON, JSON)
_BULK_TYPES = (NDJSON, "application/x-ndjson", "application/ndjson")
_VERSION = re.compile(r";\s*fhirversion\s*=\s*\"?([^\s;\"]*)", re.IGNORECASE)
_R4 = ("4.0", "4.0.0", "4.0.1")
_MAX_INLINE_OBSERVATIONS = 2_000  # of an answer that is built in the event loop, in about 5 ms
_FORMATS = ("json", *_RESOURCE_TYPES, *_BULK_TYPES)
# FHIR has no place for the explanation of a number (docs/explanations.md).
_OPTIONS = {strict: Options(explain="none", strict=strict) for strict in (False, True)}


class FhirQuery(BaseModel):
    """The query parameters of `$predict`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    as_of: str | None = Field(
        None,
        description="the moment of the prediction, with a time zone; default: the parameter asOf "
        "of the body, otherwise Bundle.timestamp",
    )
    strict: bool = False
    format: Annotated[
        str | None, Field(alias="_format", description="json, the only format of the response")
    ] = None


class FhirRoutes:
    """The FHIR endpoints of one bundle."""

    def __init__(
        self,
        admission: RequestAdmission,
        batcher: PredictionBatcher,
        bundle: Bundle,
        settings: Settings,
        log: FilteringBoundLogger,
        metrics: Metrics,
    ) -> None:
        self._admission, self._batcher = admission, batcher
        # Long answers are built in a thread, one at a time.
        self._building = anyio.CapacityLimiter(1)
        self._max_lines, self._log, self._metrics = settings.max_batch, log, metrics
        self._reader = FhirReader(bundle.manifest.spec)
        card_url = f"{settings.root_path or ''}/model-card"
        self._builder = AnswerBuilder(bundle.manifest, bundle.model_card, card_url)
        capability = orjson.dumps(capability_statement(bundle.manifest))
        operation = orjson.dumps(operation_definition(bundle.manifest))
        self._capability = StaticResponse(capability, FHIR_JSON)
        self._operation = StaticResponse(operation, FHIR_JSON)

    def add_to(self, app: FastAPI) -> None:
        app.post("/fhir/$predict", **openapi_entries.predict_operation(FhirQuery))(self.predict)
        app.get("/fhir/metadata", **openapi_entries.read_operation("CapabilityStatement"))(
            self.get_capability
        )
        app.get(
            f"/fhir/OperationDefinition/{OPERATION_ID}",
            **openapi_entries.read_operation("OperationDefinition"),
        )(self.get_operation)

    async def get_capability(self, request: Request) -> Response:
        return self._static(request, self._capability)

    async def get_operation(self, request: Request) -> Response:
        return self._static(request, self._operation)

    def _static(self, request: Request, static: StaticResponse) -> Response:
        reject_repeated(request)
        _check_format(request, request.query_params.get("_format"))
        return static.response(request)

    async def predict(self, request: Request) -> Response:
        """Send a Bundle with the data of one patient: collection, searchset, batch or transaction.

        The answer is a Bundle with a RiskAssessment or an Observation for each task, Device,
        Provenance, the model card and the receipt. `strict=true` refuses input that would
        otherwise be ignored and listed in the receipt. With application/fhir+ndjson, each line is
        a Bundle, and so is each line of the answer; a line that fails is an OperationOutcome.
        """
        reject_repeated(request)
        query = parse_query(FhirQuery, request)
        _check_format(request, query.format)
        as_of = _parse_as_of(query.as_of)
        options = _OPTIONS[query.strict]
        is_bulk = _check_version(request.headers.get("content-type", "")) in _BULK_TYPES
        accepted = (*_RESOURCE_TYPES, *_BULK_TYPES)
        with self._admission.admit(request, "bulk" if is_bulk else "urgent", accepted) as call:
            span = self._admission.request_span(request, options, call)
            body = await self._admission.read(request, call)
            bodies = _lines(body, self._max_lines) if is_bulk else [body]
            requests = [
                FhirRequest(self._reader, part, as_of, strict=query.strict) for part in bodies
            ]
            jobs = [Job.queued(part, options, span) for part in requests]
            answers = await self._batcher.answer(call, jobs, request.receive)
        if is_bulk:
            build = partial(self._lines, answers, requests)
            content = await anyio.to_thread.run_sync(build, limiter=self._building)
            return await json_response(request, content, NDJSON)
        build = partial(self._bundle, answers[0], requests[0])
        if requests[0].observations <= _MAX_INLINE_OBSERVATIONS:
            return await json_response(request, build(), FHIR_JSON)
        content = await anyio.to_thread.run_sync(build, limiter=self._building)
        return await json_response(request, content, FHIR_JSON)

    def _bundle(self, answer: bytes | Exception, request: FhirRequest) -> bytes:
        """The answer as a Bundle. Raises the exception of a request that failed."""
        if isinstance(answer, Exception):
            raise _placed(answer, request)
        return orjson.dumps(self._builder.build(orjson.loads(answer), request))

    def _lines(
        self, answers: Sequence[bytes | Exception], requests: Sequence[FhirRequest]
    ) -> bytes:
        """The lines of a bulk answer, in order."""
        lines = [self._line(*pair) for pair in zip(answers, requests, strict=True)]
        return b"\n".join(lines) + b"\n"

    def _line(self, answer: bytes | Exception, request: FhirRequest) -> bytes:
        """A line of a bulk answer. Logs an error of the service."""
        if not isinstance(answer, Exception):
            return self._bundle(answer, request)
        problem = self._problem(_placed(answer, request))
        self._metrics.count_failed_item(problem.status)
        return orjson.dumps(problem_outcome(problem))

    def _problem(self, error: Exception) -> Problem:
        if isinstance(error, InvalidPayload):
            return problems.invalid_payload(error.errors)
        if isinstance(error, ServiceError):
            return error_handlers.problem_error(error).problem
        self._log.error("unexpected", error=type(error).__name__, at=stack_frames(error))
        return problems.unexpected()


def _check_format(request: Request, requested: str | None) -> None:
    """Raises ProblemError (406) if the client accepts no JSON (FHIR R4, section 3.1.0.1.11)."""
    offered = (*_RESOURCE_TYPES, *_BULK_TYPES)
    is_known = requested is None or requested.replace(" ", "+") in _FORMATS
    if not is_known or (requested is None and not accepts(request.headers, offered)):
        raise problems.not_acceptable((FHIR_JSON, NDJSON))


def _check_version(content_type: str) -> str:
    """The media type. Raises ProblemError (415) for another version of FHIR (section 2.1.0.6)."""
    version = _VERSION.search(content_type)
    if version is not None and version[1] not in _R4:
        raise problems.unsupported_media_type([f"{FHIR_JSON}; fhirVersion=4.0"])
    return utf8_media_type(content_type)


def _parse_as_of(text: str | None) -> datetime | None:
    """The parameter `as_of`. Raises ProblemError (422). A query has "+" as a space."""
    if text is None:
        return None
    head, space, zone = text.rpartition(" ")
    try:
        return parse_as_of(f"{head}+{zone}" if space and "T" in head else text, "as_of")
    except InvalidPayload as error:
        raise problems.parameter("as_of", error.errors[0].rule, error.errors[0].detail) from None


def _lines(body: bytes, limit: int) -> list[bytes]:
    """The lines of NDJSON that are not empty. Raises InvalidPayload."""
    lines = [line for line in body.splitlines() if line.strip()]
    if not 1 <= len(lines) <= limit:
        detail = f"must hold 1 to {limit} lines (M3H_MAX_BATCH)"
        raise InvalidPayload([FieldError(pointer="", rule="item_count", detail=detail)])
    return lines


def _placed(error: Exception, request: FhirRequest) -> Exception:
    """The error with FHIRPath expressions instead of pointers into the payload."""
    if isinstance(error, InvalidPayload):
        return InvalidPayload(_place_all(error.errors, request))
    if isinstance(error, InputIgnored):
        return InputIgnored(_place_all(error.faults, request), error.count)
    return error


def _place_all(errors: Any, request: FhirRequest) -> list[FieldError]:
    placed: list[FieldError] = []
    for error in errors:
        if error.pointer.startswith("/"):
            placed += PlacedReceipt({}, request.record).to_expressions(error)
        else:
            placed.append(error)
    return placed
