"""Error responses: problem documents (RFC 9457), and OperationOutcomes under `/fhir`."""

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import Scope

from service.http import problems
from service.http.problems import NO_STORE, Fault, Problem
from service.interop.fhir.operation_outcome import Severity, issue, operation_outcome

FHIR_JSON = "application/fhir+json"
FHIR_PREFIX = "/fhir"
# Codes of http://hl7.org/fhir/issue-type by status, for problems without a list of errors.
_ISSUE_TYPES = {
    400: "structure",
    404: "not-found",
    405: "not-supported",
    406: "not-supported",
    408: "timeout",
    413: "too-long",
    415: "not-supported",
    500: "exception",
    503: "transient",
    504: "timeout",
}


def error_response(
    scope: Scope, problem: Problem, headers: Mapping[str, str] | None = None
) -> Response:
    """The response to a request that is answered with `problem`."""
    if not _is_fhir(scope):
        return problems.response(problem, headers)
    return Response(
        orjson.dumps(problem_outcome(problem)),
        problem.status,
        headers=NO_STORE | dict(headers or {}),
        media_type=FHIR_JSON,
    )


def _is_fhir(scope: Scope) -> bool:
    path = str(scope["path"])
    return path == FHIR_PREFIX or path.startswith(f"{FHIR_PREFIX}/")


def problem_outcome(problem: Problem) -> dict[str, Any]:
    """The OperationOutcome of a problem: an issue for each error, otherwise one for the problem."""
    if problem.errors:
        return operation_outcome([_fault_issue(fault) for fault in problem.errors])
    severity: Severity = "fatal" if problem.status == 500 else "error"
    whole = issue(severity, problem.type.rpartition(":")[2], problem.detail)
    whole["code"] = _ISSUE_TYPES.get(problem.status, "processing")
    return operation_outcome([whole])


def _fault_issue(fault: Fault) -> dict[str, Any]:
    expressions = [] if fault.pointer is None else [fault.pointer]
    locations = [] if fault.parameter is None else [f"http.{fault.parameter}"]
    return issue("error", fault.rule, fault.detail, expressions, locations=locations)
