"""The answer: one resource for each task, its provenance and its labels."""

import base64
import hashlib
import json
from typing import Any

import pytest

from schemas.tasks import load_tasks
from tests.service.conftest import png
from tests.support.inputs import fhir_bundles as make

AIAST = ("http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "AIAST")


@pytest.fixture(scope="module")
def answers(fhir, service) -> tuple[Any, Any]:
    """The answers to a Bundle and to the equal payload."""
    bundle, payload = make.full_stay(png(96, 80))
    return fhir.predict(bundle), service.predict(payload, explain="none")


def test_every_task_has_one_resource(answers):
    answer, native = answers
    assert [*answer.outcomes()] == [p["task"] for p in native["predictions"]]
    kinds = {task.name: task.kind for task in load_tasks()}
    for name, resource in answer.outcomes().items():
        expected = "RiskAssessment" if kinds[name] in ("binary", "multiclass") else "Observation"
        assert resource["resourceType"] == expected


def test_a_probability_has_its_code_period_interval_and_method(answers):
    answer, native = answers
    by_task = {p["task"]: p for p in native["predictions"]}
    for task in load_tasks():
        expected = by_task[task.name]
        if task.kind != "binary" or "abstained" in expected:
            continue
        assessment = answer.outcomes()[task.name]
        (prediction,) = assessment["prediction"]
        assert prediction["outcome"].get("coding", []) == [c.model_dump() for c in task.coding]
        assert prediction["probabilityDecimal"] == expected["probability"]
        assert prediction["rationale"] == expected["means"]
        ranges = [e["valueRange"] for e in prediction["extension"] if "valueRange" in e]
        ends = [{end: r[end]["value"] for end in ("low", "high")} for r in ranges]
        assert ends == [expected["interval"]]
        members = [e["valueString"] for e in prediction["extension"] if "valueString" in e]
        assert members == expected.get("set", [])
        start = make.ago(30) if task.is_disease else make.ago(0)
        assert prediction["whenPeriod"] == {"start": start}
        assert assessment["occurrenceDateTime"] == make.ago(0)
        assert native["model"]["version"] in assessment["method"]["text"]


def test_the_length_of_stay_is_in_days_with_its_interval(answers):
    answer, native = answers
    (expected,) = [p for p in native["predictions"] if p["task"] == "length_of_stay"]
    stay = answer.outcomes()["length_of_stay"]
    value = stay["valueQuantity"]
    assert (value["value"], value["code"]) == (expected["value"], "d")
    (interval,) = [e["valueRange"] for e in stay["extension"]]
    assert interval["low"]["value"] == expected["interval"]["low"]


def test_the_disposition_has_a_prediction_for_each_outcome(answers):
    answer, native = answers
    (expected,) = [p for p in native["predictions"] if p["task"] == "discharge_disposition"]
    predictions = answer.outcomes()["discharge_disposition"]["prediction"]
    found = {p["outcome"]["text"]: p["probabilityDecimal"] for p in predictions}
    assert found == {k.replace("_", " "): v for k, v in expected["probabilities"].items()}
    died = predictions[-1]["outcome"]["coding"][0]["code"]
    assert died == "exp"


def test_the_phenotype_is_a_class_with_its_description(answers):
    answer, native = answers
    (expected,) = [p for p in native["predictions"] if p["task"] == "phenotype"]
    phenotype = answer.outcomes()["phenotype"]
    assert phenotype["valueCodeableConcept"]["coding"][0]["code"] == str(expected["cluster"])
    assert phenotype["valueCodeableConcept"]["text"] == expected["description"]


def test_the_basis_references_the_used_resources_only(fhir):
    later = make.heart_rate(90, -1)
    implausible, old = make.heart_rate(9000, 2), make.heart_rate(90, 100)
    condition = {"resourceType": "Condition", "subject": {"reference": make.PATIENT}}
    body = make.bundle(later, implausible, old, condition, make.heart_rate(), make.note("x", 2000))
    urls = [entry["fullUrl"] for entry in body["entry"]]
    answer = fhir.predict(body)
    expected = {urls[0], urls[5]}
    for assessment in answer.of_type("RiskAssessment"):
        if assessment["status"] == "final":
            assert {r["reference"] for r in assessment["basis"]} == expected
    (provenance,) = answer.of_type("Provenance")
    sources = [e["what"]["reference"] for e in provenance["entity"] if e["role"] == "source"]
    assert set(sources) == expected


def test_old_data_of_a_whole_record_are_neither_used_nor_missing_from_the_receipt(large_fhir):
    """The receipt of a payload merges more than 100 entries; that of a Bundle counts all."""
    notes = [make.note(f"Note {i}", 2000 + i) for i in range(150)]
    values = [make.observation("2951-2", 139, "mmol/L", 100 + i) for i in range(150)]
    ended = {"start": make.ago(200), "end": make.ago(100)}
    drugs = [make.administration("propofol", 0, status="completed", effectivePeriod=ended)] * 120
    body = make.bundle(make.heart_rate(), *notes, *values, *drugs)
    answer = large_fhir.predict(body)
    (provenance,) = answer.of_type("Provenance")
    sources = [e["what"]["reference"] for e in provenance["entity"] if e["role"] == "source"]
    assert set(sources) == {entry["fullUrl"] for entry in body["entry"][:2]}
    places = [
        i["diagnostics"]
        for i in answer.issues()
        if i["details"]["coding"][0]["code"] == "before_window"
    ]
    assert [int(text.split()[0]) for text in places] == [270, 150]


def test_many_inputs_are_in_a_list_that_the_basis_references(large_fhir):
    observations = [make.heart_rate(80 + i / 10, 1 + i / 10) for i in range(150)]
    answer = large_fhir.predict(make.bundle(*observations))
    (inputs,) = [x for x in answer.of_type("List") if "notes" not in x["title"]]
    assert len(inputs["entry"]) == 151
    urls = {
        e["resource"]["title"]: e["fullUrl"]
        for e in answer.bundle["entry"]
        if "title" in e["resource"]
    }
    basis = answer.of_type("RiskAssessment")[0]["basis"]
    assert basis == [{"reference": urls[inputs["title"]]}]


def test_a_task_that_abstains_has_a_reason_and_no_number(fhir):
    body = make.bundle(make.chest_xray(png(96, 80), 6))
    del body["entry"][0]
    answer = fhir.predict(body)
    abstained = [r for r in answer.outcomes().values() if r["status"] == "cancelled"]
    assert abstained
    for resource in abstained:
        assert "valueQuantity" not in resource
        if resource["resourceType"] == "Observation":
            assert resource["dataAbsentReason"]["text"]
            continue
        for prediction in resource["prediction"]:
            assert "probabilityDecimal" not in prediction
            assert prediction["rationale"].startswith("No prediction: ")
            assert prediction["extension"][0]["valueCode"] in ("unknown", "unsupported")


def test_outcomes_and_provenance_are_labelled_as_made_by_ai(answers):
    answer, _ = answers
    for kind in ("RiskAssessment", "Observation", "Provenance"):
        for resource in answer.of_type(kind):
            (label,) = resource["meta"]["security"]
            assert (label["system"], label["code"]) == AIAST
    (label,) = answer.bundle["meta"]["security"]
    assert label["code"] == "AIAST"
    (provenance,) = answer.of_type("Provenance")
    assert provenance["reason"][0]["coding"][0]["code"] == "AIAST"
    targets = {target["reference"] for target in provenance["target"]}
    outcomes = [*answer.outcomes().values()]
    urls = {e["fullUrl"] for e in answer.bundle["entry"] if e["resource"] in outcomes}
    assert targets == urls


def test_the_device_is_the_model(answers):
    answer, native = answers
    (device,) = answer.of_type("Device")
    assert device["identifier"][0]["value"] == native["model"]["digest"]
    assert device["version"][0]["value"] == native["model"]["version"]
    assert device["deviceName"][0]["name"] == native["model"]["name"]


def test_the_model_card_is_a_link_with_its_digest(answers, service):
    answer, _ = answers
    (card,) = answer.of_type("DocumentReference")
    attachment = card["content"][0]["attachment"]
    content = service.client.get(attachment["url"]).content
    assert attachment["size"] == len(content)
    assert attachment["hash"] == base64.b64encode(hashlib.sha1(content).digest()).decode()


def test_every_internal_reference_resolves(answers):
    answer, _ = answers
    sent, _ = make.full_stay(png(96, 80))
    known = {e["fullUrl"] for e in (*answer.bundle["entry"], *sent["entry"])}
    assert set(references(answer.bundle)) <= known


def references(value: Any) -> Any:
    if isinstance(value, dict):
        if isinstance(value.get("reference"), str):
            yield value["reference"]
        value = [*value.values()]
    for part in value if isinstance(value, list) else ():
        yield from references(part)


def test_neither_the_log_nor_the_metrics_contain_a_value(fhir, service):
    text = "Zanzibar Quillfeather is febrile"
    body = make.bundle(make.note(text, 2), make.heart_rate(id="Quillfeather"))
    body["entry"][0]["resource"]["name"] = [{"family": "Quillfeather"}]
    answer = fhir.predict(body)
    assert "Quillfeather" not in str(
        [r for r in answer.resources if r["resourceType"] == "OperationOutcome"]
    )
    assert "Quillfeather" not in service.written()


def test_the_link_has_the_path_prefix_of_a_proxy(serve, engine):
    client = serve(engine, root_path="/m3h").client
    headers = {"Content-Type": "application/fhir+json"}
    body = json.dumps(make.bundle(make.heart_rate()))
    answer = client.post("/fhir/$predict", content=body, headers=headers)
    assert '"url":"/m3h/model-card"' in answer.text


def test_a_bundle_with_thousands_of_observations_is_answered(large_fhir):
    observations = [make.heart_rate(60.5 + i % 60, 1 + i / 80) for i in range(2_500)]
    answer = large_fhir.post(make.bundle(*observations))
    assert answer.status_code == 200
    (receipt,) = [r for r in resources_of(answer) if r["resourceType"] == "OperationOutcome"]
    used = [i["details"]["text"] for i in receipt["issue"]]
    assert "heart_rate: 2500 observations in /min" in used


def resources_of(answer: Any) -> list[dict[str, Any]]:
    return [entry["resource"] for entry in answer.json()["entry"]]
