"""Tabular data as hospitals write them: read, or left out with the reason, and never guessed."""

import math

import pytest

from schemas.features import FeatureSpec, features
from schemas.payload import as_payload

SPEC = FeatureSpec.default()
AS_OF = "2026-11-23T10:00:00Z"


def read(**tabular):
    return features(as_payload({"as_of": AS_OF, "tabular": {"age": 71, **tabular}}), SPEC)


def value(found, name):
    return found.arrays["tabular"]["values"][SPEC.tabular_names.index(name)]


def ignored(found):
    return {(entry.pointer, entry.reason) for entry in found.receipt.ignored}


@pytest.mark.parametrize(
    ("field", "written", "category"),
    [
        ("sex", "M", "male"),
        ("sex", "F", "female"),
        ("sex", "f", "female"),
        ("sex", "Female", "female"),
        ("sex", "MALE", "male"),
        ("sex", "male ", "male"),
        ("sex", "w", "female"),
        ("sex", "weiblich", "female"),
        ("sex", "Männlich", "male"),
        ("admission_source", "Emergency Department", "emergency"),
        ("admission_source", "ED", "emergency"),
        ("admission_source", "EMERGENCY ROOM", "emergency"),
        ("admission_source", "A&E", "emergency"),
        ("admission_source", "Operating Room", "operating_room"),
        ("admission_source", "PACU", "operating_room"),
        ("admission_source", "Acute Care/Floor", "ward"),
        ("admission_source", "Step-Down Unit (SDU)", "step_down_unit"),
        ("admission_source", "Other ICU", "other_icu"),
        ("admission_source", "TRANSFER FROM HOSPITAL", "other_hospital"),
        ("admission_source", "WALK-IN/SELF REFERRAL", "direct"),
        ("admission_source", "Other hospital", "other_hospital"),
        ("unit_type", "MICU", "medical_icu"),
        ("unit_type", "Medical Intensive Care Unit (MICU)", "medical_icu"),
        ("unit_type", "SICU", "surgical_icu"),
        ("unit_type", "Med-Surg ICU", "mixed_icu"),
        ("unit_type", "Medical/Surgical Intensive Care Unit (MICU/SICU)", "mixed_icu"),
        ("unit_type", "CCU", "cardiac_icu"),
        ("unit_type", "Coronary Care Unit (CCU)", "cardiac_icu"),
        ("unit_type", "CVICU", "cardiac_surgery_icu"),
        ("unit_type", "CTICU", "cardiac_surgery_icu"),
        ("unit_type", "Neuro Surgical Intensive Care Unit (Neuro SICU)", "neuro_icu"),
        ("unit_type", "Trauma SICU (TSICU)", "trauma_icu"),
    ],
)
def test_a_category_is_known_by_the_names_that_hospitals_write(field, written, category):
    found = read(**{field: written})
    assert value(found, f"{field}={category}") == 1
    assert ignored(found) == set()
    (entry,) = found.receipt.read_as
    assert (entry.pointer, entry.read_as) == (f"/tabular/{field}", category)


@pytest.mark.parametrize("field", ["sex", "admission_source", "unit_type"])
@pytest.mark.parametrize("written", ["unknown", "other", "Unknown", "UNK", "N/A", "", "None"])
def test_a_statement_that_nothing_is_known_is_no_wrong_category(field, written):
    found = read(**{field: written})
    assert ignored(found) == {(f"/tabular/{field}", "no_value")}


@pytest.mark.parametrize(
    ("field", "written"),
    [("sex", "1"), ("sex", "zebra"), ("unit_type", "NICU"), ("admission_source", "x" * 10_000)],
)
def test_a_category_that_is_not_declared_is_not_guessed(field, written):
    assert ignored(read(**{field: written})) == {(f"/tabular/{field}", "unknown_category")}


@pytest.mark.parametrize(
    ("field", "number", "unit"),
    [
        ("height_cm", 64, "inches"),
        ("height_cm", 72.5, "inches"),
        ("height_cm", 1.65, "metres"),
        ("height_cm", 5.4, "feet"),
        ("height_cm", 1650, "millimetres"),
        ("weight_kg", 68_500, "grams"),
        ("weight_kg", 2.5, None),
        ("weight_kg", 0, None),
        ("weight_kg", -70, None),
    ],
)
def test_a_size_that_no_adult_has_is_not_used_and_the_receipt_names_the_unit(field, number, unit):
    found = read(**{field: number})
    assert math.isnan(value(found, field))
    assert math.isnan(value(found, "body_mass_index"))
    assert ignored(found) == {(f"/tabular/{field}", "implausible_value")}
    warned = [w for w in found.receipt.warnings if f"{field} looks like {unit}" in w]
    assert bool(warned) == (unit is not None)


@pytest.mark.parametrize("number", [120, 147, 163, 212])
def test_a_height_that_adults_have_is_used(number):
    found = read(height_cm=number, weight_kg=68.5)
    assert value(found, "height_cm") == number
    assert ignored(found) == set()


def test_a_child_may_be_small():
    found = read(age=1, height_cm=75, weight_kg=9.5)
    assert value(found, "height_cm") == 75
    assert value(found, "weight_kg") == 9.5
    assert ignored(found) == set()


@pytest.mark.parametrize(("height", "weight"), [(64, 68.5), (240, 21), (101, 400)])
def test_height_and_weight_that_do_not_fit_are_not_used(height, weight):
    found = read(age=None, height_cm=height, weight_kg=weight)
    assert ignored(found) == {
        ("/tabular/height_cm", "implausible_value"),
        ("/tabular/weight_kg", "implausible_value"),
    }


def test_a_weight_that_would_be_usual_in_pounds_is_used_with_a_warning():
    found = read(height_cm=163, weight_kg=176)
    assert value(found, "weight_kg") == 176
    assert any("pounds" in warning for warning in found.receipt.warnings)
    assert not any("pounds" in w for w in read(height_cm=163, weight_kg=120).receipt.warnings)


@pytest.mark.parametrize(
    "admitted_at", ["1900-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "0001-01-01T00:00:00Z"]
)
def test_an_admission_years_ago_is_a_date_that_stands_for_none(admitted_at):
    found = read(admitted_at=admitted_at)
    assert math.isnan(value(found, "hours_since_admission"))
    assert ignored(found) == {("/tabular/admitted_at", "implausible_value")}
    assert value(read(admitted_at="2026-10-23T10:00:00Z"), "hours_since_admission") == 744
