"""Series features: units, order, duplicates, missing values, and the entries of the receipt."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.inputs.feature_requests import SPEC, extract, ignored, series, statistic


def test_statistics_match_their_names():
    features = extract(series=[series("heart_rate", "/min", (5, 80.0), (3, 100.0), (1, 90.0))])
    expected = {
        "last": 90,
        "mean": 90,
        "minimum": 80,
        "maximum": 100,
        "spread": np.std([80, 100, 90]),
        "change": 10,
        "log_count": np.log(4),
        "hours_since_last": 1,
        "recent_mean": 90,
        "recent_minimum": 80,
        "recent_maximum": 100,
    }
    for name, value in expected.items():
        assert statistic(features, "heart_rate", name) == pytest.approx(value), name


def test_recent_statistics_cover_the_last_six_hours():
    features = extract(series=[series("heart_rate", "/min", (7, 80.0), (5, 100.0))])
    assert statistic(features, "heart_rate", "mean") == 90
    assert statistic(features, "heart_rate", "recent_mean") == 100


def test_an_unmeasured_variable_is_nan():
    features = extract(series=[series("heart_rate", "/min", (1, 80.0))])
    assert np.isnan(statistic(features, "creatinine", "last"))
    assert statistic(features, "creatinine", "log_count") == 0


def test_amounts_are_added_over_the_window():
    features = extract(series=[series("urine_output", "mL", (20, 400.0), (3, 200.0), (1, 100.0))])
    assert statistic(features, "urine_output", "mean") == pytest.approx(700 / 48)
    assert statistic(features, "urine_output", "recent_mean") == pytest.approx(300 / 6)


@pytest.mark.parametrize(
    ("variable", "unit", "value", "canonical"),
    [
        ("creatinine", "umol/L", 180.0, 2.036),
        ("temperature", "[degF]", 98.6, 37.0),
        ("temperature", "°F", 98.6, 37.0),
        ("heart_rate", "bpm", 92.0, 92.0),
        ("glucose", "mmol/L", 5.5, 99.1),
        ("fraction_inspired_oxygen", "1", 0.21, 21.0),
        ("platelets", "10*9/L", 150.0, 150.0),
        ("ph", None, 7.4, 7.4),
        ("gcs_eye", None, 4.0, 4.0),
    ],
)
def test_units_are_converted(variable, unit, value, canonical):
    features = extract(series=[series(variable, unit, (1, value))])
    assert statistic(features, variable, "last") == pytest.approx(canonical, rel=1e-3)


def test_the_receipt_lists_conversions():
    features = extract(series=[series("loinc:2160-0", "umol/L", (1, 180.0))])
    (entry,) = features.receipt.converted
    assert (entry.variable, entry.from_unit, entry.to_unit) == ("creatinine", "umol/L", "mg/dL")
    assert features.receipt.used[0].variable == "creatinine"


@pytest.mark.parametrize(
    ("variable", "unit", "reason"),
    [
        ("creatinine", "zebra", "unknown_unit"),
        ("creatinine", "mmHg", "unknown_unit"),
        ("creatinine", None, "unit_required"),
        ("temperature", "mg/dL", "unknown_unit"),
        ("gcs_eye", "mg/dL", "unknown_unit"),
    ],
)
def test_a_series_with_an_unknown_unit_is_ignored_and_reported(variable, unit, reason):
    features = extract(
        series=[series(variable, unit, (2, 1.0), (1, 1.0)), series("ph", None, (1, 7.4))]
    )
    assert statistic(features, "ph", "last") == pytest.approx(7.4)
    assert np.isnan(statistic(features, variable, "last"))
    (entry,) = features.receipt.ignored
    assert (entry.pointer, entry.reason, entry.observations) == ("/series/0/unit", reason, 2)
    assert SPEC.variables[SPEC.variable_index[variable]].unit in entry.detail
    assert "zebra" not in entry.detail


def test_an_implausible_value_is_missing_and_reported():
    features = extract(series=[series("temperature", "Cel", (2, 98.6), (1, 37.0))])
    assert statistic(features, "temperature", "maximum") == 37
    assert ignored(features) == {("/series/0/values", "implausible_value")}


def test_an_unknown_variable_is_ignored_and_reported():
    features = extract(
        series=[series("aura", "mL", (1, 3.0)), series("heart_rate", "/min", (1, 80.0))]
    )
    assert ignored(features) == {("/series/0", "unknown_variable")}


def test_series_of_one_variable_are_merged_and_reported():
    features = extract(
        series=[
            series("creatinine", "mg/dL", (5, 1.0)),
            series("loinc:2160-0", "mg/dL", (1, 2.0)),
        ]
    )
    assert statistic(features, "creatinine", "change") == 1
    (entry,) = features.receipt.merged
    assert (entry.reason, entry.pointers) == ("given_more_than_once", ("/series/0", "/series/1"))


def test_unsorted_times_are_sorted_and_reported():
    features = extract(series=[series("heart_rate", "/min", (1, 90.0), (5, 80.0))])
    assert statistic(features, "heart_rate", "last") == 90
    assert [entry.reason for entry in features.receipt.merged] == ["unsorted_times"]


def test_duplicate_times_are_merged_and_reported():
    features = extract(
        series=[
            series("heart_rate", "/min", (5, 70.0), (1, 80.0), (1, 80.0), (1, 90.0)),
            series("urine_output", "mL", (1, 100.0), (1, 100.0), (1, 50.0)),
        ]
    )
    assert statistic(features, "heart_rate", "last") == 85
    assert statistic(features, "heart_rate", "log_count") == pytest.approx(np.log(3))
    assert statistic(features, "urine_output", "last") == 250  # amounts add up, equal ones too
    assert {entry.reason for entry in features.receipt.merged} == {"duplicate_times"}


def test_values_before_the_window_are_ignored_and_reported():
    features = extract(series=[series("heart_rate", "/min", (49, 70.0), (1, 80.0))])
    assert statistic(features, "heart_rate", "log_count") == pytest.approx(np.log(2))
    assert ignored(features) == {("/series/0/times", "before_window")}


def test_a_series_without_usable_values_counts_as_absent():
    features = extract(tabular={"age": 50}, series=[series("temperature", "Cel", (1, 98.6))])
    assert "series" not in features.arrays
    assert features.receipt.modalities["series"].status == "absent"


@settings(max_examples=50, deadline=None)
@given(
    data=st.lists(
        st.tuples(
            st.sampled_from(["heart_rate", "creatinine", "urine_output"]),
            st.floats(0.0, 40.0),
            st.floats(0.0, 300.0),
        ),
        min_size=1,
        max_size=40,
    ),
    seed=st.randoms(use_true_random=False),
)
def test_order_and_grouping_of_observations_have_no_influence(data, seed):
    units = {"heart_rate": "/min", "creatinine": "mg/dL", "urine_output": "mL"}
    one_each = [series(name, units[name], (h, v)) for name, h, v in data]
    shuffled = list(one_each)
    seed.shuffle(shuffled)
    together = [
        series(name, units[name], *[(h, v) for n, h, v in data if n == name])
        for name in sorted({n for n, _, _ in data})
    ]
    first, *others = (extract(tabular={"age": 1}, series=s) for s in (one_each, shuffled, together))
    for other in others:
        assert first.arrays.keys() == other.arrays.keys()
        if "series" in first.arrays:
            np.testing.assert_allclose(
                first.arrays["series"]["statistics"],
                other.arrays["series"]["statistics"],
                rtol=1e-5,
                atol=1e-4,
            )


def test_spread_and_change_of_a_single_value_are_nan():
    features = extract(series=[series("creatinine", "mg/dL", (1, 2.0))])
    assert statistic(features, "creatinine", "last") == 2
    assert np.isnan(statistic(features, "creatinine", "spread"))
    assert np.isnan(statistic(features, "creatinine", "change"))
