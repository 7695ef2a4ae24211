"""Maps every error of an app to a problem document."""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from schemas.request_errors import InvalidPayload
from service import errors
from service.errors import ServiceError
from service.http import problems
from service.http.fhir.error_response import error_response
from service.http.problems import Fault, Problem, ProblemError

_PROBLEMS: dict[type[ServiceError], Callable[[Any], ProblemError]] = {
    errors.DeadlineExceeded: lambda _: problems.late(),
    errors.ClientDisconnected: lambda _: problems.client_gone(),
    errors.Overloaded: lambda error: problems.busy(error.retry_after),
    errors.ModelUnavailable: lambda error: problems.not_ready(error.detail),
    errors.InvalidOption: lambda error: problems.parameter(error.option, error.rule, error.detail),
    errors.InputIgnored: lambda error: problems.input_ignored(error.faults, error.count),
    errors.CallerNotChecked: lambda error: problems.not_ready(error.detail),
    errors.PreconditionFailed: lambda error: problems.precondition_failed(error.faults),
    errors.Unauthorized: lambda error: problems.unauthorized(error.rule, error.detail),
}


def problem_error(error: ServiceError) -> ProblemError:
    """The problem that answers a request which ended with `error`."""
    return _PROBLEMS[type(error)](error)


def install(app: FastAPI) -> None:
    """Installs the error handlers of an app. Middleware answers all other exceptions."""

    @app.exception_handler(ProblemError)
    async def answer_problem(request: Request, error: ProblemError) -> Response:
        return error_response(request.scope, error.problem, error.headers)

    @app.exception_handler(ServiceError)
    async def answer_service_error(request: Request, error: ServiceError) -> Response:
        mapped = problem_error(error)
        return error_response(request.scope, mapped.problem, mapped.headers)

    @app.exception_handler(InvalidPayload)
    async def answer_invalid_payload(request: Request, error: InvalidPayload) -> Response:
        return error_response(request.scope, problems.invalid_payload(error.errors))

    @app.exception_handler(RequestValidationError)
    async def answer_invalid_parameters(
        request: Request, error: RequestValidationError
    ) -> Response:
        faults = [_parameter_fault(e) for e in error.errors()]
        return error_response(request.scope, problems.invalid_parameters(faults))

    @app.exception_handler(ClientDisconnect)
    async def answer_client_gone(request: Request, _: ClientDisconnect) -> Response:
        return error_response(request.scope, problems.client_gone().problem)

    app.exception_handler(HTTPException)(_answer_http_exception)


async def _answer_http_exception(request: Request, error: HTTPException) -> Response:
    """Answers an unknown path, a method that a path does not support, and OPTIONS."""
    if error.status_code == 404 and request.scope["path"] == "*":  # OPTIONS * (RFC 9110, 9.3.7)
        error = HTTPException(405, headers={"Allow": "GET, POST"})
    if error.status_code != 405:
        return error_response(request.scope, _http_problem(error.status_code), error.headers)
    allow = (error.headers or {}).get("Allow", "").replace("GET", "GET, HEAD")
    if request.method == "OPTIONS":
        return Response(status_code=204, headers={"Allow": f"{allow}, OPTIONS"})
    return error_response(request.scope, _http_problem(405), {"Allow": allow})


def _parameter_fault(error: Mapping[str, object]) -> Fault:
    """A Pydantic error without its input."""
    location, context = error["loc"], error.get("ctx")
    limits = context if isinstance(context, Mapping) else {}
    source, name = "", ""
    if isinstance(location, tuple):
        source, name = str(location[0]), str(location[-1])
    # The names of headers are the service's own. A query parameter may have any name.
    if source != "header":
        name = problems.parameter_name(name)
    match error["type"]:
        case "extra_forbidden":
            rule, detail = "unknown_parameter", "is not a parameter of this path"
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
            rule, detail = "invalid", "is not valid"
    return Fault(parameter=name, rule=rule, detail=detail)


def _http_problem(status: int) -> Problem:
    match status:
        case 404:
            detail = "the path does not exist; GET /openapi.json lists all paths"
            return problems.problem("not-found", "Not found", 404, detail)
        case 405:
            detail = "the path does not support this method; see the Allow header"
            return problems.problem("method-not-allowed", "Method not allowed", 405, detail)
        case _:
            phrase = HTTPStatus(status).phrase
            detail = "the request cannot be answered"
            return problems.problem(f"http-{status}", phrase, status, detail)
