"""The HL7 v2 interface of the shipped bundle."""

from typing import Any

import pytest

from tests.support.inputs.hl7_messages import NAME, NUMBER, errors_of, named

ER7 = "application/hl7-v2"


class Hl7:
    """Sends messages to a running app."""

    def __init__(self, service: Any) -> None:
        self.service = service

    def post(
        self, body: str | bytes, accept: str | None = None, type_: str = ER7, **parameters: str
    ) -> Any:
        content = body.encode() if isinstance(body, str) else body
        headers = {"Content-Type": type_} | ({"Accept": accept} if accept else {})
        return self.service.client.post(
            "/hl7v2", content=content, headers=headers, params=parameters
        )

    def acknowledged(self, body: str | bytes, **parameters: str) -> str:
        """The ER7 answer to a message that is accepted."""
        answer = self.post(body, **parameters)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == ER7
        assert named(answer.text, "MSA")[0][1] == "AA"
        self._assert_private(answer)
        return answer.text

    def predict(self, body: str | bytes, **parameters: str) -> Any:
        """The answer in JSON."""
        answer = self.post(body, "application/json", **parameters)
        assert answer.status_code == 200, answer.text
        self._assert_private(answer)
        return answer.json()

    def refuse(
        self, body: str | bytes, code: str, *expected: tuple[str, str], **parameters: str
    ) -> str:
        """Asserts an error acknowledgement with the (location, rule) pairs, and without input."""
        answer = self.post(body, **parameters)
        assert answer.status_code in (400, 422), answer.text
        assert answer.headers["content-type"] == ER7
        assert named(answer.text, "MSA")[0][1] == code, answer.text
        assert errors_of(answer.text) == set(expected)
        self._assert_private(answer)
        problem = self.post(body, "application/json", **parameters)
        assert problem.headers["content-type"] == "application/problem+json"
        assert {(e["pointer"], e["rule"]) for e in problem.json()["errors"]} == set(expected)
        self._assert_private(problem)
        return answer.text

    def _assert_private(self, answer: Any) -> None:
        written = self.service.written()
        for secret in (NAME, NUMBER):
            assert secret not in answer.text
            assert secret not in written


@pytest.fixture(scope="session")
def hl7(service: Any) -> Hl7:
    return Hl7(service)


def reasons(answer: Any) -> set[tuple[str, str]]:
    """Location and reason of each part that was not read or not used."""
    receipt = answer["receipt"]
    listed = [*receipt["not_read"], *receipt["ignored"]]
    return {(place, e["reason"]) for e in listed for place in e.get("pointers") or [e["pointer"]]}


def used(answer: Any) -> dict[str, int]:
    return {entry["variable"]: entry["observations"] for entry in answer["receipt"]["used"]}
