"""NDJSON: one Bundle for each line, and one Bundle or OperationOutcome for each line back."""

import json
from typing import Any

from tests.service.interop.fhir.conftest import Answer
from tests.support.inputs import fhir_bundles as make

NDJSON = {"Content-Type": "application/fhir+ndjson"}


def lines(*documents: Any) -> bytes:
    return b"".join(
        (d if isinstance(d, bytes) else json.dumps(d).encode()) + b"\n" for d in documents
    )


def test_each_line_is_answered_in_order(fhir, validator):
    first, second = make.bundle(make.heart_rate(90)), make.bundle(make.heart_rate(140))
    wrong = make.bundle(make.heart_rate(valueQuantity={"value": "Quillfeather"}))
    answer = fhir.post(lines(first, wrong, b"<Bundle/>", second), NDJSON)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/fhir+ndjson"
    assert "Quillfeather" not in answer.text
    answers = [json.loads(line) for line in answer.text.splitlines()]
    kinds = [a["resourceType"] for a in answers]
    assert kinds == ["Bundle", "OperationOutcome", "OperationOutcome", "Bundle"]
    for part in answers:
        validator.assert_valid(part)
    assert Answer(answers[0]).numbers() == fhir.predict(first).numbers()
    assert Answer(answers[3]).numbers() == fhir.predict(second).numbers()
    assert answers[1]["issue"][0]["expression"] == ["Bundle.entry[1].resource.value.value"]


def test_an_empty_line_is_no_bundle(fhir):
    answer = fhir.post(b"\n" + lines(make.bundle(make.heart_rate())) + b"\r\n\n", NDJSON)
    assert len(answer.text.splitlines()) == 1


def test_the_number_of_lines_is_limited(fhir, settings):
    many = lines(*[make.bundle(make.heart_rate())] * (settings.max_batch + 1))
    for body in (many, b"\n"):
        fhir.assert_refused(fhir.post(body, NDJSON), 422, ("", "item_count"))


def test_a_line_that_fails_is_counted(fhir, service):
    counter = 'm3h_batch_item_failures_total{status="422"} '

    def failures() -> float:
        found = service.client.get("/metrics").text.partition(counter)[2]
        return float(found.partition("\n")[0] or 0)

    before = failures()
    fhir.post(lines(make.bundle(timestamp=None), make.bundle(make.heart_rate())), NDJSON)
    assert failures() == before + 1
