"""A FHIR Bundle and the equal payload give equal predictions."""

import gzip
import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.service.conftest import png
from tests.service.interop.fhir.conftest import Answer, native_numbers
from tests.support.inputs import fhir_bundles as make

ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def full() -> tuple[Any, Any]:
    return make.full_stay(png(96, 80))


def test_a_bundle_and_the_equal_payload_give_equal_predictions(fhir, service, full):
    bundle, payload = full
    answer = fhir.predict(bundle)
    native = service.predict(payload, explain="none")
    assert answer.numbers() == native_numbers(native)
    assert len(answer.numbers()) == 44


def test_parameters_with_a_bundle_give_the_same_predictions(fhir, full):
    bundle, _ = full
    without_time = {k: v for k, v in bundle.items() if k != "timestamp"}
    parameters = {
        "resourceType": "Parameters",
        "parameter": [
            {"name": "asOf", "valueInstant": bundle["timestamp"]},
            {"name": "bundle", "resource": without_time},
        ],
    }
    answer = fhir.predict(parameters)
    assert answer.numbers() == fhir.predict(bundle).numbers()
    places = [*answer.expressions()]
    assert all(place.startswith("Parameters.parameter[1].resource") for place in places)


@pytest.mark.parametrize("kind", ["searchset", "batch", "transaction"])
def test_the_type_of_the_bundle_does_not_matter(fhir, full, kind):
    bundle, _ = full
    assert fhir.predict(bundle | {"type": kind}).numbers() == fhir.predict(bundle).numbers()


def test_the_parameter_as_of_precedes_the_timestamp(fhir, full):
    bundle, _ = full
    later = bundle | {"timestamp": "2031-06-01T00:00:00Z"}
    answer = fhir.predict(later, as_of=bundle["timestamp"])
    assert answer.numbers() == fhir.predict(bundle).numbers()


@pytest.mark.parametrize("name", ["heart_failure", "septic_shock", "vitals_only", "minimal"])
def test_an_example_gives_equal_predictions_as_a_bundle(large_fhir, name):
    payload = json.loads((ROOT / "examples" / f"{name}.json").read_text(encoding="utf-8"))
    answer = large_fhir.predict(make.from_payload(payload))
    native = large_fhir.service.predict(make.with_measured_weight(payload), explain="none")
    assert answer.numbers() == native_numbers(native)


def synthea_files(open_data: Any) -> list[Path]:
    return sorted((open_data("synthea-fhir-r4") / "synthea-fhir-r4").glob("*.json.gz"))


def as_of_of(bundle: dict[str, Any]) -> str:
    """Half an hour after the start of the last stay, otherwise the last observation."""
    resources = [entry["resource"] for entry in bundle["entry"]]
    stays = [
        r["period"]["start"]
        for r in resources
        if r["resourceType"] == "Encounter" and r["class"]["code"] in ("IMP", "EMER")
    ]
    if stays:
        return (datetime.fromisoformat(max(stays)) + timedelta(minutes=30)).isoformat()
    return max(r["effectiveDateTime"] for r in resources if r["resourceType"] == "Observation")


@pytest.mark.parametrize("number", range(20))
def test_a_synthea_patient_gets_44_outcomes(large_fhir, open_data, number):
    body = gzip.decompress(synthea_files(open_data)[number].read_bytes())
    bundle = json.loads(body)
    answer = large_fhir.post(body, as_of=as_of_of(bundle))
    assert answer.status_code == 200, answer.text
    result = Answer(answer.json())
    assert len(result.outcomes()) == 44
    large_fhir.validator.assert_valid(result.bundle, [*result.expressions()], bundle)


def test_every_code_of_synthea_is_read_or_named_with_a_reason(large_fhir, open_data, bundle):
    """No Observation of a Bundle is missing from the receipt."""
    body = gzip.decompress(synthea_files(open_data)[-1].read_bytes())
    sent = json.loads(body)
    answer = Answer(large_fhir.post(body, as_of="2030-01-01T00:00:00Z").json())
    listed = sum(
        int(issue.get("diagnostics", f"{len(issue.get('expression', ()))} ").split()[0])
        for issue in answer.issues()
        if any("entry[" in place for place in issue.get("expression", ()))
    )
    parts = sum(
        len(entry["resource"].get("component", [0]))
        for entry in sent["entry"]
        if entry["resource"]["resourceType"] == "Observation"
    )
    assert listed >= parts
