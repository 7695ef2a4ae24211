"""Treatment features: names, courses and rates."""

import numpy as np
import pytest

from tests.support.inputs.feature_requests import (
    at,
    course,
    extract,
    ignored,
    series,
    treatment_value,
)


def test_the_rate_of_a_running_treatment_is_canonical():
    features = extract(
        tabular={"weight_kg": 80.0},
        treatments=[course(rate=8.0, unit="mcg/min")],
    )
    assert treatment_value(features, "norepinephrine", "running") == 1
    assert treatment_value(features, "norepinephrine", "rate") == pytest.approx(0.1)
    assert treatment_value(features, "norepinephrine", "hours_since_start") == 5


def test_an_ended_treatment_is_given_but_not_running():
    features = extract(treatments=[course(end=at(2), rate=0.1, unit="ug/kg/min")])
    assert treatment_value(features, "norepinephrine", "given") == 1
    assert treatment_value(features, "norepinephrine", "running") == 0
    assert np.isnan(treatment_value(features, "norepinephrine", "rate"))


def test_an_absolute_rate_without_a_weight_is_ignored():
    features = extract(treatments=[course(rate=8.0, unit="ug/min")])
    assert np.isnan(treatment_value(features, "norepinephrine", "rate"))
    assert ignored(features) == {("/treatments/0/rate", "weight_needed_for_rate")}


@pytest.mark.parametrize(
    ("unit", "reason"),
    [("mg/dL", "unknown_unit"), ("mL/hr", "unknown_unit"), (None, "unit_required")],
)
def test_a_rate_in_an_unknown_unit_is_ignored(unit, reason):
    features = extract(treatments=[course(rate=8.0, unit=unit)])
    assert ignored(features) == {("/treatments/0/unit", reason)}
    assert treatment_value(features, "norepinephrine", "running") == 1
    assert np.isnan(treatment_value(features, "norepinephrine", "rate"))


def test_the_receipt_lists_treatments_and_unused_rates():
    features = extract(treatments=[course(), course(name="aspirin", rate=1.0)])
    assert features.receipt.treatments == ("norepinephrine", "aspirin")
    assert ignored(features) == {("/treatments/1/rate", "rate_not_read")}


def test_an_unknown_treatment_is_ignored_and_reported():
    features = extract(tabular={"age": 50}, treatments=[course(name="leeches")])
    assert ignored(features) == {("/treatments/0", "unknown_treatment")}


@pytest.mark.parametrize("starts", [(5, 5), (1, 5), (5, 1)])
@pytest.mark.parametrize("rates", [(0.1, 0.5), (0.5, 0.1)])
def test_rates_of_parallel_courses_are_added_in_any_order(starts, rates):
    features = extract(
        treatments=[
            course(start=at(start), rate=rate, unit="ug/kg/min")
            for start, rate in zip(starts, rates, strict=True)
        ]
    )
    assert treatment_value(features, "norepinephrine", "rate") == pytest.approx(0.6)
    assert treatment_value(features, "norepinephrine", "hours_since_start") == 5
    assert [entry.reason for entry in features.receipt.merged] == ["rates_added"]


def test_identical_courses_count_once():
    norepinephrine = course(rate=0.1, unit="ug/kg/min")
    features = extract(treatments=[norepinephrine, course(name="aspirin"), norepinephrine])
    assert treatment_value(features, "norepinephrine", "rate") == pytest.approx(0.1)
    (entry,) = features.receipt.merged
    assert entry.pointers == ("/treatments/0", "/treatments/2")


def test_an_ended_course_does_not_add_to_the_rate():
    features = extract(
        treatments=[
            course(start=at(5), end=at(2), rate=0.4, unit="ug/kg/min"),
            course(start=at(2), rate=0.1, unit="ug/kg/min"),
        ]
    )
    assert treatment_value(features, "norepinephrine", "rate") == pytest.approx(0.1)


@pytest.mark.parametrize("unit", ["ug/kg/min", "mL/hr", None])
def test_a_course_at_a_rate_of_zero_does_not_run(unit):
    paused = course(rate=0, unit=unit)
    features = extract(treatments=[paused])
    assert treatment_value(features, "norepinephrine", "given") == 1
    assert treatment_value(features, "norepinephrine", "running") == 0
    assert np.isnan(treatment_value(features, "norepinephrine", "rate"))
    assert [entry.pointer for entry in features.receipt.read_as] == ["/treatments/0/rate"]
    other = course(rate=0.2, unit="ug/kg/min")
    features = extract(treatments=[other, paused])
    assert treatment_value(features, "norepinephrine", "rate") == pytest.approx(0.2)


def test_a_negative_rate_is_not_used():
    features = extract(treatments=[course(rate=-0.1, unit="ug/kg/min")])
    assert ignored(features) == {("/treatments/0/rate", "implausible_value")}


@pytest.mark.parametrize(
    ("name", "rate", "unit", "expected"),
    [
        ("heparin", 18, "units/kg/hr", 1440),
        ("heparin", 18, "U/kg/h", 1440),
        ("heparin", 1440, "units/hr", 1440),
        ("fentanyl", 1.5, "mcg/kg/hr", 120),
        ("fentanyl", 0.025, "mcg/kg/min", 120),
        ("nitroglycerin", 0.5, "mcg/kg/min", 40),
        ("nitroglycerin", 0.5, "gamma/kg/min", 40),
        ("insulin", 0.05, "U/kg/h", 4),
        ("midazolam", 50, "mcg/kg/h", 4),
        ("propofol", 50, "mcg/kg/min", 50),
        ("propofol", 3, "mg/kg/hr", 50),
        ("propofol", 240, "mg/hr", 50),
        ("norepinephrine", 8, "MCG/MIN", 0.1),
        ("norepinephrine", 0.48, "mg/hour", 0.1),
        ("norepinephrine", 0.1, "ug.kg-1.min-1", 0.1),
        ("norepinephrine", 0.1, "mcg per kg per min", 0.1),
        ("vasopressin", 2.4, "units/hr", 0.04),
        ("vasopressin", 40, "mU/min", 0.04),
        ("vasopressin", 0.0005, "units/kg/min", 0.04),
        ("amiodarone", 720, "mg/day", 0.5),
    ],
)
def test_rates_are_converted_by_unit_and_weight(name, rate, unit, expected):
    given = course(name=name, rate=rate, unit=unit)
    features = extract(tabular={"weight_kg": 80.0}, treatments=[given])
    assert ignored(features) == set()
    assert treatment_value(features, name, "rate") == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("unit", ["mL/hr", "mg", "U/h", "mg/kg", "mmol/h", "%", "zebra" * 100])
def test_units_that_are_no_rate_are_refused(unit):
    features = extract(tabular={"weight_kg": 80.0}, treatments=[course(rate=5.0, unit=unit)])
    assert ignored(features) == {("/treatments/0/unit", "unknown_unit")}
    assert treatment_value(features, "norepinephrine", "running") == 1


def test_the_latest_observed_weight_converts_rates():
    norepinephrine = course(rate=8.0, unit="ug/min")
    weights = series("loinc:29463-7", "[lb_av]", (9, 300.0), (1, 176.36981))
    features = extract(series=[weights], treatments=[norepinephrine])
    assert treatment_value(features, "norepinephrine", "rate") == pytest.approx(0.1)
    assert [(e.pointer, e.read_as) for e in features.receipt.read_as] == [
        ("/series/0", "weight_kg")
    ]
    features = extract(tabular={"weight_kg": 40.0}, series=[weights], treatments=[norepinephrine])
    assert treatment_value(features, "norepinephrine", "rate") == pytest.approx(0.2)
    features = extract(
        tabular={"weight_kg": 2.5, "age": 71}, series=[weights], treatments=[norepinephrine]
    )
    assert treatment_value(features, "norepinephrine", "rate") == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("Norepinephrine", "norepinephrine"),
        ("NOREPINEPHRINE 8 MG/250 ML D5W", "norepinephrine"),
        ("levophed", "norepinephrine"),
        ("noradrenaline", "norepinephrine"),
        ("Noradrenalin", "norepinephrine"),
        ("norepinephrine bitartrate", "norepinephrine"),
        ("Epinephrine", "epinephrine"),
        ("adrenaline", "epinephrine"),
        ("racemic epinephrine", "bronchodilator"),
        ("Heparin", "heparin"),
        ("heparin infusion", "heparin"),
        ("Lovenox 40 mg", "enoxaparin"),
        ("low molecular weight heparin subcutaneous", "enoxaparin"),
        ("Beta Blocker", "beta_blocker"),
        ("metoprolol tartrate", "beta_blocker"),
        ("Mechanical Ventilation", "mechanical_ventilation"),
        ("non-invasive mechanical ventilation", "noninvasive_ventilation"),
        ("CRRT", "continuous_renal_replacement"),
        ("hemodialysis", "hemodialysis"),
        ("Piperacillin-Tazobactam", "piperacillin_tazobactam"),
        ("  Propofol  ", "propofol"),
        ("PRBC", "packed_red_cells"),
    ],
)
def test_hospital_names_of_treatments_are_recognized(written, name):
    features = extract(treatments=[course(name=written)])
    assert features.receipt.treatments == (name,)
    if written != name:
        (entry,) = features.receipt.read_as
        assert (entry.pointer, entry.read_as) == ("/treatments/0/name", name)


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("aspirin and clopidogrel", "ambiguous_treatment"),
        ("no aspirin", "unknown_treatment"),
        ("aspirin held", "unknown_treatment"),
        ("vancomycin trough level", "unknown_treatment"),
        ("heparin flush", "unknown_treatment"),
        ("lidocaine with epinephrine", "unknown_treatment"),
        ("physiotherapy", "unknown_treatment"),
        ("norepinephrine " + "x" * 300, "unknown_treatment"),
    ],
)
def test_other_treatment_names_are_ignored_with_the_reason(written, reason):
    features = extract(tabular={"age": 50}, treatments=[course(name=written)])
    assert ignored(features) == {("/treatments/0", reason)}
