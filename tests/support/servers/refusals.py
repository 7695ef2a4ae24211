"""Asserts that a bad request is refused, and that its values appear nowhere."""

import json
from typing import Any

from tests.support.servers.http_client import JSON

CANARY = "Zanzibar Quillfeather"
NUMBER = 8675309.125


def assert_refused(
    service: Any, answer: Any, status: int, *expected: tuple[str, str]
) -> dict[str, Any]:
    """Asserts a problem document with the (pointer, rule) pairs, and without input."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert {"type", "title", "detail"} <= problem.keys()
    errors = {(e.get("pointer", e.get("parameter")), e["rule"]) for e in problem.get("errors", ())}
    assert set(expected) <= errors, errors
    for secret in (CANARY, "Quillfeather", str(NUMBER), "8675309"):
        assert secret not in answer.text
        assert secret not in str(answer.headers)
        assert secret not in service.written()
    return problem


def post(service: Any, body: Any, **parameters: str) -> Any:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return service.client.post("/predict", content=content, headers=JSON, params=parameters)
