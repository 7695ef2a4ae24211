"""Patient, Encounter, height and weight become the tabular data."""

from typing import Any

import pytest

from tests.support.inputs import fhir_bundles as make


def tabular(reader: Any, *resources: Any, **patient: Any) -> dict[str, Any]:
    body = make.bundle(make.heart_rate(), *resources)
    body["entry"][0]["resource"] |= patient
    return reader(body).tabular


@pytest.mark.parametrize(
    ("birth", "age"),
    [
        ("1963-05-04", 68),
        ("1963-05-05", 67),
        ("1963-05", 67),
        ("1963", 67),
        ("2031-05-04", 0),
    ],
)
def test_the_age_is_in_completed_years_at_as_of(reader, birth, age):
    assert tabular(reader, birthDate=birth)["age"] == age


def test_an_inexact_birth_date_is_listed(fhir):
    body = make.bundle(make.heart_rate())
    body["entry"][0]["resource"]["birthDate"] = "1963"
    assert ("Bundle.entry[0].resource.birthDate", "assumed") in fhir.predict(body).reasons()


def test_a_child_gets_abstentions_with_the_reason(fhir):
    body = make.bundle(make.heart_rate())
    body["entry"][0]["resource"]["birthDate"] = "2020-01-01"
    answer = fhir.predict(body)
    assert set(answer.numbers().values()) == {None}


def test_the_unit_and_its_time_come_from_the_location_at_as_of(reader):
    places = [
        ({"display": "Emergency Department"}, {"start": make.ago(30), "end": make.ago(26)}),
        ({"reference": "Location/l"}, {"start": make.ago(26), "end": make.ago(10)}),
        ({"display": "Coronary Care Unit"}, {"start": make.ago(10)}),
    ]
    locations = [{"location": place, "period": period} for place, period in places]
    location = {"resourceType": "Location", "id": "l", "name": "CCU"}
    found = tabular(reader, make.stay(location=locations), location)
    assert found["unit_type"] == "cardiac_icu"
    assert found["admitted_at"].isoformat() == make.ago(26)


def test_two_locations_of_one_time_are_no_error(reader):
    start = make.ago(10)
    periods = ({"start": start}, {"start": start, "end": make.ago(-1)})
    locations = [{"location": {"display": "MICU"}, "period": period} for period in periods]
    for order in (locations, locations[::-1]):
        found = tabular(reader, make.stay(location=order))
        assert found["admitted_at"].isoformat() == start


def test_without_a_known_unit_the_start_of_the_encounter_is_used(fhir):
    answer = fhir.predict(make.bundle(make.heart_rate(), make.stay(location=[])))
    assert ("Bundle.entry[2].resource.period.start", "assumed") in answer.reasons()


def test_only_the_stay_that_contains_as_of_counts(reader):
    old = make.stay(
        id="old", status="finished", period={"start": make.ago(900), "end": make.ago(800)}
    )
    visit = make.stay(id="visit", period={"start": make.ago(1)})
    visit["class"] = {"code": "AMB"}
    planned = make.stay(id="planned", status="planned", period={"start": make.ago(2)})
    found = tabular(reader, old, make.stay(), visit, planned)
    assert found["admitted_at"].isoformat() == make.ago(24)
    assert "admitted_at" not in tabular(reader, old, visit, planned)


def test_the_answer_names_the_stay(fhir):
    body = make.bundle(make.heart_rate(), make.stay())
    url = body["entry"][2]["fullUrl"]
    outcomes = fhir.predict(body).outcomes()
    assert {o["encounter"]["reference"] for o in outcomes.values()} == {url}


@pytest.mark.parametrize(
    ("source", "category"),
    [
        ({"coding": [{"code": "hosp-trans"}]}, "other_hospital"),
        ({"coding": [{"code": "emd"}]}, "emergency"),
        ({"text": "Operating Room"}, "operating_room"),
    ],
)
def test_the_source_of_admission_is_a_category(reader, source, category):
    found = tabular(reader, make.stay(hospitalization={"admitSource": source}))
    assert found["admission_source"] == category


def test_an_unknown_source_is_listed(fhir):
    stay = make.stay(hospitalization={"admitSource": {"text": "By boat"}})
    answer = fhir.predict(make.bundle(make.heart_rate(), stay))
    place = "Bundle.entry[2].resource.hospitalization.admitSource"
    assert (place, "unknown_category") in answer.reasons()


@pytest.mark.parametrize(
    ("value", "unit"),
    [(165, "cm"), (1.65, "m"), (64.9606299, "[in_i]"), (5.41338583, "Feet"), (165, "Centimeters")],
)
def test_the_latest_height_is_converted(reader, value, unit):
    old = make.observation("8302-2", 120, "cm", 300)
    found = tabular(reader, old, make.observation("8302-2", value, unit, 20))
    assert found["height_cm"] == pytest.approx(165)


def test_a_weight_of_the_last_month_is_the_weight(reader):
    old, new = (make.observation("29463-7", kg, "kg", h) for kg, h in ((99, 900), (70, 20)))
    assert tabular(reader, old, new)["weight_kg"] == 70
    assert "weight_kg" not in tabular(reader, old)


def test_a_bundle_without_a_patient_is_answered(fhir):
    body = make.bundle(make.heart_rate())
    del body["entry"][0]
    answer = fhir.predict(body)
    assert answer.of_type("RiskAssessment")[0]["subject"] == {"reference": make.PATIENT}
    assert any("age and sex are unknown" in detail for detail in answer.details("assumed"))


def test_an_identifier_may_name_the_patient(fhir):
    identifier = {"system": "urn:mrn", "value": "17"}
    body = make.bundle(make.heart_rate(subject={"identifier": identifier}))
    body["entry"][0]["resource"]["identifier"] = [identifier]
    assert fhir.predict(body).used() == {"heart_rate": 1}


@pytest.mark.parametrize("reference", ["Patient/p", "http://ehr/fhir/Patient/p/_history/3"])
def test_a_relative_or_versioned_reference_names_the_patient(fhir, reference):
    body = make.bundle(make.heart_rate(subject={"reference": reference}))
    body["entry"][0] = {"resource": make.patient(id="p")}
    assert fhir.predict(body).used() == {"heart_rate": 1}


def test_a_deceased_patient_is_listed(fhir):
    body = make.bundle(make.heart_rate())
    body["entry"][0]["resource"]["deceasedDateTime"] = make.ago(3)
    assert any("deceased" in detail for detail in fhir.predict(body).details("assumed"))


def test_an_entry_that_is_sent_twice_counts_once(fhir):
    once = make.observation("9187-6", 100, "mL", 2, id="urine")
    answer = fhir.predict(make.bundle(once, once))
    assert answer.used() == {"urine_output": 1}
    assert ("Bundle.entry[2].resource", "duplicate_resource") in answer.reasons()
    assert answer.numbers() == fhir.predict(make.bundle(once)).numbers()
