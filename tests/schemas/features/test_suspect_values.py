"""Warnings about suspect values, which are used unchanged, and bounds on many series."""

import time

import numpy as np
import pytest

from schemas.features import FeatureSpec, extract_features
from schemas.payload import as_payload
from schemas.variables import load_variables
from tests.support.inputs.feature_requests import AS_OF, SPEC, extract, series, statistic


def extract_series(*given):
    return extract(series=given)


SUSPECT_VALUES = [
    ("carbon_dioxide_partial_pressure", "mm[Hg]", 5.3, "kPa"),
    ("oxygen_partial_pressure", "mmHg", 11.0, "kPa"),
    ("glucose", "mg/dL", 5.5, "mmol/L"),
    ("glucose", "mmol/L", 100, "mg/dL"),
    ("magnesium", "mg/dL", 0.8, "mmol/L"),
    ("magnesium", "mmol/L", 2.0, "mg/dL"),
    ("bilirubin_total", "mg/dL", 34, "umol/L"),
    ("bilirubin_total", "umol/L", 0.9, "mg/dL"),
    ("calcium", "mg/dL", 2.3, "mmol/L"),
    ("calcium_ionized", "mmol/L", 4.8, "mg/dL"),
    ("lactate", "mmol/L", 18, "mg/dL"),
    ("lactate", "mg/dL", 1.8, "mmol/L"),
    ("creatinine", "mg/dL", 90, "umol/L"),
    ("creatinine", "umol/L", 1.1, "mg/dL"),
    ("hemoglobin", "g/dL", 120, "g/L"),
    ("hemoglobin", "g/L", 12, "g/dL"),
    ("albumin", "g/dL", 40, "g/L"),
    ("triglycerides", "mg/dL", 1.7, "mmol/L"),
    ("uric_acid", "mg/dL", 400, "umol/L"),
    ("hemoglobin_a1c", "%", 53, "mmol/mol"),
    ("hemoglobin_a1c", "mmol/mol", 7, "%"),
    ("fibrinogen", "mg/dL", 3.1, "g/L"),
    ("troponin_t", "ng/mL", 14, "ng/L"),
    ("temperature", "Cel", 98.6, "[degF]"),
    ("temperature", "[degF]", 37, "Cel"),
    ("temperature", "Cel", 310, "K"),
    ("oxygen_saturation", "%", 0.97, "1"),
    ("fraction_inspired_oxygen", "%", 0.4, "1"),
    ("fraction_inspired_oxygen", "1", 40, "%"),
    ("hematocrit", "%", 0.41, "1"),
    ("platelets", "10*3/uL", 150_000, "/uL"),
    ("white_blood_cells", "/uL", 9.1, "10*3/uL"),
    ("systolic_blood_pressure", "mmHg", 16, "kPa"),
    ("mean_arterial_pressure", "kPa", 75, "mm[Hg]"),
    ("tidal_volume_observed", "mL", 0.45, "L"),
    ("mean_corpuscular_hemoglobin_concentration", "g/dL", 330, "g/L"),
    ("aspartate_aminotransferase", "U/L", 0.5, "ukat/L"),
]


@pytest.mark.parametrize(("variable", "unit", "value", "looks_like"), SUSPECT_VALUES)
def test_a_value_that_is_typical_in_another_unit_gives_a_warning(variable, unit, value, looks_like):
    features = extract_series(series(variable, unit, (2, value), (1, value)))
    (warning,) = features.receipt.warnings
    assert warning.startswith(f"{variable} (/series/0) is unusual in ")
    assert f"typical in {looks_like};" in warning
    assert f"{value:g} " not in warning


@pytest.mark.parametrize(
    ("variable", "value"), [("glucose", 5.5), ("lactate", 18), ("bilirubin_total", 34)]
)
def test_a_suspect_value_is_used_unchanged(variable, value):
    unit = next(v.unit for v in load_variables() if v.name == variable)
    assert statistic(extract_series(series(variable, unit, (1, value))), variable, "last") == value


@pytest.mark.parametrize(
    ("variable", "unit", "values"),
    [
        ("glucose", "mg/dL", (45, 38, 52)),
        ("glucose", "mmol/L", (25.0,)),
        ("lactate", "mmol/L", (14.0,)),
        ("creatinine", "mg/dL", (12.0,)),
        ("calcium", "mg/dL", (5.5,)),
        ("calcium", "meq/L", (4.6,)),
        ("hemoglobin", "mmol/L", (7.5,)),
        ("carbon_dioxide_partial_pressure", "mmHg", (110,)),
        ("temperature", "Cel", (98.6, 37.0, 37.1)),  # a single value does not suggest a unit
        ("lymphocytes", "%", (1.0,)),
        ("eosinophils", "%", (0.1,)),
        ("positive_end_expiratory_pressure", "mbar", (30.5,)),
        ("c_reactive_protein", "mg/L", (0.5,)),
    ],
)
def test_values_of_ill_patients_give_no_warning(variable, unit, values):
    pairs = [(1 + i, value) for i, value in enumerate(values)]
    assert extract_series(series(variable, unit, *pairs)).receipt.warnings == ()


def test_one_warning_covers_all_series_of_a_variable_and_unit():
    many = [series("glucose", "mg/dL", (1 + i / 60, 5.5)) for i in range(30)]
    features = extract_series(*many, series("calcium", "mg/dL", (1, 2.3)))
    assert [w.split(" is ")[0] for w in features.receipt.warnings] == [
        "glucose (/series/0 and 29 more)",
        "calcium (/series/30)",
    ]


@pytest.mark.parametrize("variable", ["heart_rate", "respiratory_rate"])
def test_values_of_a_detached_sensor_give_a_warning(variable):
    features = extract_series(series(variable, "/min", (3, 0.0), (2, 80.0), (1, 0.0)))
    (warning,) = features.receipt.warnings
    assert warning.startswith(
        f"{variable} is 0 in 2 of its observations, as from a detached sensor"
    )
    assert statistic(features, variable, "minimum") == 0


def test_typical_ranges_lie_within_plausible_ranges():
    for variable in load_variables():
        if variable.typical is not None:
            low, high = variable.typical
            assert variable.plausible[0] <= low < high <= variable.plausible[1], variable.name
            assert variable.sensor_off is None or variable.sensor_off < low, variable.name


# --- amounts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("in_one_series", [True, False])
def test_equal_amounts_at_one_time_are_added(in_one_series):
    pairs = [(1, 100.0), (1, 100.0)]
    given = (
        [series("urine_output", "mL", *pairs)]
        if in_one_series
        else [series("urine_output", "mL", pair) for pair in pairs]
    )
    features = extract_series(*given)
    assert statistic(features, "urine_output", "last") == 200
    assert "duplicate_times" in {entry.reason for entry in features.receipt.merged}
    assert features.receipt.warnings == ()


def test_amounts_in_different_units_are_added():
    features = extract_series(
        series("urine_output", "mL", (1, 100.0)), series("loinc:9187-6", "L", (1, 0.1))
    )
    assert statistic(features, "urine_output", "last") == pytest.approx(200)


def test_identical_series_of_amounts_are_added_with_a_warning():
    urine = series("urine_output", "mL", (3, 100.0), (2, 50.0), (1, 70.0))
    features = extract_series(urine, series("heart_rate", "/min", (1, 80.0)), urine)
    assert statistic(features, "urine_output", "last") == 140
    (warning,) = features.receipt.warnings
    assert warning.startswith("urine_output (/series/2) repeats the times and values")


def test_a_repeated_level_counts_once():
    twice = series("heart_rate", "/min", (1, 80.0), (1, 80.0), (1, 90.0))
    assert statistic(extract_series(twice, twice), "heart_rate", "last") == 85


# --- many series ------------------------------------------------------------------------------


def payload_of(count):
    names = ["heart_rate", "urine_output", "glucose", "temperature"]
    units = ["/min", "mL", "mg/dL", "Cel"]
    many = [
        series(names[i % 4], units[i % 4], (1 + i % 3000 / 100, 1e6 if i % 2 else 5.0))
        for i in range(count)
    ]
    return as_payload({"as_of": AS_OF, "series": many})


def test_the_time_is_linear_in_the_number_of_series():
    spec = FeatureSpec.default()
    seconds = {}
    for count in (2_000, 20_000):
        payload = payload_of(count)
        extract_features(payload, spec)
        taken = []
        for _ in range(3):
            started = time.process_time()
            extract_features(payload, spec)
            taken.append(time.process_time() - started)
        seconds[count] = min(taken)
    assert seconds[20_000] < 30 * seconds[2_000]


def test_an_entry_has_a_bounded_number_of_pointers():
    features = extract_features(payload_of(2_000), SPEC)
    assert max(len(entry.pointers) for entry in features.receipt.merged) == 100
    (glucose,) = (e for e in features.receipt.used if e.variable == "glucose")
    assert glucose.observations == len(np.unique([i % 3000 for i in range(2, 2_000, 4)]))


def test_thousands_of_unit_spellings_take_bounded_time():
    many = [series("creatinine", f"nmol/{'m' * (i % 40)}L{i}", (1, 2.0)) for i in range(3_000)]
    started = time.process_time()
    features = extract_series(*many, series("creatinine", "mg/dL", (1, 2.0)))
    assert time.process_time() - started < 2
    assert statistic(features, "creatinine", "last") == 2.0
