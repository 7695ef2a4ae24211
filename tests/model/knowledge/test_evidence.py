"""The fitted weights of findings keep their direction and follow many patients."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.knowledge.evidence import LEAST_SHARE, fit_evidence


def fit(findings, expected, outcome, offset=None):
    count = len(findings)
    offset = np.zeros(count) if offset is None else offset
    return fit_evidence(findings, expected, outcome, offset, np.ones(count))


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(2, 200), st.integers(1, 6), st.floats(0.1, 30))
def test_a_stated_effect_keeps_its_direction_and_least_share(seed, count, width, strength):
    """Whatever the patients are like, also if their outcomes contradict every effect."""
    draw = np.random.default_rng(seed)
    findings = draw.random((count, width)) * 1.3
    expected = draw.choice([-2.5, -0.3, 0.0, 0.4, 2.6], width)
    z = -strength * (findings @ expected) + draw.normal(size=count)
    outcome = (z > np.median(z)).astype(float)
    _, weights = fit(findings, expected, outcome)
    assert np.isfinite(weights).all()
    stated = expected != 0
    share = weights[stated] / expected[stated]
    assert (share >= LEAST_SHARE - 1e-9).all()


@pytest.mark.parametrize("outcome", [np.empty(0), np.zeros(5), np.ones(5)])
def test_without_both_outcomes_the_weights_are_the_expected_effects(outcome):
    expected = np.array([1.0, 0.0, -0.4])
    intercept, weights = fit(np.ones((len(outcome), 3)), expected, outcome)
    np.testing.assert_array_equal(weights, expected)
    assert intercept == 0.0


def many_patients(effects, intercept, offset=0.0, count=60_000):
    draw = np.random.default_rng(0)
    findings = draw.random((count, len(effects))) * (draw.random((count, len(effects))) < 0.5)
    z = offset + intercept + findings @ effects
    return findings, (draw.random(count) < 1 / (1 + np.exp(-z))).astype(float)


def test_many_patients_determine_the_weights():
    effects = np.array([2.0, 0.5, -1.0, 0.6])
    findings, outcome = many_patients(effects, -2.0)
    intercept, weights = fit(findings, np.array([1.0, 0.8, -1.5, 0.0]), outcome)
    np.testing.assert_allclose(weights, effects, atol=0.1)
    assert intercept == pytest.approx(-2.0, abs=0.1)


def test_few_patients_hardly_move_the_weights():
    effects = np.array([1.0, -0.5])
    findings, outcome = many_patients(np.array([3.0, 1.0]), 0.0, count=10)
    _, weights = fit(findings, effects, outcome)
    np.testing.assert_allclose(weights, effects, atol=0.35)


def test_the_offset_of_a_selected_cohort_is_no_effect():
    effects = np.array([1.0, -0.5])
    findings, outcome = many_patients(effects, -1.0, offset=2.0)
    intercept, weights = fit(findings, effects, outcome, np.full(len(findings), 2.0))
    np.testing.assert_allclose(weights, effects, atol=0.1)
    assert intercept == pytest.approx(-1.0, abs=0.1)


def test_a_patients_weight_is_that_of_as_many_records():
    draw = np.random.default_rng(0)
    findings, outcome = draw.random((40, 2)), draw.integers(0, 2, 40).astype(float)
    weight = draw.integers(1, 4, 40)
    expected = np.array([0.8, -0.2])
    once = fit_evidence(findings, expected, outcome, np.zeros(40), weight.astype(float))
    repeated = fit(findings.repeat(weight, axis=0), expected, outcome.repeat(weight))
    np.testing.assert_allclose(once[1], repeated[1], atol=1e-4)
    assert once[0] == pytest.approx(repeated[0], abs=1e-4)
