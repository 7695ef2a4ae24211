"""Observations: which are read, in which unit, and what the receipt lists about the others."""

from typing import Any

import pytest

from tests.support.inputs import fhir_bundles as make

FIRST = "Bundle.entry[1].resource"


def observed(fhir: Any, *observations: Any, **parameters: str) -> Any:
    return fhir.predict(make.bundle(*observations), **parameters)


def test_the_components_of_a_blood_pressure_are_read(fhir):
    answer = observed(fhir, make.blood_pressure(120, 80, 2))
    assert answer.used() == {"systolic_blood_pressure": 1, "diastolic_blood_pressure": 1}


def test_a_pulse_oximetry_is_read_with_flow_and_concentration(fhir):
    saturation = make.observation("2708-6", 94, "%", 2)
    saturation["code"]["coding"].append({"system": make.LOINC, "code": "59408-5"})
    saturation["component"] = [
        {"code": make.loinc("3151-8"), "valueQuantity": make.quantity(4, "L/min")},
        {"code": make.loinc("3150-0"), "valueQuantity": make.quantity(36, "%")},
    ]
    used = {"oxygen_saturation": 1, "oxygen_flow": 1, "fraction_inspired_oxygen": 1}
    assert observed(fhir, saturation).used() == used


def test_the_parts_of_the_coma_scale_are_read_and_its_total_is_named(fhir):
    scale = make.observation("9269-2", 14, "{score}", 2)
    scale["component"] = [
        {"code": make.loinc("9267-6"), "valueInteger": 4},
        {"code": make.loinc("9270-0"), "valueInteger": 4},
        {"code": make.loinc("9268-4"), "valueQuantity": make.quantity(6, "{score}")},
    ]
    answer = observed(fhir, scale)
    assert answer.used() == {"gcs_eye": 1, "gcs_verbal": 1, "gcs_motor": 1}
    assert (FIRST, "unknown_code") in answer.reasons()
    assert any("total of the Glasgow Coma Scale" in d for d in answer.details("unknown_code"))


def test_the_members_of_a_panel_are_read_once(fhir):
    panel = make.observation("24326-1", 0, None, 2)
    del panel["valueQuantity"]
    panel["hasMember"] = [{"reference": "urn:uuid:00000000-0000-4000-8000-000000000003"}]
    sodium = make.observation("2951-2", 139, "mmol/L", 2)
    answer = observed(fhir, panel, sodium)
    assert answer.used() == {"sodium": 1}
    assert not any(place.startswith(FIRST) for place, _ in answer.reasons())


@pytest.mark.parametrize("status", ["entered-in-error", "cancelled", "registered", "unknown", None])
def test_an_observation_that_is_not_valid_never_counts(fhir, status):
    wrong = make.heart_rate(20, 0.5, status=status)
    answer = observed(fhir, wrong, make.heart_rate(90, 1))
    assert (FIRST, "status") in answer.reasons()
    without = fhir.predict(make.bundle(make.heart_rate(90, 1)))
    assert answer.numbers() == without.numbers()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"dataAbsentReason": {"text": "unknown"}}, "no_value"),
        ({"valueQuantity": {"unit": "/min"}}, "no_value"),
        ({"valueCodeableConcept": {"text": "fast"}, "valueQuantity": None}, "coded_value"),
        ({"valueBoolean": True, "valueQuantity": None}, "coded_value"),
        ({"valueString": "about ninety", "valueQuantity": None}, "text_value"),
        ({"valueString": "1,5", "valueQuantity": None}, "text_value"),
        ({"valueRange": {"low": {"value": 1}}, "valueQuantity": None}, "text_value"),
        ({"modifierExtension": [{"url": "urn:not"}]}, "modifier_extension"),
        ({"implicitRules": "urn:rules"}, "modifier_extension"),
        ({"effectiveDateTime": None}, "no_time"),
        ({"code": {"text": "Heart rate"}}, "no_code"),
        ({"code": {"coding": [{"system": "urn:local", "code": "HR"}]}}, "unknown_code"),
        ({"code": {"coding": [{"code": "8867-4"}]}}, "no_code"),
    ],
)
def test_an_observation_without_a_number_is_listed_with_the_reason(fhir, fields, reason):
    changed = {k: v for k, v in (make.heart_rate() | fields).items() if v is not None}
    answer = observed(fhir, changed, make.observation("2951-2", 139, "mmol/L", 2))
    assert answer.used() == {"sodium": 1}
    assert reason in {rule for place, rule in answer.reasons() if place.startswith(FIRST)}


def test_a_time_without_an_hour_is_not_used(fhir):
    day = make.heart_rate(effectiveDateTime="2031-05-04")
    answer = observed(fhir, day, make.observation("2951-2", 139, "mmol/L", 2))
    assert (f"{FIRST}.effective", "no_time_of_day") in answer.reasons()
    assert answer.used() == {"sodium": 1}


@pytest.mark.parametrize(
    "time",
    [
        {"effectiveDateTime": make.ago(2)},
        {"effectiveInstant": make.ago(2)},
        {"effectivePeriod": {"start": make.ago(3), "end": make.ago(2)}},
        {"effectivePeriod": {"start": make.ago(2)}},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_each_form_of_the_time_is_read(fhir, time):
    given = {k: v for k, v in make.heart_rate().items() if k != "effectiveDateTime"} | time
    expected = fhir.predict(make.bundle(make.heart_rate(hours=2)))
    assert observed(fhir, given).numbers() == expected.numbers()


def test_the_time_of_issue_stands_in_for_an_absent_time(fhir):
    given = make.heart_rate(issued=make.ago(1))
    del given["effectiveDateTime"]
    answer = observed(fhir, given)
    assert answer.used() == {"heart_rate": 1}
    assert (f"{FIRST}.issued", "assumed") in answer.reasons()


def test_data_that_were_not_known_at_as_of_are_not_read(fhir):
    later, issued_later = make.heart_rate(20, -1), make.heart_rate(30, 2, issued=make.ago(-1))
    answer = observed(fhir, later, issued_later, make.heart_rate(90, 1))
    assert answer.used() == {"heart_rate": 1}
    assert (FIRST, "after_as_of") in answer.reasons()
    assert ("Bundle.entry[2].resource", "after_as_of") in answer.reasons()


def test_a_unit_that_contradicts_its_code_is_refused(fhir):
    wrong = make.observation("2160-0", 1.2, None, 2)
    wrong["valueQuantity"] = {"value": 1.2, "unit": "mg/dL", "code": "umol/L"}
    answer = observed(fhir, wrong, make.heart_rate())
    assert answer.used() == {"heart_rate": 1}
    assert (f"{FIRST}.value", "contradictory_unit") in answer.reasons()


def test_the_unit_counts_if_the_code_is_of_another_system(fhir):
    given = make.observation("2160-0", 1.2, None, 2)
    given["valueQuantity"] = {"value": 1.2, "unit": "mg/dL", "code": "258797006"}
    assert observed(fhir, given).used() == {"creatinine": 1}


def test_an_unknown_unit_is_listed_with_the_accepted_ones(fhir):
    answer = observed(fhir, make.observation("2160-0", 1.2, "m", 2), make.heart_rate())
    assert answer.used() == {"heart_rate": 1}
    assert (FIRST, "unknown_unit") in answer.reasons()
    assert any("accepted for creatinine: mg/dL" in d for d in answer.details("unknown_unit"))


def test_an_implausible_value_is_listed_at_its_own_place(fhir):
    answer = observed(fhir, make.heart_rate(90, 2), make.heart_rate(9000, 1))
    assert answer.used() == {"heart_rate": 1}
    assert ("Bundle.entry[2].resource", "implausible_value") in answer.reasons()
    assert (FIRST, "implausible_value") not in answer.reasons()


@pytest.mark.parametrize("text", ["<0.01 ng/mL", "< 0.01 ng/mL", "≤0.01ng/mL"])
def test_a_text_with_a_comparator_is_read_as_its_bound(fhir, text):
    sent = make.observation("6598-7", 0, None, 3)
    del sent["valueQuantity"]
    answer = observed(fhir, sent | {"valueString": text})
    expected = fhir.predict(make.bundle(make.bound("6598-7", "<", 0.01, "ng/mL", 3)))
    assert answer.numbers() == expected.numbers()
    assert answer.details("read_as") == [
        "read as the bound: a bound such as <0.01; its number was used"
    ]


def test_a_near_match_is_named_for_an_unknown_code(fhir):
    local = make.heart_rate()
    local["code"] = {"coding": [{"system": "urn:local", "code": "1", "display": "Heart rate"}]}
    answer = observed(fhir, local, make.observation("2951-2", 139, "mmol/L", 2))
    assert any("resembles heart_rate; LOINC" in d for d in answer.details("unknown_code"))


def test_two_codes_for_different_variables_are_ambiguous(fhir):
    both = make.heart_rate()
    both["code"]["coding"].append({"system": make.LOINC, "code": "9279-1"})
    answer = observed(fhir, both, make.observation("2951-2", 139, "mmol/L", 2))
    assert (FIRST, "ambiguous_code") in answer.reasons()
    assert answer.used() == {"sodium": 1}


def test_the_item_ids_of_mimic_iv_are_read(fhir):
    system = "http://mimic.mit.edu/fhir/mimic/CodeSystem/mimic-chartevents-d-items"
    rate = make.heart_rate(valueQuantity=make.quantity(88, "bpm"))
    rate["code"] = {"coding": [{"system": system, "code": "220045"}]}
    assert observed(fhir, rate).used() == {"heart_rate": 1}


@pytest.mark.parametrize(
    "code", ["39156-5", "9843-4", "59576-9", "96607-7", "72166-2", "33914-3", "32623-1", "2093-3"]
)
def test_a_code_of_us_core_or_synthea_that_is_no_input_is_named(fhir, code):
    other = make.observation(code, 20, "1", 2)
    answer = observed(fhir, other, make.heart_rate())
    assert (FIRST, "unknown_code") in answer.reasons()


@pytest.mark.parametrize("code", ["8302-2", "8867-4"])
def test_a_measurement_of_the_patient_without_a_subject_is_an_error(fhir, code):
    alone = {k: v for k, v in make.observation(code, 90, "cm", 1).items() if k != "subject"}
    fhir.refuse(make.bundle(alone), 422, (f"{FIRST}.subject", "required"))
