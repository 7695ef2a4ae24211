"""Everything that can be wrong with a request, as RFC 9457 problem documents.

A problem says where (RFC 6901 pointer, or the name of a query parameter) and which rule; it never
holds a value from the request, because a value may be a patient's.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from schemas.request_errors import MAX_LISTED, FieldError, InvalidPayload
from service import errors
from service.errors import ServiceError

MEDIA_TYPE = "application/problem+json"
# Of every answer that may be about a patient: no cache keeps it, no browser takes it for a page.
UNCACHED = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

# A name that a program would give; anything else might be a patient's.
_PARAMETER_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}", re.ASCII)


class Fault(BaseModel):
    """One thing that is wrong, at a `pointer` into the body or in a query `parameter`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pointer: str | None = None
    parameter: str | None = None
    rule: str
    detail: str


class Problem(BaseModel):
    """An RFC 9457 problem document."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: str
    title: str
    status: int
    detail: str
    errors: tuple[Fault, ...] = ()

    def json_bytes(self) -> bytes:
        """The document, without what it does not have."""
        return self.model_dump_json(exclude_none=True, exclude_defaults=True).encode()


class Refused(Exception):
    """A request that is answered by a problem."""

    def __init__(self, problem: Problem, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(problem.title)
        self.problem = problem
        self.headers = dict(headers or {})


def response(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    return Response(
        problem.json_bytes(),
        problem.status,
        headers=UNCACHED | dict(headers or {}),
        media_type=MEDIA_TYPE,
    )


def problem(
    slug: str, title: str, status: int, detail: str, errors: Sequence[Fault] = ()
) -> Problem:
    if len(errors) > MAX_LISTED:
        detail = (
            f"{detail}; more than {MAX_LISTED} faults, of which the first {MAX_LISTED} are listed"
        )
    return Problem(
        type=f"urn:m3h:problem:{slug}",
        title=title,
        status=status,
        detail=detail,
        errors=tuple(errors[:MAX_LISTED]),
    )


def invalid_payload(errors: Sequence[FieldError]) -> Problem:
    """400 if the body is no JSON, else 422."""
    faults = _faults(errors)
    if any(error.rule == "json" for error in errors):
        return problem("not-json", "Not JSON", 400, "the body could not be read as JSON", faults)
    detail = "the document does not keep the rules that its errors name"
    return problem("invalid-payload", "Invalid payload", 422, detail, faults)


def _input_ignored(error: errors.InputIgnored) -> Refused:
    detail = "strict=true, and part of the input would not be used"
    faults = _faults(error.faults[:MAX_LISTED])
    if error.count > len(faults):
        detail = f"{detail}; {error.count} faults, of which the first {len(faults)} are listed"
    return Refused(problem("input-ignored", "Input would be ignored", 422, detail, faults))


def _faults(errors: Sequence[FieldError]) -> list[Fault]:
    return [Fault(pointer=e.pointer, rule=e.rule, detail=e.detail) for e in errors]


def too_large(limit: int) -> Refused:
    detail = f"the body is larger than {limit} bytes (M3H_MAX_BODY_BYTES)"
    return Refused(problem("body-too-large", "Body too large", 413, detail))


def unsupported_media_type() -> Refused:
    detail = "the body must be application/json in UTF-8, without a content coding"
    body = problem("unsupported-media-type", "Unsupported media type", 415, detail)
    return Refused(body, {"Accept": "application/json", "Accept-Encoding": "identity"})


def not_in_bundle(what: str) -> Refused:
    detail = f"the bundle that is served carries no {what}"
    return Refused(problem("not-in-bundle", f"No {what}", 404, detail))


def parameter(name: str, rule: str, detail: str) -> Refused:
    faults = [Fault(parameter=name, rule=rule, detail=detail)]
    return Refused(_invalid_parameter(faults))


def repeated(names: Sequence[str]) -> Refused:
    """Of query parameters, or of headers."""
    detail = "is given more than once"
    faults = [Fault(parameter=name, rule="repeated", detail=detail) for name in names]
    return Refused(_invalid_parameter(faults))


def parameter_name(name: str) -> str:
    """A name that may be repeated in an answer, or a word in its place."""
    return name if _PARAMETER_NAME.fullmatch(name) else "(name withheld)"


def _invalid_parameter(faults: Sequence[Fault]) -> Problem:
    detail = "a parameter or a header does not keep the rule that is named"
    return problem("invalid-parameter", "Invalid parameter", 422, detail, faults)


def not_ready(detail: str) -> Refused:
    return Refused(problem("not-ready", "Not ready", 503, detail), {"Retry-After": "5"})


def ended() -> Refused:
    return not_ready("this process has ended; M3H_SHUTDOWN_SECONDS were not enough for an answer")


def _busy(error: errors.Overloaded) -> Refused:
    detail = "as many requests as may wait are waiting (M3H_QUEUE_MS, M3H_QUEUE_BYTES)"
    return Refused(problem("busy", "Busy", 503, detail), {"Retry-After": str(error.retry_after)})


def _late(_: errors.DeadlineExceeded) -> Refused:
    detail = "it cannot be answered within M3H-Deadline-Ms; it was not computed, or is not any more"
    return Refused(problem("late", "Too late", 504, detail))


def malformed() -> Refused:
    detail = "the request is not valid HTTP/1.1 (RFC 9112)"
    return Refused(problem("malformed-request", "Malformed request", 400, detail))


def http_version() -> Refused:
    detail = "the service speaks HTTP/1.1 and HTTP/1.0"
    return Refused(problem("http-version", "HTTP version not supported", 505, detail))


def transfer_coding() -> Refused:
    detail = "the only transfer coding is chunked"
    return Refused(problem("transfer-coding", "Transfer coding not implemented", 501, detail))


def no_tunnel() -> Refused:
    detail = "no path answers CONNECT"
    body = problem("method-not-allowed", "Method not allowed", 405, detail)
    return Refused(body, {"Allow": "GET, HEAD, POST, OPTIONS"})


def headers_too_large(limit: int) -> Refused:
    detail = f"the headers are larger than {limit} bytes (M3H_MAX_HEADER_BYTES), or too many"
    return Refused(problem("headers-too-large", "Request header fields too large", 431, detail))


def target_too_long(limit: int) -> Refused:
    detail = f"path and query are longer than {limit} bytes"
    return Refused(problem("target-too-long", "URI too long", 414, detail))


def invalid_host(what: str) -> Refused:
    return Refused(problem("invalid-host", "Invalid host", 400, f"the Host header {what}"))


def host_not_allowed() -> Refused:
    detail = "the service is not known by the name in the Host header (M3H_ALLOWED_HOSTS)"
    return Refused(problem("host-not-allowed", "Misdirected request", 421, detail))


def too_slow(part: str, setting: str) -> Refused:
    detail = f"the {part} of the request did not arrive in time ({setting})"
    return Refused(problem("too-slow", "Request timeout", 408, detail))


def too_many_connections() -> Refused:
    detail = "as many connections as may be open are open (M3H_MAX_CONNECTIONS)"
    body = problem("too-many-connections", "Too many connections", 503, detail)
    return Refused(body, {"Retry-After": "1"})


def origin_not_allowed() -> Problem:
    detail = "no page of that site may ask so (M3H_CORS_ORIGINS)"
    return problem("origin-not-allowed", "Origin not allowed", 400, detail)


def bundle_refused(detail: str) -> Refused:
    return Refused(problem("bundle-refused", "Bundle refused", 422, detail))


def other_origin() -> Refused:
    detail = "pages of other origins may not administer this service"
    return Refused(problem("other-origin", "Other origin", 403, detail))


def length_required() -> Refused:
    return Refused(problem("length-required", "Length required", 411, "Content-Length is needed"))


def command_too_large(limit: int) -> Refused:
    detail = f"the body is larger than {limit} bytes"
    return Refused(problem("body-too-large", "Body too large", 413, detail))


def unexpected() -> Problem:
    detail = "an error of the service, not of the request; its log has more under the X-Request-ID"
    return problem("unexpected", "Unexpected error", 500, detail)


def _client_gone(_: errors.ClientDisconnected) -> Refused:
    return Refused(problem("client-gone", "Client gone", 499, "the client went away"))


# The problem of each error of the service, by its type.
_PROBLEMS: dict[type[ServiceError], Callable[[Any], Refused]] = {
    errors.DeadlineExceeded: _late,
    errors.ClientDisconnected: _client_gone,
    errors.Overloaded: _busy,
    errors.ModelUnavailable: lambda error: not_ready(error.detail),
    errors.InvalidOption: lambda error: parameter(error.option, error.rule, error.detail),
    errors.InputIgnored: _input_ignored,
}


def refused(error: ServiceError) -> Refused:
    """The problem that answers a request which ended with `error`."""
    return _PROBLEMS[type(error)](error)


def install(app: FastAPI) -> None:
    """Makes every error of an app a problem document, but for those that only middleware sees."""

    @app.exception_handler(Refused)
    async def problem_error(_: Request, error: Refused) -> Response:
        return response(error.problem, error.headers)

    @app.exception_handler(ServiceError)
    async def service_error(_: Request, error: ServiceError) -> Response:
        answer = refused(error)
        return response(answer.problem, answer.headers)

    @app.exception_handler(InvalidPayload)
    async def invalid(_: Request, error: InvalidPayload) -> Response:
        return response(invalid_payload(error.errors))

    @app.exception_handler(RequestValidationError)
    async def parameters(_: Request, error: RequestValidationError) -> Response:
        faults = [_parameter_fault(e) for e in error.errors()]
        return response(_invalid_parameter(faults))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        if error.status_code == 404 and request.scope["path"] == "*":  # the service as a whole
            error = HTTPException(405, headers={"Allow": "GET, POST"})
        if error.status_code != 405:
            return response(_http_problem(error.status_code), error.headers)
        allow = (error.headers or {}).get("Allow", "").replace("GET", "GET, HEAD")
        if request.method == "OPTIONS":
            return Response(status_code=204, headers={"Allow": f"{allow}, OPTIONS"})
        return response(_http_problem(405), {"Allow": allow})

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, __: ClientDisconnect) -> Response:
        return response(refused(errors.ClientDisconnected()).problem)


def _parameter_fault(error: Mapping[str, object]) -> Fault:
    location, context = error["loc"], error.get("ctx")
    limits = context if isinstance(context, Mapping) else {}
    place, name = "", ""
    if isinstance(location, tuple):
        place, name = str(location[0]), str(location[-1])
    # A header is one that the service asks for; a query parameter might be anything.
    if place != "header":
        name = parameter_name(name)
    match error["type"]:
        case "extra_forbidden":
            rule, detail = "unknown_parameter", "is no parameter here"
        case "literal_error":
            rule, detail = "allowed_values", f"must be one of {limits.get('expected', '')}"
        case "bool_parsing" | "bool_type":
            rule, detail = "allowed_values", "must be one of 'true' or 'false'"
        case "int_parsing":
            rule, detail = "integer", "must be a whole number"
        case "greater_than_equal":
            rule, detail = "minimum", f"must be {limits['ge']} or more"
        case "less_than_equal":
            rule, detail = "maximum", f"must be {limits['le']} or less"
        case _:
            rule, detail = "invalid", "is not valid here"
    return Fault(parameter=name, rule=rule, detail=detail)


def _http_problem(status: int) -> Problem:
    match status:
        case 404:
            return problem("not-found", "Not found", 404, "no such path; see GET /openapi.json")
        case 405:
            detail = "this path does not answer this method; the Allow header has those it does"
            return problem("method-not-allowed", "Method not allowed", 405, detail)
        case _:
            phrase = HTTPStatus(status).phrase
            return problem(f"http-{status}", phrase, status, "the request could not be answered")
