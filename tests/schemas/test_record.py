"""A line of records is parsed or refused by pointer and rule. No value is ever echoed."""

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.payload import InvalidPayload, parse_payload
from schemas.record import TrainingRecord, parse_record
from tests.schemas.test_payload import CANARY, VALID, changed

RECORD = {
    "patient_id": "opaque",
    "stay_id": "stay",
    "group": "north",
    "payload": VALID,
    "outcomes": {"sepsis": True, "in_hospital_mortality": None, "length_of_stay": 4},
    "diagnosis_codes": ["A41.9", "250.00"],
}


def faults(record):
    body = record if isinstance(record, str | bytes) else json.dumps(record)
    with pytest.raises(InvalidPayload) as caught:
        parse_record(body)
    assert all(CANARY not in error.model_dump_json() for error in caught.value.errors)
    return {(error.pointer, error.rule) for error in caught.value.errors}


def test_a_valid_record_is_parsed():
    record = parse_record(json.dumps(RECORD))
    assert (record.patient, record.stay_id, record.group) == ("opaque", "stay", "north")
    assert record.payload == parse_payload(json.dumps(VALID))
    assert record.hours == 25.0
    assert record.outcomes == {"sepsis": True, "in_hospital_mortality": None, "length_of_stay": 4}


def test_the_payload_may_state_the_patient():
    record = {name: value for name, value in RECORD.items() if name != "patient_id"}
    assert parse_record(json.dumps(record)).patient == "opaque"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"patient_id": CANARY}, {("/patient_id", "same_patient")}),
        (
            {"patient_id": None, "payload": changed(["patient_id"], ...)},
            {("/patient_id", "required")},
        ),
        ({"patient_id": 7}, {("/patient_id", "string")}),
        ({"group": " "}, {("/group", "not_empty")}),
        ({"payload": None}, {("/payload", "object")}),
        ({CANARY: 1}, {("/(name withheld)", "unknown_field")}),
        ({"coding_complete": CANARY}, {("/coding_complete", "invalid")}),
        ({"outcomes": CANARY}, {("/outcomes", "object")}),
        ({"outcomes": {CANARY: True}}, {("/outcomes/(name withheld)", "unknown_task")}),
        ({"outcomes": {"phenotype": True}}, {("/outcomes/phenotype", "unknown_task")}),
        ({"outcomes": {"sepsis": CANARY}}, {("/outcomes/sepsis", "outcome_type")}),
        ({"outcomes": {"sepsis": 1}}, {("/outcomes/sepsis", "outcome_type")}),
        ({"outcomes": {"sepsis": {CANARY: 1}}}, {("/outcomes/sepsis", "outcome_type")}),
        ({"outcomes": {"length_of_stay": -1}}, {("/outcomes/length_of_stay", "outcome_type")}),
        ({"outcomes": {"length_of_stay": True}}, {("/outcomes/length_of_stay", "outcome_type")}),
        (
            {"outcomes": {"discharge_disposition": CANARY}},
            {("/outcomes/discharge_disposition", "outcome_type")},
        ),
        (
            {"outcomes": {"discharge_disposition": "home", "in_hospital_mortality": True}},
            {("/outcomes/discharge_disposition", "consistent")},
        ),
        (
            {"outcomes": {"septic_shock": True, "sepsis": False}},
            {("/outcomes/sepsis", "consistent")},
        ),
        ({"diagnosis_codes": ["I10", CANARY]}, {("/diagnosis_codes/1", "icd_code")}),
        ({"diagnosis_codes": ["73211009"]}, {("/diagnosis_codes/0", "icd_code")}),
        ({"diagnosis_codes": [250]}, {("/diagnosis_codes/0", "string")}),
        ({"diagnosis_codes": "I10"}, {("/diagnosis_codes", "array")}),
    ],
)
def test_an_invalid_field_of_a_record_is_named_by_pointer_and_rule(change, expected):
    assert faults(RECORD | change) == expected


@pytest.mark.parametrize(
    ("path", "value", "pointer"),
    [
        (["series", 0, "values", 0], CANARY, "/payload/series/0/values/0"),
        (["tabular", "age"], CANARY, "/payload/tabular/age"),
        (["as_of"], CANARY, "/payload/as_of"),
        (["notes", 0, "time"], "2099-01-01T00:00:00Z", "/payload/notes/0/time"),
        (["images", 0, "data"], CANARY, "/payload/images/0/data"),
    ],
)
def test_an_error_in_the_payload_has_the_pointer_in_the_line(path, value, pointer):
    record = RECORD | {"payload": changed(path, value)}
    assert {where for where, _ in faults(record)} == {pointer}


@pytest.mark.parametrize("line", ["{", "[]", "null", '"text"', b"\xff"])
def test_a_line_that_is_no_record_is_refused(line):
    assert faults(line) <= {("", "json"), ("", "object")}


@pytest.mark.parametrize(
    "part", ['"group": "a", "group": "b"', '"outcomes": {"sepsis": true, "sepsis": false}']
)
def test_a_repeated_name_is_refused(part):
    text = json.dumps({"patient_id": "opaque", "payload": VALID})
    assert {rule for _, rule in faults(f"{text[:-1]}, {part}}}")} == {"repeated_name"}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=50)
@given(field=st.sampled_from(sorted(TrainingRecord.model_fields)), value=json_values)
def test_any_json_in_a_field_is_read_or_refused_without_another_error(field, value):
    with contextlib.suppress(InvalidPayload):
        parse_record(json.dumps(RECORD | {field: value}))
