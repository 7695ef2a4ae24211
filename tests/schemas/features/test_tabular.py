"""Tabular features: spellings of categories, plausible sizes, missing values."""

import math

import pytest

from tests.support.inputs.feature_requests import at, extract, ignored, series, tabular_value


def extract_tabular(**fields):
    return extract(tabular={"age": 71, **fields})


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
def test_hospital_spellings_of_categories_are_recognized(field, written, category):
    features = extract_tabular(**{field: written})
    assert tabular_value(features, f"{field}={category}") == 1
    assert ignored(features) == set()
    (entry,) = features.receipt.read_as
    assert (entry.pointer, entry.read_as) == (f"/tabular/{field}", category)


@pytest.mark.parametrize("field", ["sex", "admission_source", "unit_type"])
@pytest.mark.parametrize("written", ["unknown", "other", "Unknown", "UNK", "N/A", "", "None"])
def test_unstated_categories_count_as_missing(field, written):
    features = extract_tabular(**{field: written})
    assert ignored(features) == {(f"/tabular/{field}", "no_value")}


@pytest.mark.parametrize(
    ("field", "written"),
    [("sex", "1"), ("sex", "zebra"), ("unit_type", "NICU"), ("admission_source", "x" * 10_000)],
)
def test_an_undeclared_category_is_not_guessed(field, written):
    assert ignored(extract_tabular(**{field: written})) == {
        (f"/tabular/{field}", "unknown_category")
    }


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
def test_implausible_adult_sizes_are_ignored_and_the_suspected_unit_is_named(field, number, unit):
    features = extract_tabular(**{field: number})
    assert math.isnan(tabular_value(features, field))
    assert math.isnan(tabular_value(features, "body_mass_index"))
    assert ignored(features) == {(f"/tabular/{field}", "implausible_value")}
    warned = [w for w in features.receipt.warnings if f"{field} looks like {unit}" in w]
    assert bool(warned) == (unit is not None)


@pytest.mark.parametrize("number", [120, 147, 163, 212])
def test_a_plausible_adult_height_is_used(number):
    features = extract_tabular(height_cm=number, weight_kg=68.5)
    assert tabular_value(features, "height_cm") == number
    assert ignored(features) == set()


def test_small_sizes_are_plausible_for_a_child():
    features = extract_tabular(age=1, height_cm=75, weight_kg=9.5)
    assert tabular_value(features, "height_cm") == 75
    assert tabular_value(features, "weight_kg") == 9.5
    assert ignored(features) == set()


@pytest.mark.parametrize(("height", "weight"), [(64, 68.5), (240, 21), (101, 400)])
def test_an_implausible_body_mass_index_removes_height_and_weight(height, weight):
    features = extract_tabular(age=None, height_cm=height, weight_kg=weight)
    assert ignored(features) == {
        ("/tabular/height_cm", "implausible_value"),
        ("/tabular/weight_kg", "implausible_value"),
    }


def test_a_weight_that_looks_like_pounds_gives_a_warning():
    features = extract_tabular(height_cm=163, weight_kg=176)
    assert tabular_value(features, "weight_kg") == 176
    assert any("pounds" in warning for warning in features.receipt.warnings)
    plausible = extract_tabular(height_cm=163, weight_kg=120)
    assert not any("pounds" in warning for warning in plausible.receipt.warnings)


@pytest.mark.parametrize(
    "admitted_at", ["1900-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "0001-01-01T00:00:00Z"]
)
def test_a_placeholder_admission_date_counts_as_missing(admitted_at):
    features = extract_tabular(admitted_at=admitted_at)
    assert math.isnan(tabular_value(features, "hours_since_admission"))
    assert ignored(features) == {("/tabular/admitted_at", "implausible_value")}
    recent = extract_tabular(admitted_at="2026-10-23T10:00:00Z")
    assert tabular_value(recent, "hours_since_admission") == 744


def test_tabular_values_are_in_the_order_of_their_names():
    features = extract(
        tabular={
            "age": 71,
            "sex": "female",
            "height_cm": 160.0,
            "weight_kg": 64.0,
            "unit_type": "medical_icu",
            "admitted_at": at(25),
        }
    )
    assert tabular_value(features, "age") == 71
    assert tabular_value(features, "body_mass_index") == pytest.approx(25.0)
    assert tabular_value(features, "hours_since_admission") == 25
    assert (tabular_value(features, "sex=female"), tabular_value(features, "sex=male")) == (1, 0)
    assert tabular_value(features, "unit_type=medical_icu") == 1


def test_unknown_categories_and_implausible_numbers_are_missing_and_reported():
    features = extract(tabular={"age": 71, "sex": "zebra", "weight_kg": 7000.0})
    assert ignored(features) == {
        ("/tabular/sex", "unknown_category"),
        ("/tabular/weight_kg", "implausible_value"),
    }
    assert math.isnan(tabular_value(features, "weight_kg"))


def test_tabular_data_without_usable_values_count_as_absent():
    features = extract(tabular={"sex": "zebra"}, series=[series("heart_rate", "/min", (1, 80.0))])
    assert "tabular" not in features.arrays
