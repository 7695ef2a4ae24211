"""`POST /hl7v2`: HL7 v2 messages in ER7."""

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import orjson
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError
from structlog.typing import FilteringBoundLogger

from schemas.parsing.times import read_time
from schemas.request_errors import MAX_LISTED, FieldError, InvalidPayload
from service.errors import InputIgnored, ServiceError
from service.http import error_handlers, openapi, openapi_examples, problems
from service.http.negotiation import JSON, preferred
from service.http.problems import NO_STORE, Problem, ProblemError
from service.http.request_parsing import SchedulingHeaders, parse_query, reject_repeated
from service.http.routes.admission import PredictionBatcher, RequestAdmission
from service.http.static_response import json_response
from service.interop.hl7v2.acknowledgement import (
    Sender,
    acknowledge,
    error_segments,
    joined,
    rejection_code,
)
from service.interop.hl7v2.charsets import decode
from service.interop.hl7v2.reader import Hl7Reader, Hl7Request, is_batch, split_batch
from service.interop.hl7v2.results import receipt_with_locations, result_segments
from service.prediction.jobs import Job, Options
from service.prediction.scheduling.batcher import INLINE_BYTES
from service.runtime.bundle import Bundle
from service.settings import Settings
from service.telemetry.logging import stack_frames
from service.telemetry.metrics import Metrics

ER7 = "application/hl7-v2"
ER7_TYPES = (ER7, "x-application/hl7-v2+er7")
_STATUSES = (400, 408, 413, 415, 422, 500, 503, 504)
# An HL7 message has no place for the explanation of a number (docs/explanations.md).
_OPTIONS = {strict: Options(explain="none", strict=strict) for strict in (False, True)}


class Hl7Query(BaseModel):
    """The query parameters of `/hl7v2`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    as_of: str | None = Field(
        None,
        description="the moment of the prediction, with a time zone; default: MSH-7 of the message",
    )
    strict: bool = False


class Hl7Routes:
    """The HL7 v2 endpoint of one bundle."""

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
        self._max_messages, self._log, self._metrics = settings.max_batch, log, metrics
        self._reader = Hl7Reader(bundle.manifest.spec)
        # Long bodies are decoded in a thread, one at a time.
        self._reading = anyio.CapacityLimiter(1)

    def add_to(self, app: FastAPI) -> None:
        parameters = openapi.parameters(query=Hl7Query, header=SchedulingHeaders)
        text = {"schema": {"type": "string"}, "example": openapi_examples.HL7_MESSAGE}
        answer = {"schema": {"type": "string"}, "example": openapi_examples.HL7_ANSWER}
        native = {"schema": {"type": "object"}, "example": openapi_examples.ANSWER}
        app.post(
            "/hl7v2",
            tags=["hl7v2"],
            response_class=Response,  # without a media type of its own
            summary="Predict all tasks for one patient from an HL7 v2 message",
            responses=openapi.problems(*_STATUSES)
            | {200: {"content": {ER7: answer, JSON: native}}},
            openapi_extra={
                "requestBody": {"required": True, "content": dict.fromkeys(ER7_TYPES, text)}
            }
            | parameters,
        )(self.predict)

    async def predict(self, request: Request) -> Response:
        """Send an ORU^R01, ADT^A01, ADT^A08 or MDM^T02 in ER7 about one patient.

        The answer is an acknowledgement with an OBX for each task, or the Answer of `/predict` if
        the client prefers application/json. Errors are an acknowledgement (AE, AR) with ERR
        segments, or a problem document; both name the location: segment^sequence^field. A batch
        (BHS, FHS) is answered with a batch, or with `items` as `/predict/batch`.
        """
        reject_repeated(request)
        query = parse_query(Hl7Query, request)
        as_of, as_json = parse_as_of(query.as_of), preferred(request.headers, (ER7, JSON)) == JSON
        try:
            answers, has_several = await self._answers(request, as_of, strict=query.strict)
        except (InvalidPayload, ServiceError, ProblemError) as error:
            if isinstance(error, ProblemError) and error.problem.status == 415:
                raise
            return self._error_response(error, None, as_json=as_json)
        if has_several:
            return await self._batch_response(request, answers, as_json=as_json)
        ((answer, source),) = answers
        if isinstance(answer, Exception):
            return self._error_response(answer, source, as_json=as_json)
        if as_json:
            return await json_response(request, _as_json(answer, source))
        return _er7_response(_accepted(answer, source))

    async def _answers(
        self, request: Request, as_of: datetime | None, *, strict: bool
    ) -> tuple[list[tuple[bytes | Exception, Hl7Request]], bool]:
        """The answer to each message of a body, and whether it is a batch.

        Raises InvalidPayload, ServiceError and ProblemError: the body cannot be answered.
        """
        options = _OPTIONS[strict]
        with self._admission.admit(request, "urgent", ER7_TYPES) as call:
            span = self._admission.request_span(request, options, call)
            body = await self._admission.read(request, call)
            read = partial(self._requests, body, as_of, strict=strict)
            if len(body) <= INLINE_BYTES:
                requests, has_several = read()
            else:
                requests, has_several = await anyio.to_thread.run_sync(read, limiter=self._reading)
            jobs = [Job.queued(part, options, span) for part in requests]
            answers = await self._batcher.answer(call, jobs, request.receive)
        return list(zip(answers, requests, strict=True)), has_several

    def _requests(
        self, body: bytes, as_of: datetime | None, *, strict: bool
    ) -> tuple[list[Hl7Request], bool]:
        """The messages of a body, and whether it is a batch. Raises InvalidPayload."""
        text = decode(body)
        has_several = is_batch(text)
        messages = [*split_batch(text)] if has_several else [text]
        if len(messages) > self._max_messages:
            detail = f"a batch must hold 1 to {self._max_messages} messages (M3H_MAX_BATCH)"
            raise InvalidPayload([FieldError(pointer="BHS^1", rule="item_count", detail=detail)])
        requests = [Hl7Request(self._reader, part, as_of, strict=strict) for part in messages]
        return requests, has_several

    def _error_response(
        self, error: Exception, source: Hl7Request | None, *, as_json: bool
    ) -> Response:
        """The answer to one message that failed."""
        problem, headers = self._problem(error, source)
        if as_json:
            return problems.response(problem, headers)
        return _er7_response(_refused(problem, source), problem.status, headers)

    async def _batch_response(
        self,
        request: Request,
        pairs: list[tuple[bytes | Exception, Hl7Request]],
        *,
        as_json: bool,
    ) -> Response:
        """The answers of a batch, in the order of its messages."""
        parts: list[bytes] = []
        for answer, source in pairs:
            if isinstance(answer, bytes):
                parts.append(
                    _as_json(answer, source) if as_json else joined(_accepted(answer, source))
                )
                continue
            problem, _ = self._problem(answer, source)
            self._metrics.count_failed_item(problem.status)
            parts.append(problem.json_bytes() if as_json else joined(_refused(problem, source)))
        if as_json:
            return await json_response(request, b'{"items":[' + b",".join(parts) + b"]}")
        content = b"BHS|^~\\&|M3H\r" + b"".join(parts) + f"BTS|{len(parts)}\r".encode()
        return Response(content, headers=NO_STORE, media_type=ER7)

    def _problem(
        self, error: Exception, source: Hl7Request | None
    ) -> tuple[Problem, Mapping[str, str]]:
        """The problem of a failed message, at its locations. Logs an error of the service."""
        located = _located(error, source)
        if isinstance(located, InvalidPayload):
            return _invalid_message(located.errors), {}
        if isinstance(located, ProblemError):
            return located.problem, located.headers
        if isinstance(located, ServiceError):
            mapped = error_handlers.problem_error(located)
            return mapped.problem, mapped.headers
        self._log.error("unexpected", error=type(error).__name__, at=stack_frames(error))
        return problems.unexpected(), {}


def parse_as_of(text: str | None) -> datetime | None:
    """The parameter `as_of`. Raises ProblemError (422). A query has "+" as a space."""
    if text is None:
        return None
    head, space, zone = text.rpartition(" ")
    try:
        return read_time(f"{head}+{zone}" if space and "T" in head else text)
    except PydanticCustomError as error:
        raise problems.parameter("as_of", error.type, error.message()) from None


def _invalid_message(errors: tuple[FieldError, ...]) -> Problem:
    detail = "the message breaks the rules that the errors name"
    title = "Invalid HL7 v2 message"
    return problems.problem("invalid-message", title, 422, detail, problems.faults(errors))


def _located(error: Exception, source: Hl7Request | None) -> Exception:
    """The error with locations of the message instead of pointers into the payload."""
    record = None if source is None else source.record
    if record is None:
        return error
    if isinstance(error, InvalidPayload):
        return InvalidPayload([*record.to_locations(error.errors)])
    if isinstance(error, InputIgnored):
        return InputIgnored([*record.to_locations(error.faults)][:MAX_LISTED], error.count)
    return error


def _accepted(answer: bytes, source: Hl7Request) -> list[str]:
    """The acknowledgement of a message with its predictions."""
    assert source.record is not None
    content: dict[str, Any] = orjson.loads(answer)
    segments = acknowledge(Sender.of(source.header), "AA")
    return [*segments, *result_segments(content, source.record)]


def _refused(problem: Problem, source: Hl7Request | None) -> list[str]:
    """The acknowledgement of a message that failed."""
    sender = Sender.of(None if source is None else source.header)
    errors = [
        FieldError(pointer=fault.pointer or "", rule=fault.rule, detail=fault.detail)
        for fault in problem.errors
    ]
    if not errors:
        rule = problem.type.rpartition(":")[2]
        errors = [FieldError(pointer="", rule=rule, detail=problem.detail)]
        return [*acknowledge(sender, "AR", problem.title), *error_segments(errors)]
    code = rejection_code(errors)
    return [*acknowledge(sender, code, problem.title), *error_segments(errors)]


def _as_json(answer: bytes, source: Hl7Request) -> bytes:
    """The native answer with the locations of the message."""
    assert source.record is not None
    return orjson.dumps(receipt_with_locations(orjson.loads(answer), source.record))


def _er7_response(
    segments: list[str], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    return Response(
        joined(segments), status, headers=NO_STORE | dict(headers or {}), media_type=ER7
    )
