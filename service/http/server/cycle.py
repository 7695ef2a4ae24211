"""One request and its response on a connection, and responses that the app never sees."""

import uuid
from collections.abc import Iterable
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from service.http import problems
from service.http.problems import ProblemError


class Cycle(RequestResponseCycle):
    """A request and its response. An error that the app raises becomes a problem document."""

    async def send_500_response(self) -> None:
        answer = problems.response(problems.unexpected(), {"Connection": "close"})
        await answer(self.scope, self.receive, self.send)  # type: ignore[arg-type]  # ASGI's types


class ContinueCycle(Cycle):
    """A request whose client waits for status 100 to send its body (RFC 9110, section 10.1.1)."""

    async def send(self, message: Any) -> None:
        if self.waiting_for_100_continue:
            # The response comes without status 100. The client may still send the body or not, so
            # the connection cannot be used for another request.
            self.keep_alive = False
        await super().send(message)


def raw_response(
    error: ProblemError, headers: Iterable[tuple[bytes, bytes]], method: bytes
) -> bytes:
    """The bytes of a problem response that closes its connection. `headers`: the server's own."""
    answer = problems.response(error.problem, error.headers)
    answer.headers["x-request-id"] = str(uuid.uuid4())
    answer.headers["connection"] = "close"
    lines = b"".join(b"%b: %b\r\n" % pair for pair in (*headers, *answer.raw_headers))
    content = b"" if method == b"HEAD" else bytes(answer.body)
    return STATUS_LINE[answer.status_code] + lines + b"\r\n" + content
