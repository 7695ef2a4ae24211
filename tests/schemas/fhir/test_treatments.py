"""MedicationAdministration and Procedure become courses of treatments."""

from typing import Any

import pytest

from tests.support.inputs import fhir_bundles as make


def courses(reader: Any, *resources: Any) -> list[dict[str, Any]]:
    return reader(make.bundle(make.heart_rate(), *resources)).treatments


def test_a_running_infusion_has_its_rate(reader):
    dosage = {"rateQuantity": make.quantity(0.1, "ug/kg/min")}
    (course,) = courses(reader, make.administration("Levophed", 5, dosage=dosage))
    assert course["name"] == "Levophed"
    assert course["end"] is None
    assert (course["rate"], course["unit"]) == (0.1, "ug/kg/min")


def test_a_ratio_is_a_rate(reader):
    ratio = {"numerator": make.quantity(6, "mg"), "denominator": make.quantity(2, "h")}
    (course,) = courses(reader, make.administration("midazolam", 5, dosage={"rateRatio": ratio}))
    assert (course["rate"], course["unit"]) == (3, "mg/h")


@pytest.mark.parametrize(
    ("status", "period", "running"),
    [
        ("in-progress", {"start": make.ago(5)}, True),
        ("in-progress", {"start": make.ago(5), "end": make.ago(-1)}, True),
        ("completed", {"start": make.ago(5), "end": make.ago(-1)}, True),
        ("completed", {"start": make.ago(5), "end": make.ago(2)}, False),
        ("stopped", {"start": make.ago(5), "end": make.ago(2)}, False),
        ("on-hold", {"start": make.ago(5)}, False),
        ("completed", {"start": make.ago(5), "end": "2031-05-04"}, False),
        ("in-progress", {"start": make.ago(5), "end": "2031-05-04"}, True),
        ("completed", {"start": make.ago(5)}, False),
    ],
)
def test_a_course_runs_if_its_end_is_after_as_of_or_open(reader, status, period, running):
    given = make.administration("propofol", 5, status=status, effectivePeriod=period)
    (course,) = courses(reader, given)
    assert (course["end"] is None) == running


def test_the_name_of_the_drug_may_be_in_a_medication(reader):
    medication = {
        "resourceType": "Medication",
        "id": "m",
        "code": {"coding": [{"display": "vancomycin 1 GM Injection"}]},
    }
    named = make.administration("x", 5, medicationReference={"reference": "Medication/m"})
    own = make.administration(
        "x", 4, medicationReference={"reference": "#m"}, contained=[medication]
    )
    for given in (named, own):
        del given["medicationCodeableConcept"]
    names = [course["name"] for course in courses(reader, named, own, medication)]
    assert names == ["vancomycin 1 GM Injection"] * 2
