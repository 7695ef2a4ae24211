"""Bad calls get a problem with a place and a rule, and without a value of the call."""

import copy
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.schemas.fhir.test_any_bundle import ODD_VALUES, places, set_at
from tests.service.interop.cds_hooks.conftest import FULL
from tests.support.inputs import hook_calls
from tests.support.servers.refusals import CANARY, NUMBER, assert_refused

CALL = hook_calls.call(FULL)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        f'{{"hook": "{CANARY}'.encode(),
        f"<Parameters>{CANARY}</Parameters>".encode(),
        json.dumps({"hook": CANARY}).encode("utf-16"),
        b'{"prefetch":' * 20_000 + f'"{CANARY}"'.encode() + b"}" * 20_000,
    ],
    ids=["empty", "cut off", "XML", "UTF-16", "deep"],
)
def test_a_body_that_is_not_json_is_400(cds, body):
    assert_refused(cds.service, cds.post(body), 400, ("", "json"))


def test_a_deep_resource_is_refused(cds, call):
    deep: Any = {}
    for _ in range(400):
        deep = {"extension": [deep]}
    call["prefetch"]["patient"]["extension"] = [deep]
    answer = cds.post(call)
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("body", [[CANARY], CANARY, NUMBER, None], ids=repr)
def test_json_that_is_not_an_object_is_422(cds, body):
    content = json.dumps(body).encode()
    assert_refused(cds.service, cds.post(content), 422, ("", "object"))


def test_a_repeated_name_is_refused(cds, call):
    text = json.dumps(call).replace('"hook": ', f'"hook": "{CANARY}", "hook": ', 1)
    assert_refused(cds.service, cds.post(text.encode()), 422, ("", "repeated_name"))


@pytest.mark.parametrize("media_type", ["application/fhir+json", "text/plain", "application/xml"])
def test_another_media_type_is_415(cds, call, media_type):
    answer = cds.post(call, **{"Content-Type": media_type})
    assert_refused(cds.service, answer, 415)
    assert answer.headers["accept"] == "application/json"


def test_a_body_of_33_megabytes_is_413(repeating):
    answer = repeating.post(b'{"hook":"' + b"x" * 33 * 2**20 + b'"}')
    assert_refused(repeating.service, answer, 413)


@pytest.mark.parametrize("path", [CANARY, f"{CANARY}/feedback"])
def test_an_unknown_service_is_404(cds, call, path):
    answer = cds.service.client.post(f"/cds-services/{path}", json=call)
    assert_refused(cds.service, answer, 404)


@pytest.mark.parametrize("hook", ["encounter-start", "order-sign", CANARY])
def test_a_hook_of_another_service_is_refused(cds, call, hook):
    call["hook"] = hook
    answer = cds.post(call, "m3h-patient-view")
    assert_refused(cds.service, answer, 422, ("/hook", "hook"))


@pytest.mark.parametrize(
    ("pointer", "value", "rule"),
    [
        ("/hook", "", "not_empty"),
        ("/hook", 7, "string"),
        ("/hookInstance", CANARY, "uuid"),
        ("/hookInstance", None, "string"),
        ("/context", None, "object"),
        ("/context", [], "object"),
        ("/context/userId", "Quillfeather", "user_id"),
        ("/context/userId", "Device/1", "user_id"),
        ("/context/userId", "Patient/8675309", "clinician"),
        ("/context/userId", "RelatedPerson/8675309", "clinician"),
        ("/context/patientId", CANARY, "fhir_id"),
        ("/context/patientId", 8675309, "string"),
        ("/context/encounterId", "x" * 65, "fhir_id"),
        ("/prefetch", None, "object"),
        ("/prefetch", [], "object"),
        ("/prefetch/patient", [], "resource_type"),
        ("/prefetch/patient", {"id": CANARY}, "resource_type"),
        ("/prefetch/patient/id", "p-8675309", "one_patient"),
        ("/prefetch/patient/birthDate", CANARY, "date"),
        ("/prefetch/observations/entry", {}, "array"),
        ("/prefetch/observations/entry/0", {}, "resource_type"),
        (
            "/prefetch/observations/entry/0/resource/subject/reference",
            "Patient/8675309",
            "one_patient",
        ),
        (
            "/prefetch/observations/entry/1/resource/effectiveDateTime",
            CANARY,
            "time_zone",
        ),
        ("/extension", None, "object"),
        ("/extension/urn:m3h:as-of", "2031-05-04", "time_zone"),
        ("/extension/urn:m3h:as-of", NUMBER, "string_type"),
    ],
)
def test_a_wrong_value_is_named_by_its_place(cds, call, pointer, value, rule):
    parts = [int(p) if p.isdecimal() else p for p in pointer.split("/")[1:]]
    set_at(call, tuple(parts), value)
    assert_refused(cds.service, cds.post(call, "m3h-patient-view"), 422, (pointer, rule))


@pytest.mark.parametrize(
    "pointer", ["/hook", "/hookInstance", "/context", "/context/userId", "/context/patientId"]
)
def test_a_missing_field_is_named(cds, call, pointer):
    *heads, last = pointer.split("/")[1:]
    parent = call
    for head in heads:
        parent = parent[head]
    del parent[last]
    assert_refused(cds.service, cds.post(call, "m3h-patient-view"), 422, (pointer, "required"))


@pytest.mark.parametrize("hook", ["encounter-start", "encounter-discharge"])
def test_an_encounter_hook_needs_its_encounter(cds, hook):
    call = hook_calls.call(FULL, hook)
    del call["context"]["encounterId"]
    expected = ("/context/encounterId", "required")
    assert_refused(cds.service, cds.post(call), 422, expected)
    call = hook_calls.call(FULL, hook)
    call["prefetch"]["encounter"] = None
    assert_refused(cds.service, cds.post(call), 412, ("/prefetch/encounter", "required"))
    other = FULL["entry"][1]["resource"] | {"id": "other"}
    call["prefetch"]["encounter"] = other
    assert_refused(cds.service, cds.post(call), 422, ("/prefetch/encounter/id", "one_encounter"))


def test_two_patients_are_refused(cds, call):
    second = call["prefetch"]["patient"] | {"id": "p-other"}
    call["prefetch"]["patient"] = hook_calls.searchset(call["prefetch"]["patient"], second)
    expected = ("/prefetch/patient/entry/1/resource/id", "one_patient")
    assert_refused(cds.service, cds.post(call), 422, expected)


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (None, "required"),
        (hook_calls.searchset(), "required"),
        ({"resourceType": "OperationOutcome", "issue": []}, "prefetch_failed"),
    ],
    ids=["null", "empty", "failed"],
)
def test_a_call_without_the_patient_is_412(cds, call, value, rule):
    call["prefetch"]["patient"] = value
    assert_refused(cds.service, cds.post(call), 412, ("/prefetch/patient", rule))


@pytest.mark.parametrize("severity", ["fatal", "error", "warning", "information"])
def test_a_failed_search_is_412_and_a_warning_is_not(cds, call, severity):
    outcome = {
        "resourceType": "OperationOutcome",
        "issue": [{"severity": severity, "code": "processing", "diagnostics": CANARY}],
    }
    entries = call["prefetch"]["observations"]["entry"]
    entries.append({"resource": outcome, "search": {"mode": "outcome"}})
    answer = cds.post(call)
    if severity in ("fatal", "error"):
        pointer = f"/prefetch/observations/entry/{len(entries) - 1}/resource"
        assert_refused(cds.service, answer, 412, (pointer, "prefetch_failed"))
    else:
        assert answer.status_code == 200


def test_other_prefetch_keys_and_fields_are_not_read(cds, call):
    call["prefetch"]["coverage"] = {"resourceType": CANARY}
    call["context"]["next"] = {"of": "version 3"}
    call["fhirAuthorization"] = {"access_token": CANARY, "token_type": "Bearer"}
    call["fhirServer"] = "https://ehr.example/fhir"
    answer = cds.post(call)
    assert answer.status_code == 200
    assert CANARY not in answer.text + cds.service.written()


@settings(max_examples=150)
@given(
    st.lists(st.sampled_from(places(CALL)), min_size=1, max_size=3),
    st.randoms(use_true_random=False),
)
def test_any_change_is_answered_or_refused_with_a_place(repeating, changes, draw):
    """No element of any type makes the service fail in another way."""
    body = copy.deepcopy(CALL)
    for path in changes:
        set_at(body, path, draw.choice(ODD_VALUES))
    answer = repeating.post(body, "m3h-patient-view")
    assert answer.status_code in (200, 412, 422), answer.text
    for error in answer.json().get("errors", ()):
        assert error["rule"]
        assert re.match(r"/(hook|context|prefetch|extension)", error["pointer"])
