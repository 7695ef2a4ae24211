"""MedicationAdministration and Procedure become courses of treatments."""

import pytest

from tests.support.inputs import fhir_bundles as make

FIRST = "Bundle.entry[1].resource"


def test_a_rate_is_converted_and_listed_at_its_place(fhir):
    dosage = {"rateQuantity": make.quantity(6, "ug/min")}
    given = make.administration("norepinephrine", 5, dosage=dosage)
    weight = make.observation("29463-7", 60, "kg", 3)
    answer = fhir.predict(make.bundle(given, weight))
    assert "norepinephrine: converted from ug/min to ug/kg/min" in answer.details("converted")


@pytest.mark.parametrize("status", ["not-done", "entered-in-error", "unknown", None])
def test_a_drug_that_was_not_given_is_not_a_treatment(fhir, status):
    body = make.bundle(make.administration("propofol", 5, status=status), make.heart_rate())
    answer = fhir.predict(body)
    assert (FIRST, "not_given") in answer.reasons()
    assert not any("propofol" in detail for detail in answer.details("used"))


def test_a_code_without_a_name_is_listed_as_unknown(fhir):
    rxnorm = {"system": "http://www.nlm.nih.gov/research/umls/rxnorm", "code": "7512"}
    given = make.administration("x", 5, medicationCodeableConcept={"coding": [rxnorm]})
    answer = fhir.predict(make.bundle(given, make.heart_rate()))
    assert (FIRST, "unknown_treatment") in answer.reasons()


@pytest.mark.parametrize(
    ("concept", "treatment"),
    [
        ({"text": "Mechanical ventilation"}, "mechanical_ventilation"),
        ({"coding": [{"display": "Mechanical ventilation (procedure)"}]}, "mechanical_ventilation"),
        (
            {"coding": [{"system": "http://snomed.info/sct", "code": "302497006"}]},
            "hemodialysis",
        ),
        (
            {"coding": [{"system": "http://www.cms.gov/Medicare/Coding/ICD10", "code": "5A1955Z"}]},
            "mechanical_ventilation",
        ),
        (
            {
                "coding": [
                    {
                        "system": "http://mimic.mit.edu/fhir/mimic/CodeSystem/mimic-d-items",
                        "code": "225802",
                    }
                ]
            },
            "continuous_renal_replacement",
        ),
        ({"text": "Packed red cells transfusion"}, "packed_red_cells"),
    ],
)
def test_a_procedure_with_a_treatment_of_the_model_is_read(fhir, concept, treatment):
    given = make.procedure("x", 4, code=concept)
    answer = fhir.predict(make.bundle(given, make.heart_rate()))
    assert f"{treatment}: a treatment" in answer.details("used")
    assert (FIRST, "used") in answer.reasons()


def test_a_name_of_two_treatments_is_ambiguous(fhir):
    given = make.administration("propofol and midazolam", 4)
    answer = fhir.predict(make.bundle(given, make.heart_rate()))
    assert (FIRST, "ambiguous_treatment") in answer.reasons()


def test_codes_of_two_treatments_are_ambiguous(fhir):
    system = "http://snomed.info/sct"
    both = [{"system": system, "code": code} for code in ("243147009", "428311008")]
    for coding in (both, both[::-1]):
        given = make.procedure("x", 4, code={"coding": coding})
        answer = fhir.predict(make.bundle(given, make.heart_rate()))
        assert (FIRST, "ambiguous_treatment") in answer.reasons()


def test_artificial_ventilation_may_be_non_invasive_and_is_not_read(fhir):
    coding = [{"system": "http://snomed.info/sct", "code": "40617009"}]
    given = make.procedure("x", 4, code={"coding": coding})
    answer = fhir.predict(make.bundle(given, make.heart_rate()))
    assert (FIRST, "unknown_treatment") in answer.reasons()


def test_another_procedure_is_listed(fhir):
    answer = fhir.predict(make.bundle(make.procedure("Colonoscopy", 4), make.heart_rate()))
    assert (FIRST, "unknown_treatment") in answer.reasons()


def test_a_date_alone_is_the_start_of_its_day(fhir):
    given = make.procedure("Hemodialysis", 4, performedDateTime="2031-05-04")
    del given["performedPeriod"]
    answer = fhir.predict(make.bundle(given, make.heart_rate()))
    assert (f"{FIRST}.performed", "assumed") in answer.reasons()
    assert "hemodialysis: a treatment" in answer.details("used")


@pytest.mark.parametrize(
    "kind", ["MedicationRequest", "MedicationStatement", "MedicationDispense", "Condition"]
)
def test_orders_reports_and_conditions_are_listed_as_not_read(fhir, kind):
    order = {
        "resourceType": kind,
        "status": "active",
        "intent": "order",
        "medicationCodeableConcept": {"text": "propofol"},
        "subject": {"reference": make.PATIENT},
    }
    body = make.bundle(order, make.heart_rate())
    answer = fhir.predict(body, strict="true")
    assert (FIRST, "resource_not_read") in answer.reasons()
    assert answer.numbers() == fhir.predict(make.bundle(make.heart_rate())).numbers()


@pytest.mark.parametrize(
    ("fields", "place", "reason"),
    [
        ({"effectivePeriod": None}, "", "no_time"),
        ({"effectivePeriod": {"start": make.ago(-1)}}, "", "after_as_of"),
        ({"effectivePeriod": {"start": "2031"}}, ".effective", "no_time"),
        ({"modifierExtension": [{"url": "urn:not"}]}, "", "modifier_extension"),
    ],
)
def test_a_course_without_a_usable_start_is_listed(fhir, fields, place, reason):
    given = {k: v for k, v in make.administration("propofol", 4, **fields).items() if v is not None}
    answer = fhir.predict(make.bundle(given, make.heart_rate()))
    assert (f"{FIRST}{place}", reason) in answer.reasons()


def test_a_course_that_ends_before_it_starts_is_an_error(fhir):
    period = {"start": make.ago(4), "end": make.ago(5)}
    body = make.bundle(make.administration("propofol", 4, effectivePeriod=period))
    fhir.refuse(body, 422, (f"{FIRST}.effective", "ordered"))


def test_a_rate_that_is_text_is_an_error(fhir):
    dosage = {"rateQuantity": make.quantity("0.1", "ug/kg/min")}
    body = make.bundle(make.administration("propofol", 4, dosage=dosage))
    fhir.refuse(body, 422, (f"{FIRST}.dosage.rate", "decimal"))
