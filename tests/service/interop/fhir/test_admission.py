"""Patient, Encounter, height and weight become the tabular data."""

import pytest

from tests.support.inputs import fhir_bundles as make


def test_an_inexact_birth_date_is_listed(fhir):
    body = make.bundle(make.heart_rate())
    body["entry"][0]["resource"]["birthDate"] = "1963"
    assert ("Bundle.entry[0].resource.birthDate", "assumed") in fhir.predict(body).reasons()


def test_a_child_gets_abstentions_with_the_reason(fhir):
    body = make.bundle(make.heart_rate())
    body["entry"][0]["resource"]["birthDate"] = "2020-01-01"
    answer = fhir.predict(body)
    assert set(answer.numbers().values()) == {None}


def test_without_a_known_unit_the_start_of_the_encounter_is_used(fhir):
    answer = fhir.predict(make.bundle(make.heart_rate(), make.stay(location=[])))
    assert ("Bundle.entry[2].resource.period.start", "assumed") in answer.reasons()


def test_the_answer_names_the_stay(fhir):
    body = make.bundle(make.heart_rate(), make.stay())
    url = body["entry"][2]["fullUrl"]
    outcomes = fhir.predict(body).outcomes()
    assert {o["encounter"]["reference"] for o in outcomes.values()} == {url}


def test_an_unknown_source_is_listed(fhir):
    stay = make.stay(hospitalization={"admitSource": {"text": "By boat"}})
    answer = fhir.predict(make.bundle(make.heart_rate(), stay))
    place = "Bundle.entry[2].resource.hospitalization.admitSource"
    assert (place, "unknown_category") in answer.reasons()


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
