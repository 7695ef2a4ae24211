"""The FHIR interface of the shipped bundle, and an offline R4 validator."""

import json
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.servers.fhir_validator import PACKAGE, FhirValidator

FHIR_JSON = {"Content-Type": "application/fhir+json"}


class Fhir:
    """Sends Bundles to a running app."""

    def __init__(self, service: Any, validator: FhirValidator) -> None:
        self.service, self.validator = service, validator

    def post(self, body: Any, headers: dict[str, str] = FHIR_JSON, **parameters: str) -> Any:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.service.client.post(
            "/fhir/$predict", content=content, headers=headers, params=parameters
        )

    def predict(self, body: Any, **parameters: str) -> "Answer":
        """The answer to a Bundle, which must be valid FHIR."""
        answer = self.post(body, **parameters)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/fhir+json"
        result = Answer(answer.json())
        self.validator.assert_valid(result.bundle, [*result.expressions()], body)
        return result

    def refuse(self, body: Any, status: int, *expected: tuple[str, str], **parameters: str) -> Any:
        """Asserts an OperationOutcome with the (expression, rule) pairs, and without input."""
        answer = self.post(body, **parameters)
        return self.assert_refused(answer, status, *expected)

    def assert_refused(self, answer: Any, status: int, *expected: tuple[str, str]) -> Any:
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/fhir+json"
        outcome = answer.json()
        self.validator.assert_valid(outcome)
        found = {(place, rule_of(i)) for i in outcome["issue"] for place in places_of(i)}
        assert set(expected) <= found, found
        for secret in ("Quillfeather", "8675309"):
            assert secret not in answer.text
            assert secret not in str(answer.headers)
            assert secret not in self.service.written()
        return outcome


def rule_of(issue: dict[str, Any]) -> str:
    return issue["details"]["coding"][0]["code"]


def places_of(issue: dict[str, Any]) -> list[str]:
    return issue.get("expression") or issue.get("location") or [""]


class Answer:
    """The Bundle of an answer."""

    def __init__(self, bundle: dict[str, Any]) -> None:
        self.bundle = bundle
        self.resources = [entry["resource"] for entry in bundle["entry"]]

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        return [r for r in self.resources if r["resourceType"] == kind]

    def outcomes(self) -> dict[str, dict[str, Any]]:
        """The RiskAssessments and Observations by name of their task."""
        kinds = ("RiskAssessment", "Observation")
        found = [r for r in self.resources if r["resourceType"] in kinds]
        return {r["code"]["coding"][0]["code"]: r for r in found}

    def issues(self) -> list[dict[str, Any]]:
        (receipt,) = self.of_type("OperationOutcome")
        return receipt["issue"]

    def expressions(self) -> Iterator[str]:
        for issue in self.issues():
            yield from issue.get("expression", ())

    def reasons(self) -> set[tuple[str, str]]:
        """The (expression, rule) pairs of the receipt."""
        return {(place, rule_of(i)) for i in self.issues() for place in places_of(i)}

    def details(self, rule: str) -> list[str]:
        return [i["details"]["text"] for i in self.issues() if rule_of(i) == rule]

    def used(self) -> dict[str, int]:
        """The number of used observations by variable."""
        used = (detail.split(": ") for detail in self.details("used") if "observations" in detail)
        return {variable: int(rest.split()[0]) for variable, rest in used}

    def numbers(self) -> dict[str, Any]:
        """The number or numbers of each task; None for a task that abstains."""
        return {task: _numbers(resource) for task, resource in self.outcomes().items()}


def _numbers(resource: dict[str, Any]) -> Any:
    if resource["status"] == "cancelled":
        return None
    if resource["resourceType"] == "RiskAssessment":
        return [p["probabilityDecimal"] for p in resource["prediction"]]
    if "component" in resource:
        return [c["valueQuantity"]["value"] for c in resource["component"]]
    return [resource["valueQuantity"]["value"]]


def native_numbers(answer: dict[str, Any]) -> dict[str, Any]:
    """The same numbers of an answer of `POST /predict`."""

    def numbers(p: dict[str, Any]) -> Any:
        if "probability" in p:
            return [p["probability"]]
        return [*p["probabilities"].values()] if "probabilities" in p else [p["value"]]

    return {p["task"]: None if "abstained" in p else numbers(p) for p in answer["predictions"]}


@pytest.fixture(scope="session")
def validator() -> Iterator[FhirValidator]:
    node = shutil.which("node")
    if node is None or not PACKAGE.is_dir():
        pytest.skip("the FHIR validator needs Node.js and web/node_modules (npm ci in web/)")
    validator = FhirValidator(node)
    yield validator
    validator.close()


@pytest.fixture(scope="session")
def fhir(service: Any, validator: FhirValidator) -> Fhir:
    return Fhir(service, validator)


@pytest.fixture(scope="session")
def large_fhir(serve: Any, engine: Any, validator: FhirValidator) -> Fhir:
    """The interface with the default limit of the size of a body."""
    return Fhir(serve(engine, max_body_bytes=32 * 2**20, max_batch=64), validator)
