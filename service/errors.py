"""The service's own errors. They know nothing of HTTP.

`service.http.problems` maps each to the problem that a client receives. No error holds a value
of a request. An invalid payload is a `schemas.request_errors.InvalidPayload`.
"""

from collections.abc import Sequence

from schemas.request_errors import FieldError


class ServiceError(Exception):
    """The service does not answer a request."""


class DeadlineExceeded(ServiceError):
    """The deadline of the request has passed, or cannot be met."""


class ClientDisconnected(ServiceError):
    """The client has closed its connection, so that no answer is needed."""


class Overloaded(ServiceError):
    """The queue or its memory is full. `retry_after`: seconds until a retry may succeed."""

    def __init__(self, retry_after: int) -> None:
        super().__init__("the queue is full")
        self.retry_after = retry_after


class ModelUnavailable(ServiceError):
    """The process that runs the model does not answer. `detail` gives the reason."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class InvalidOption(ServiceError):
    """An option of a prediction breaks a rule."""

    def __init__(self, option: str, rule: str, detail: str) -> None:
        super().__init__(detail)
        self.option, self.rule, self.detail = option, rule, detail


class InputIgnored(ServiceError):
    """A strict request has input that would not be used.

    `faults`: the first of them; `count`: the number of all.
    """

    def __init__(self, faults: Sequence[FieldError], count: int) -> None:
        super().__init__(f"{count} part(s) of the input would not be used")
        self.faults, self.count = tuple(faults), count


class PreconditionFailed(ServiceError):
    """Data are missing without which nothing can be predicted. `faults`: each with its place."""

    def __init__(self, faults: Sequence[FieldError]) -> None:
        super().__init__(f"{len(faults)} precondition(s) of the prediction failed")
        self.faults = tuple(faults)


class CallerNotChecked(ServiceError):
    """Whether the caller may call cannot be checked now. `detail` gives the reason."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class Unauthorized(ServiceError):
    """The caller is not authenticated. `rule`: the violated rule; empty without a token."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(detail)
        self.rule, self.detail = rule, detail
