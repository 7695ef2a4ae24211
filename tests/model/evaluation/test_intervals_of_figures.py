"""Bootstrap intervals of the report's figures, and its measures of calibration."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from model.evaluation.bootstrap import (
    Comparison,
    interval,
    replicate_weights,
    weighted_auroc,
)
from model.evaluation.calibration_metrics import (
    calibration,
)
from model.evaluation.metrics import calibration_error
from model.evaluation.predictions import Predictions
from tests.support.inputs.predictions import predictions


def test_a_weighted_auroc_equals_the_auroc_of_repeated_patients():
    draw = np.random.default_rng(0)
    outcome = (draw.random(200) < 0.3).astype(float)
    score = np.round(outcome + draw.normal(size=200), 1)  # with ties
    times = draw.integers(0, 4, (5, 200))
    areas, positives = weighted_auroc(outcome, score, np.arange(200), times.astype(float))
    for area, count, weight in zip(areas, times, positives, strict=True):
        expected = roc_auc_score(np.repeat(outcome, count), np.repeat(score, count))
        assert area == pytest.approx(expected)
        assert weight == np.repeat(outcome, count).sum()


def test_weights_by_site_equal_weights_by_patient():
    draw = np.random.default_rng(0)
    outcome, score = (draw.random(200) < 0.3).astype(float), draw.normal(size=200)
    site, times = draw.integers(0, 9, 200), draw.integers(0, 3, (5, 9)).astype(float)
    together = weighted_auroc(outcome, score, site, times)
    apart = weighted_auroc(outcome, score, np.arange(200), times[:, site])
    np.testing.assert_allclose(together, apart)


def test_whole_hospitals_are_drawn_within_their_fold():
    site = np.array([f"h{i // 3}" for i in range(60)])
    fold = np.arange(60) // 30
    weight = replicate_weights(site, fold)
    assert (weight[0] == 1).all()
    assert (weight[:, ::3] == weight[:, 1::3]).all()
    assert (weight.reshape(len(weight), 2, 30).sum(axis=2) == 30).all()


def test_the_interval_of_a_difference_shows_the_better_model():
    compared = Comparison(
        {"m3h": predictions(0.2), "lightgbm": predictions(2.0, seed=1)}, min_positives=20
    )
    value, low, high = compared.difference("m3h", "lightgbm")
    assert 0 < low < value < high
    equal = Comparison(
        {"m3h": predictions(0.5, 1), "lightgbm": predictions(0.5, 2)}, min_positives=20
    )
    _, low, high = equal.difference("m3h", "lightgbm")
    assert low < 0 < high


def test_a_replicate_without_positives_of_one_task_still_counts_the_other_tasks():
    rare = predictions(0.5)
    outcome = rare.outcome.copy()
    outcome[:, 0] = 0.0
    outcome[:8, 0] = 1.0  # one fold, all of the same hospital
    site = rare.site.copy()
    site[:8], fold = "h0", rare.fold.copy()
    fold[:8] = 0
    compared = Comparison({"m3h": replace(rare, outcome=outcome, site=site, fold=fold)}, 8)
    undefined = np.isnan(compared.by_task["m3h"][rare.tasks[0].name])
    assert 0.1 < undefined.mean() < 0.9
    assert not np.isnan(compared.mean["m3h"]).any()


def test_a_relative_gain_is_the_mean_over_tasks():
    compared = Comparison(
        {"m3h": predictions(0.2), "lightgbm": predictions(2.0, seed=1)}, min_positives=20
    )
    m3h, lightgbm = ({t: a[0] for t, a in compared.by_task[m].items()} for m in ("m3h", "lightgbm"))
    expected = np.mean([(m3h[t] - lightgbm[t]) / lightgbm[t] for t in m3h])
    assert compared.relative_gain("m3h", "lightgbm")[0] == pytest.approx(expected)


def test_calibrated_probabilities_have_slope_one_and_an_error_near_the_noise_floor():
    figures = calibration(predictions(0.0))
    assert figures["slope"] == pytest.approx(1, abs=0.03)
    assert figures["intercept"] == pytest.approx(0, abs=0.05)
    assert figures["brier_skill"] > 0
    assert figures["calibration_error"] < 2 * figures["noise_floor"]


def test_overconfident_probabilities_have_a_slope_below_one():
    sure = predictions(0.0)
    scores = {n: 1 / (1 + np.exp(-2 * np.log(p / (1 - p)))) for n, p in sure.scores.items()}
    doubled = Predictions(**{**vars(sure), "scores": scores})
    assert calibration(doubled)["slope"] == pytest.approx(0.5, abs=0.03)


def test_the_calibration_error_of_a_constant_correct_rate_is_zero():
    y = np.tile([0.0, 1.0], 100)
    assert calibration_error(np.full(200, 0.5), y) == pytest.approx(0, abs=0.02)


def test_an_interval_comes_with_the_figure_of_the_original_data():
    assert interval(np.r_[0.5, np.linspace(0, 1, 1001)]) == pytest.approx((0.5, 0.025, 0.975))
