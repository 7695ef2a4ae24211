"""Calibration, intervals, conformal sets and local recalibration."""

import numpy as np
import pytest

from model.calibration.calibrate import (
    MIN_CLASS_PATIENTS,
    MIN_EVIDENCE_SCALE,
    USUAL_SCALES,
    class_shift,
    conformal_margin,
    conformal_sets,
    fit_scales,
    local_margin,
    log_odds_bound,
    prior_shift,
    venn_abers,
    weighted_quantile,
)


def calibrated_patients(count, seed=0):
    """Probabilities, outcomes drawn from them, and weights."""
    draw = np.random.default_rng(seed)
    p = 1 / (1 + np.exp(-draw.normal(-1.5, 1.5, count)))
    return p, (draw.random(count) < p).astype(float), np.ones(count)


def patients_of(parts, factors, seed=0):
    """Base, outcomes drawn with these factors, and weights."""
    base = np.full(parts.shape[1], -1.0)
    z = base + factors @ parts
    draw = np.random.default_rng(seed)
    return base, (draw.random(len(z)) < 1 / (1 + np.exp(-z))).astype(float), np.ones(len(z))


def three_parts(count):
    """The evidence, what the network learned, and the trees."""
    return np.random.default_rng(1).normal(size=(3, count))


def test_evidence_network_and_trees_are_scaled_apart():
    parts, true = three_parts(20_000), np.array([2.0, 0.5, 1.0])
    assert fit_scales(parts, *patients_of(parts, true)) == pytest.approx(true, abs=0.07)


def test_scaling_corrects_overconfident_log_odds_of_the_network():
    parts, true = three_parts(20_000), np.array([1.0, 1.0, 0.5])
    overconfident = parts * np.array([[1.0], [3.0], [1.0]])
    factors = fit_scales(overconfident, *patients_of(parts, true))
    assert factors == pytest.approx([1.0, 1 / 3, 0.5], abs=0.07)


def test_scaling_never_shrinks_evidence_below_its_least_size_nor_reverses_a_part():
    parts = three_parts(2000)
    factors = fit_scales(parts, *patients_of(parts, -np.ones(3)))
    assert factors == pytest.approx([MIN_EVIDENCE_SCALE, 0.0, 0.0], abs=1e-6)


def test_scaling_hardly_changes_a_task_with_few_patients():
    usual = np.array(USUAL_SCALES)
    wrong = np.array([[0.0, 0.0], [1.0, -1.0], [0.0, 0.0]])
    factors = fit_scales(wrong, np.zeros(2), np.array([0.0, 1.0]), np.ones(2))
    assert factors[[0, 2]] == pytest.approx(usual[[0, 2]], abs=1e-3)
    assert 0 <= factors[1] < usual[1]
    nothing = np.empty(0)
    assert fit_scales(np.empty((3, 0)), nothing, nothing, nothing) == pytest.approx(usual, abs=1e-3)


def test_the_bound_is_half_a_patient_from_certainty():
    assert 1 / (1 + np.exp(log_odds_bound(99))) == pytest.approx(0.5 / 100)


def test_an_interval_contains_the_probability_and_narrows_with_more_patients():
    few, many = (venn_abers(*calibrated_patients(count)) for count in (60, 3000))
    for p in np.linspace(0.001, 0.999, 97):
        low, high = few.interval_at(p)
        assert 0 <= low <= p <= high <= 1
        assert many.interval_at(p)[1] - many.interval_at(p)[0] <= high - low + 0.05
    widths = [np.ptp(s.interval_at(0.3)) for s in (few, many)]
    assert widths[1] < widths[0]


def test_an_interval_contains_the_rate_of_the_disease():
    steps = venn_abers(*calibrated_patients(3000))
    p, y, _ = calibrated_patients(20_000, seed=1)
    near = np.abs(p - 0.3) < 0.05
    low, high = steps.interval_at(0.3)
    assert low - 0.05 <= y[near].mean() <= high + 0.05


@pytest.mark.parametrize("seed", range(3))
def test_sets_miss_at_most_a_tenth_of_each_class(seed):
    p, y, w = calibrated_patients(2000, seed)
    sets = conformal_sets(np.stack([1 - p, p], 1), y, w, ("no", "yes"))
    p, y, _ = calibrated_patients(20_000, seed + 100)
    assert ((1 - p) >= sets.thresholds["no"])[y == 0].mean() > 0.88
    assert (p >= sets.thresholds["yes"])[y == 1].mean() > 0.86


def test_too_few_patients_of_a_class_give_a_reason_instead_of_a_set():
    p, _, w = calibrated_patients(200)
    y = (np.arange(200) < MIN_CLASS_PATIENTS - 1).astype(float)
    sets = conformal_sets(np.stack([1 - p, p], 1), y, w, ("no", "yes"))
    assert not sets.thresholds
    assert "only 19 patients" in sets.reason
    assert "'yes'" in sets.reason


def test_a_weighted_quantile_counts_weights_instead_of_samples():
    values, weight = np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.25, 0.25, 0.25, 0.25])
    assert weighted_quantile(values, weight, 0.5) == 3.0
    assert weighted_quantile(values, weight, 0.0) == 1.0
    assert weighted_quantile(values, np.array([9.0, 1, 1, 1]), 0.5) == 1.0


def shifted_hospital(shifts, count, seed=0):
    """A model's log-odds, outcomes whose log-odds are shifted, and weights."""
    draw = np.random.default_rng(seed)
    z = draw.normal(-1.5, 1.0, (count, len(shifts)))
    outcome = draw.random(z.shape) < 1 / (1 + np.exp(-z - shifts))
    return z, outcome.astype(float), np.ones(count)


def test_prior_shifts_are_estimated():
    shifts = np.array([2.0, 0.0, -1.0, 0.5])
    np.testing.assert_allclose(prior_shift(*shifted_hospital(shifts, 20_000)), shifts, atol=0.1)


def test_the_shift_of_a_task_with_few_patients_follows_the_others():
    z, outcome, weight = shifted_hospital(np.full(30, 1.5), 200)
    outcome[3:, 0] = np.nan
    outcome[:3, 0] = 0.0
    assert prior_shift(z, outcome, weight)[0] == pytest.approx(1.5, abs=0.3)


def test_a_task_without_labels_has_no_shift():
    z, outcome, weight = shifted_hospital(np.full(3, 1.0), 200)
    outcome[:, 1] = np.nan
    assert prior_shift(z, outcome, weight)[1] == 0
    assert not prior_shift(z, np.full_like(z, np.nan), weight).any()


def test_a_constant_model_is_shifted_to_the_local_prevalence():
    draw = np.random.default_rng(0)
    outcome = (draw.random((4000, 2)) < [0.4, 0.05]).astype(float)
    usual = np.log(np.array([0.1 / 0.9, 0.2 / 0.8]))
    moved = usual + prior_shift(np.broadcast_to(usual, outcome.shape), outcome, np.ones(4000))
    np.testing.assert_allclose(1 / (1 + np.exp(-moved)), outcome.mean(axis=0), atol=0.01)


def draw_classes(p, seed=0):
    """A random class for each row of probabilities."""
    draw = np.random.default_rng(seed)
    return (draw.random((len(p), 1)) > p.cumsum(axis=1)).sum(axis=1).astype(float)


def test_class_shifts_are_estimated_up_to_a_constant():
    log_p = np.random.default_rng(0).normal(size=(20_000, 3))
    shift = np.array([0.0, 1.0, -2.0])
    p = np.exp(log_p + shift)
    outcome = draw_classes(p / p.sum(axis=1, keepdims=True))
    found = class_shift(log_p, outcome, np.ones(20_000))
    np.testing.assert_allclose(found - found[0], shift, atol=0.1)
    assert found.sum() == pytest.approx(0, abs=1e-3)


def test_a_class_without_patients_is_not_ruled_out_by_a_few():
    log_p = np.log(np.full((8, 3), 1 / 3))
    found = class_shift(log_p, np.array([0.0, 1] * 4), np.ones(8))
    assert -2 < found[2] < 0
    assert not class_shift(np.empty((0, 3)), np.empty(0), np.empty(0)).any()


@pytest.mark.parametrize("patients", [25, 50, 200])
def test_a_moved_end_misses_a_twentieth_of_new_patients(patients):
    draw = np.random.default_rng(patients)
    missed = []
    for _ in range(300):
        margin = local_margin(draw.normal(size=patients), np.ones(patients))
        missed.append((draw.normal(size=500) > margin).mean())
    assert 0.01 < np.mean(missed) <= 0.052


@pytest.mark.parametrize(("patients", "rank"), [(19, 19), (30, 30), (41, 40), (99, 96), (100, 96)])
def test_a_margin_is_the_quantile_with_the_finite_sample_correction(patients, rank):
    # At least the (n + 1) * 0.95-th smallest, or the largest if n is too small.
    miss = np.random.default_rng(0).permutation(np.arange(1.0, patients + 1))
    margin = conformal_margin(miss, np.ones(patients), 0.95)
    assert margin == rank
    assert min(np.ceil((patients + 1) * 0.95), patients) <= rank


def test_too_few_patients_give_no_margin():
    assert local_margin(np.arange(60.0), np.full(60, 19 / 60)) is None
