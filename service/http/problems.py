"""RFC 9457 problem documents for everything that can be wrong with a request.

A problem names the part of the request, by an RFC 6901 pointer or the name of a parameter, and the
rule that it breaks. It never holds a value from the request, which may be a patient's.
"""

import re
from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from schemas.request_errors import MAX_LISTED, FieldError

MEDIA_TYPE = "application/problem+json"
# Sent with every response that may be about a patient.
NO_STORE = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

# Names that look like a parameter. Other names may be a patient's data.
_PARAMETER_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}", re.ASCII)


class Fault(BaseModel):
    """One error, at a `pointer` into the body or in a query `parameter`."""

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
        """The document without its empty fields."""
        return self.model_dump_json(exclude_none=True, exclude_defaults=True).encode()


class ProblemError(Exception):
    """The request is answered with a problem document."""

    def __init__(self, problem: Problem, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(problem.title)
        self.problem = problem
        self.headers = dict(headers or {})


def response(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    return Response(
        problem.json_bytes(),
        problem.status,
        headers=NO_STORE | dict(headers or {}),
        media_type=MEDIA_TYPE,
    )


def problem(
    slug: str, title: str, status: int, detail: str, errors: Sequence[Fault] = ()
) -> Problem:
    """A problem of type `urn:m3h:problem:{slug}`. Lists the first errors only."""
    if len(errors) > MAX_LISTED:
        detail = f"{detail}; only the first {MAX_LISTED} errors are listed"
    return Problem(
        type=f"urn:m3h:problem:{slug}",
        title=title,
        status=status,
        detail=detail,
        errors=tuple(errors[:MAX_LISTED]),
    )


def faults(errors: Sequence[FieldError]) -> list[Fault]:
    return [Fault(pointer=e.pointer, rule=e.rule, detail=e.detail) for e in errors]


# ---- the body --------------------------------------------------------------------------------


def invalid_payload(errors: Sequence[FieldError]) -> Problem:
    """Status 400 if the body is not JSON, else 422."""
    if any(error.rule == "json" for error in errors):
        detail = "the body cannot be parsed as JSON"
        return problem("not-json", "Not JSON", 400, detail, faults(errors))
    detail = "the body breaks the rules that the errors name"
    return problem("invalid-payload", "Invalid payload", 422, detail, faults(errors))


def input_ignored(errors: Sequence[FieldError], count: int) -> ProblemError:
    """`count`: the number of all errors, of which `errors` are the first."""
    detail = "part of the input cannot be used, and strict=true is set"
    listed = faults(errors[:MAX_LISTED])
    if count > len(listed):
        detail = f"{detail}; the first {len(listed)} of {count} errors are listed"
    return ProblemError(problem("input-ignored", "Input would be ignored", 422, detail, listed))


def precondition_failed(errors: Sequence[FieldError]) -> ProblemError:
    detail = "nothing can be predicted without the data that the errors name"
    title = "Precondition failed"
    body = problem("precondition-failed", title, 412, detail, faults(errors))
    return ProblemError(body)


def too_large(limit: int, setting: str = "") -> ProblemError:
    """`setting`: the setting that has the limit."""
    hint = f" ({setting})" if setting else ""
    detail = f"the body is larger than {limit} bytes{hint}"
    return ProblemError(problem("body-too-large", "Body too large", 413, detail))


def unsupported_media_type(accepted: Sequence[str] = ("application/json",)) -> ProblemError:
    detail = f"the body must be {' or '.join(accepted)} in UTF-8 without a content coding"
    body = problem("unsupported-media-type", "Unsupported media type", 415, detail)
    return ProblemError(body, {"Accept": ", ".join(accepted), "Accept-Encoding": "identity"})


def not_acceptable(offered: Sequence[str]) -> ProblemError:
    detail = f"the response is {' or '.join(offered)}"
    return ProblemError(problem("not-acceptable", "Not acceptable", 406, detail))


def length_required() -> ProblemError:
    detail = "the request needs a Content-Length header"
    return ProblemError(problem("length-required", "Length required", 411, detail))


# ---- parameters and paths ----------------------------------------------------------------------


def parameter(name: str, rule: str, detail: str) -> ProblemError:
    errors = [Fault(parameter=name, rule=rule, detail=detail)]
    return ProblemError(invalid_parameters(errors))


def repeated(names: Sequence[str]) -> ProblemError:
    """`names`: of query parameters or headers."""
    detail = "is given more than once"
    errors = [Fault(parameter=name, rule="repeated", detail=detail) for name in names]
    return ProblemError(invalid_parameters(errors))


def parameter_name(name: str) -> str:
    """The name if it looks like a parameter, else a placeholder."""
    return name if _PARAMETER_NAME.fullmatch(name) else "(name withheld)"


def invalid_parameters(errors: Sequence[Fault]) -> Problem:
    detail = "a parameter or header breaks the rule that its error names"
    return problem("invalid-parameter", "Invalid parameter", 422, detail, errors)


def not_in_bundle(content: str) -> ProblemError:
    detail = f"the served bundle has no {content}"
    return ProblemError(problem("not-in-bundle", f"No {content}", 404, detail))


def unknown_cds_service() -> ProblemError:
    detail = "no CDS Service has this id; GET /cds-services lists all"
    return ProblemError(problem("unknown-service", "Unknown CDS Service", 404, detail))


def unauthorized(rule: str, detail: str) -> ProblemError:
    """`rule`: the rule that the token violates; empty without a token (RFC 6750, section 3)."""
    challenge = 'Bearer error="invalid_token"' if rule else "Bearer"
    errors = [Fault(parameter="Authorization", rule=rule or "required", detail=detail)]
    body = problem("unauthorized", "Unauthorized", 401, "the caller is unknown", errors)
    return ProblemError(body, {"WWW-Authenticate": challenge})


# ---- availability ------------------------------------------------------------------------------


def not_ready(detail: str) -> ProblemError:
    return ProblemError(problem("not-ready", "Not ready", 503, detail), {"Retry-After": "5"})


def shut_down() -> ProblemError:
    return not_ready("the process shut down before it could answer (M3H_SHUTDOWN_SECONDS)")


def busy(retry_after: int) -> ProblemError:
    """`retry_after`: seconds until a retry may succeed."""
    detail = "the request queue is full (M3H_QUEUE_MS, M3H_QUEUE_BYTES)"
    return ProblemError(problem("busy", "Busy", 503, detail), {"Retry-After": str(retry_after)})


def late() -> ProblemError:
    detail = "the deadline (M3H-Deadline-Ms) cannot be met; the request was cancelled"
    return ProblemError(problem("late", "Too late", 504, detail))


def client_gone() -> ProblemError:
    detail = "the client closed the connection"
    return ProblemError(problem("client-gone", "Client gone", 499, detail))


def unexpected() -> Problem:
    detail = "the service has an internal error; its log has details under the X-Request-ID"
    return problem("unexpected", "Unexpected error", 500, detail)


# ---- connections and HTTP ------------------------------------------------------------------------


def malformed() -> ProblemError:
    detail = "the request is not valid HTTP/1.1 (RFC 9112)"
    return ProblemError(problem("malformed-request", "Malformed request", 400, detail))


def http_version() -> ProblemError:
    detail = "the service supports HTTP/1.1 and HTTP/1.0"
    return ProblemError(problem("http-version", "HTTP version not supported", 505, detail))


def transfer_coding() -> ProblemError:
    detail = "the service supports only the transfer coding chunked"
    return ProblemError(problem("transfer-coding", "Transfer coding not implemented", 501, detail))


def no_tunnel() -> ProblemError:
    detail = "the service does not support CONNECT"
    body = problem("method-not-allowed", "Method not allowed", 405, detail)
    return ProblemError(body, {"Allow": "GET, HEAD, POST, OPTIONS"})


def headers_too_large(limit: int) -> ProblemError:
    detail = f"the headers are larger than {limit} bytes (M3H_MAX_HEADER_BYTES) or too many"
    title = "Request header fields too large"
    return ProblemError(problem("headers-too-large", title, 431, detail))


def target_too_long(limit: int) -> ProblemError:
    detail = f"the path and query are longer than {limit} bytes"
    return ProblemError(problem("target-too-long", "URI too long", 414, detail))


def invalid_host(fault: str) -> ProblemError:
    """`fault`: a predicate of the Host header, such as "is missing"."""
    return ProblemError(problem("invalid-host", "Invalid host", 400, f"the Host header {fault}"))


def host_not_allowed() -> ProblemError:
    detail = "the name in the Host header is not allowed (M3H_ALLOWED_HOSTS)"
    return ProblemError(problem("host-not-allowed", "Misdirected request", 421, detail))


def too_slow(part: str, setting: str) -> ProblemError:
    detail = f"the {part} of the request did not arrive in time ({setting})"
    return ProblemError(problem("too-slow", "Request timeout", 408, detail))


def too_many_connections() -> ProblemError:
    detail = "the maximum number of connections is reached (M3H_MAX_CONNECTIONS)"
    body = problem("too-many-connections", "Too many connections", 503, detail)
    return ProblemError(body, {"Retry-After": "1"})


def origin_not_allowed() -> Problem:
    detail = "pages of this origin may not call the service (M3H_CORS_ORIGINS)"
    return problem("origin-not-allowed", "Origin not allowed", 400, detail)


# ---- administration ------------------------------------------------------------------------------


def bundle_refused(detail: str) -> ProblemError:
    return ProblemError(problem("bundle-refused", "Bundle refused", 422, detail))


def other_origin() -> ProblemError:
    detail = "pages of other origins may not administer the service"
    return ProblemError(problem("other-origin", "Other origin", 403, detail))
