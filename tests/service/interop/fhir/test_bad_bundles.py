"""Errors are OperationOutcomes with FHIRPath and rule, and never contain a value of the request."""

import json
from typing import Any

import pytest

from service.runtime.engine import Engine
from tests.service.interop.fhir.conftest import FHIR_JSON
from tests.support.inputs import fhir_bundles as make
from tests.support.servers.refusals import CANARY, NUMBER

FIRST = "Bundle.entry[1].resource"
DEEP = 100_000


@pytest.mark.parametrize(
    "body",
    [
        b"",
        f'{{"resourceType": "{CANARY}'.encode(),
        f'<Bundle xmlns="http://hl7.org/fhir"><id value="{CANARY}"/></Bundle>'.encode(),
        json.dumps({"resourceType": CANARY}).encode("utf-16"),
        b'{"id": "' + CANARY.encode() + b'\xff"}',
        b"[" * DEEP,
        b'{"a":' * 500 + f'"{CANARY}"'.encode() + b"}" * 500,
        b'{"value": ' + b"9" * 5000 + b"e99999}",
    ],
    ids=["empty", "cut off", "XML", "UTF-16", "not UTF-8", "deep", "deep objects", "number"],
)
def test_a_body_that_is_not_json_is_400(fhir, body):
    fhir.refuse(body, 400, ("", "json"))


@pytest.mark.parametrize(
    ("media_type", "status"),
    [
        ("application/fhir+json", 200),
        ("application/fhir+json; charset=utf-8; fhirVersion=4.0", 200),
        ("application/json", 200),
        ("application/fhir+json; fhirVersion=5.0", 415),
        ("application/fhir+xml", 415),
        ("application/fhir+json; charset=iso-8859-1", 415),
        ("application/dicom", 415),
        ("text/plain", 415),
    ],
)
def test_the_media_type_must_be_json_in_utf_8(fhir, media_type, status):
    answer = fhir.post(make.bundle(make.heart_rate()), {"Content-Type": media_type})
    assert answer.status_code == status
    if status == 415:
        fhir.assert_refused(answer, 415, ("", "unsupported-media-type"))


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("application/fhir+json", 200),
        ("*/*", 200),
        ("application/fhir+xml", 406),
        ("text/html", 406),
    ],
)
def test_the_answer_is_json_or_not_acceptable(fhir, accept, status):
    answer = fhir.post(make.bundle(make.heart_rate()), FHIR_JSON | {"Accept": accept})
    assert answer.status_code == status
    assert fhir.post(make.bundle(make.heart_rate()), _format="xml").status_code == 406
    assert fhir.post(make.bundle(make.heart_rate()), _format="json").status_code == 200


def test_a_long_body_is_413(fhir, settings):
    fhir.refuse(b" " * (settings.max_body_bytes + 1), 413, ("", "body-too-large"))


@pytest.mark.parametrize(
    ("body", "place", "rule"),
    [
        ({"resourceType": "Patient", "name": [{"text": CANARY}]}, "resourceType", "resource_type"),
        ({"resourceType": CANARY}, "resourceType", "resource_type"),
        ([], "", "resource_type"),
        (CANARY, "", "resource_type"),
        (make.bundle(kind="history"), "Bundle.type", "bundle_type"),
        (make.bundle(kind=CANARY), "Bundle.type", "bundle_type"),
        (make.bundle() | {"entry": CANARY}, "Bundle.entry", "array"),
        (make.bundle() | {"entry": [CANARY]}, "Bundle.entry[0].resource", "resource_type"),
        (make.bundle({"resourceType": 5}), FIRST, "resource_type"),
        (make.bundle({"resourceType": CANARY}), FIRST, "resource_type"),
        (make.bundle(kind="collection", timestamp=None), "Bundle.timestamp", "required"),
        (make.bundle(timestamp="2031-05-04"), "Bundle.timestamp", "time_zone"),
        (make.bundle(timestamp="2031-05-04T12:00:00"), "Bundle.timestamp", "time_zone"),
        (make.bundle(timestamp=CANARY), "Bundle.timestamp", "time_zone"),
        ({"resourceType": "Parameters"}, "Parameters.parameter", "required"),
        (
            {"resourceType": "Parameters", "parameter": [{"name": CANARY}]},
            "Parameters.parameter[0].name",
            "unknown_parameter",
        ),
    ],
)
def test_a_wrong_structure_is_422(fhir, body, place, rule):
    fhir.refuse(body, 422, (place, rule))


@pytest.mark.parametrize(
    ("as_of", "rule"), [("2031-05-04", "time_zone"), (CANARY, "time_zone"), ("12", "time_zone")]
)
def test_a_wrong_parameter_as_of_is_422(fhir, as_of, rule):
    fhir.refuse(make.bundle(make.heart_rate()), 422, ("http.as_of", rule), as_of=as_of)


def test_an_unknown_parameter_is_422(fhir):
    fhir.refuse(make.bundle(), 422, ("http.explain", "unknown_parameter"), explain="none")


def test_a_plus_in_the_parameter_as_of_may_be_unescaped(fhir):
    answer = fhir.predict(make.bundle(make.heart_rate()), as_of="2031-05-04T13:00:00 01:00")
    assert answer.numbers() == fhir.predict(make.bundle(make.heart_rate())).numbers()


def changed(**fields: Any) -> Any:
    resource = make.heart_rate() | fields
    return make.bundle({k: v for k, v in resource.items() if v is not None})


@pytest.mark.parametrize(
    ("body", "place", "rule"),
    [
        (changed(valueQuantity={"value": CANARY}), f"{FIRST}.value.value", "decimal"),
        (changed(valueQuantity={"value": "90"}), f"{FIRST}.value.value", "decimal"),
        (changed(valueQuantity={"value": True}), f"{FIRST}.value.value", "decimal"),
        (changed(valueQuantity={"value": 10**16}), f"{FIRST}.value.value", "finite_number"),
        (changed(valueQuantity=CANARY), f"{FIRST}.value", "object"),
        (changed(valueQuantity={"value": 1, "unit": 5}), f"{FIRST}.value.unit", "string"),
        (
            changed(valueQuantity={"value": 1, "comparator": CANARY}),
            f"{FIRST}.value.comparator",
            "allowed_values",
        ),
        (changed(effectiveDateTime=CANARY), f"{FIRST}.effective", "time_zone"),
        (changed(effectiveDateTime=5), f"{FIRST}.effective", "date_time"),
        (changed(effectiveDateTime="2031-05-04T12:00:00"), f"{FIRST}.effective", "time_zone"),
        (changed(effectiveDateTime="2031-02-30"), f"{FIRST}.effective", "date_time"),
        (changed(subject=None), f"{FIRST}.subject", "required"),
        (changed(subject={"display": CANARY}), f"{FIRST}.subject", "required"),
        (changed(subject={"reference": "Patient/2"}), f"{FIRST}.subject.reference", "one_patient"),
        (make.bundle(make.patient(id="2")), FIRST, "one_patient"),
        (
            make.bundle(make.heart_rate(id="a"), make.heart_rate(5, id="a")),
            "Bundle.entry[2].resource",
            "duplicate_resource",
        ),
        (make.bundle(make.note("x", 1, date=CANARY)), f"{FIRST}.date", "time_zone"),
    ],
)
def test_a_wrong_element_is_422_at_its_place(fhir, body, place, rule):
    fhir.refuse(body, 422, (place, rule))


def test_a_patient_of_another_bundle_is_an_error_for_every_type(fhir):
    condition = {"resourceType": "Condition", "subject": {"reference": "Patient/2"}}
    body = make.bundle(condition, make.heart_rate())
    fhir.refuse(body, 422, (f"{FIRST}.subject.reference", "one_patient"))


def test_a_birth_date_after_as_of_is_an_error(fhir):
    body = make.bundle(make.heart_rate())
    body["entry"][0]["resource"]["birthDate"] = "2099-01-01"
    fhir.refuse(body, 422, ("Bundle.entry[0].resource.birthDate", "ordered"))


def test_a_panel_that_holds_itself_is_an_error(fhir):
    loop = make.heart_rate(id="a", hasMember=[{"reference": "Observation/b"}])
    back = make.heart_rate(80, 2, id="b", hasMember=[{"reference": "Observation/a"}])
    places = [(f"Bundle.entry[{i}].resource.hasMember", "reference_loop") for i in (1, 2)]
    fhir.refuse(make.bundle(loop, back), 422, *places)


def test_a_reference_out_of_the_bundle_is_listed_and_refused_if_strict(fhir):
    panel = make.heart_rate(hasMember=[{"reference": f"Observation/{CANARY}"}])
    drug = make.administration("x", 1, medicationReference={"reference": "Medication/1"})
    del drug["medicationCodeableConcept"]
    body = make.bundle(panel, drug)
    expected = {
        (f"{FIRST}.hasMember[0]", "dangling_reference"),
        ("Bundle.entry[2].resource.medication", "dangling_reference"),
    }
    answer = fhir.post(body)
    assert CANARY not in answer.text
    assert expected <= fhir.predict(body).reasons()
    fhir.refuse(body, 422, *expected, strict="true")


def test_a_repeated_json_name_is_an_error(fhir):
    text = json.dumps(make.bundle(make.heart_rate()))
    twice = text.replace('"value": 121.5', f'"value": 121.5, "value": {NUMBER}')
    fhir.refuse(twice.encode(), 422, (FIRST, "repeated_name"))


def test_a_repeated_json_name_in_a_long_body_is_an_error(large_fhir):
    long = {"resourceType": "Binary", "contentType": "x", "data": "A" * 1_200_000}
    text = json.dumps(make.bundle(make.heart_rate(), long))
    assert large_fhir.post(text.encode()).status_code == 200
    twice = text.replace('"value": 121.5', f'"value": 121.5, "value": {NUMBER}')
    large_fhir.refuse(twice.encode(), 422, (FIRST, "repeated_name"))


def test_a_bundle_without_anything_that_is_read_lists_what_it_holds(fhir):
    body = make.bundle({"resourceType": "Condition", "subject": {"reference": make.PATIENT}})
    body["entry"][0]["resource"] = {"resourceType": "Patient"}
    fhir.refuse(body, 422, ("Bundle", "not_empty"), (FIRST, "resource_not_read"))


def test_too_many_entries_are_an_error(large_fhir):
    body = make.bundle() | {"entry": [{}] * 100_001}
    large_fhir.refuse(body, 422, ("Bundle.entry", "max_items"))


def test_a_hundred_thousand_entries_are_answered(large_fhir):
    entry = b'{"resource":{"resourceType":"Slot"}}'
    body = json.dumps(make.bundle(make.heart_rate())).encode()
    body = body.replace(b'"entry": [', b'"entry": [' + (entry + b",") * 99_000)
    answer = large_fhir.post(body)
    assert answer.status_code == 200, answer.text[:500]


def test_no_more_than_a_hundred_errors_are_listed(fhir):
    body = make.bundle(*[make.heart_rate(effectiveDateTime=CANARY) for _ in range(150)])
    assert len(fhir.refuse(body, 422)["issue"]) == 100


@pytest.mark.parametrize("path", ["/fhir/Patient/1", "/fhir", "/fhir/$predict/x"])
def test_an_unknown_path_under_fhir_is_an_operation_outcome(fhir, path):
    fhir.assert_refused(fhir.service.client.get(path), 404, ("", "not-found"))


def test_a_wrong_method_is_an_operation_outcome(fhir):
    answer = fhir.service.client.get("/fhir/$predict")
    fhir.assert_refused(answer, 405, ("", "method-not-allowed"))
    assert answer.headers["allow"] == "POST"


def test_other_paths_still_answer_problem_documents(service):
    answer = service.client.get("/fhirs")
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_repeated_parameter_is_an_error(fhir):
    answer = fhir.service.client.post(
        "/fhir/$predict?strict=true&strict=false",
        content=json.dumps(make.bundle()),
        headers=FHIR_JSON,
    )
    fhir.assert_refused(answer, 422, ("http.strict", "repeated"))


def test_a_request_that_cannot_meet_its_deadline_is_an_operation_outcome(fhir):
    headers = FHIR_JSON | {"M3H-Deadline-Ms": "1"}
    note = make.note("Patient is febrile. " * 8000, 2)
    fhir.assert_refused(fhir.post(make.bundle(note), headers), 504, ("", "late"))


def test_the_service_is_not_ready_before_it_is_verified(serve, bundle, fhir):
    client = serve(Engine(bundle)).client
    answer = client.post("/fhir/$predict", content=b"{}", headers=FHIR_JSON)
    fhir.assert_refused(answer, 503, ("", "not-ready"))
    assert answer.headers["retry-after"] == "5"


def test_one_page_of_a_search_is_listed_as_incomplete(fhir):
    link = [{"relation": "next", "url": "http://ehr/fhir?page=2"}]
    body = make.bundle(make.heart_rate(), kind="searchset", link=link)
    assert ("Bundle.link", "incomplete_bundle") in fhir.predict(body).reasons()
    fhir.refuse(body, 422, ("Bundle.link", "incomplete_bundle"), strict="true")


def test_equal_ids_of_two_servers_are_two_resources(fhir):
    body = make.bundle(make.heart_rate(90, 2, id="1"), make.heart_rate(80, 1, id="1"))
    for entry, server in zip(body["entry"][1:], ("http://a", "http://b"), strict=True):
        entry["fullUrl"] = f"{server}/Observation/1"
    assert fhir.predict(body).used() == {"heart_rate": 2}


def test_the_patient_of_another_server_is_another_patient(fhir):
    body = make.bundle(make.heart_rate(subject={"reference": "http://b/fhir/Patient/1"}))
    body["entry"][0] = {"fullUrl": "http://a/fhir/Patient/1", "resource": make.patient(id="1")}
    fhir.refuse(body, 422, (f"{FIRST}.subject.reference", "one_patient"))
