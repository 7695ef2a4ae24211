"""Each formula, against a value computed by hand, and without one of its parts."""

import pytest
import torch

from model.knowledge.physiology import FORMULAS

# Formula, values of its variables, result computed by hand.
EXAMPLES = [
    ("shock_index", {"heart_rate": 120, "systolic_blood_pressure": 80}, 1.5),
    (
        "oxygenation_ratio",
        {"oxygen_partial_pressure": 80, "fraction_inspired_oxygen": 40},
        200,
    ),
    ("saturation_ratio", {"oxygen_saturation": 90, "fraction_inspired_oxygen": 60}, 150),
    (
        "rox_index",
        {"oxygen_saturation": 90, "fraction_inspired_oxygen": 60, "respiratory_rate": 30},
        5,
    ),
    ("urea_creatinine_ratio", {"blood_urea_nitrogen": 60, "creatinine": 1.5}, 40),
    ("urea_creatinine_ratio", {"blood_urea_nitrogen": 20, "creatinine": 0.2}, 0),
    (
        "corrected_anion_gap",
        {"sodium": 140, "chloride": 100, "bicarbonate": 20, "albumin": 2},
        25,
    ),
    (
        "corrected_anion_gap",
        {"sodium": 140, "chloride": 100, "bicarbonate": 20, "albumin": 5},
        20,
    ),
    ("hourly_urine_output", {"urine_output": 35}, 35),
    (
        "driving_pressure",
        {"plateau_pressure": 28, "positive_end_expiratory_pressure": 10},
        18,
    ),
    (
        "transaminase_ratio",
        {"aspartate_aminotransferase": 200, "alanine_aminotransferase": 80},
        2.5,
    ),
    (
        "transaminase_ratio",
        {"aspartate_aminotransferase": 80, "alanine_aminotransferase": 10},
        0,
    ),
    ("osmolality", {"sodium": 140, "glucose": 180, "blood_urea_nitrogen": 28}, 300),
    ("pulse_pressure", {"systolic_blood_pressure": 150, "diastolic_blood_pressure": 60}, 90),
]
OPTIONAL = {"albumin"}


def of(values):
    """Every statistic of a variable has the same value."""
    return lambda variable, statistic: torch.tensor([float(values.get(variable, torch.nan))])


@pytest.mark.parametrize(("name", "values", "expected"), EXAMPLES)
def test_a_formula_gives_the_value_computed_by_hand(name, values, expected):
    formula, _ = FORMULAS[name]
    assert formula(of(values)).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("name", "values"), [(n, v) for n, v, expected in EXAMPLES if expected])
def test_a_formula_without_one_of_its_parts_is_unknown(name, values):
    """The examples whose result is 0 are left out: a normal numerator decides alone."""
    formula, parts = FORMULAS[name]
    assert set(values) == set(parts)
    for part in set(values) - OPTIONAL:
        rest = {other: value for other, value in values.items() if other != part}
        assert formula(of(rest)).isnan().all(), part


def test_every_formula_has_an_example():
    # The example of `creatinine_ratio` has two statistics of one variable.
    assert {name for name, _, _ in EXAMPLES} | {"creatinine_ratio"} == set(FORMULAS)


def test_an_unknown_albumin_does_not_correct_the_anion_gap():
    formula, _ = FORMULAS["corrected_anion_gap"]
    gap = formula(of({"sodium": 140, "chloride": 100, "bicarbonate": 20}))
    assert gap.item() == pytest.approx(20)


@pytest.mark.parametrize(("lowest", "highest", "expected"), [(0.8, 2.4, 3.0), (0.3, 0.9, 1.0)])
def test_the_creatinine_ratio_is_that_of_the_highest_to_the_lowest(lowest, highest, expected):
    formula, _ = FORMULAS["creatinine_ratio"]
    values = {"maximum": highest, "minimum": lowest}
    ratio = formula(lambda _, statistic: torch.tensor([values[statistic]]))
    assert ratio.item() == pytest.approx(expected)
    nothing = formula(lambda *_: torch.tensor([torch.nan]))
    assert nothing.isnan().all()


def test_an_inspired_fraction_of_the_whole_window_replaces_a_missing_recent_one():
    formula, _ = FORMULAS["saturation_ratio"]

    def statistic(variable, name):
        if variable == "oxygen_saturation":
            return torch.tensor([90.0])
        return torch.tensor([50.0 if name == "mean" else torch.nan])

    assert formula(statistic).item() == pytest.approx(180)
