"""Calibration of each task by itself, and its summary."""

import numpy as np
import pytest

from model.evaluation.calibration_metrics import calibration
from model.evaluation.predictions import Predictions
from model.evaluation.task_calibration import calibration_summary, task_calibration
from tests.support.inputs.cohorts import TASKS

BINARY = tuple(task for task in TASKS if task.kind == "binary")[:3]
NAMES = [task.name for task in BINARY]


def predictions(probabilities, outcomes):
    """Predictions of three tasks: `probabilities`, `outcomes` [n, 3]."""
    count = len(outcomes)
    return Predictions(
        tasks=BINARY,
        scores=dict(zip(NAMES, np.asarray(probabilities, float).T, strict=True)),
        outcome=np.asarray(outcomes, float),
        fold=np.zeros(count, int),
        site=np.array([str(i % 10) for i in range(count)]),
        rows=np.arange(count),
    )


def drawn(count=20_000):
    """Probabilities, and outcomes drawn from them."""
    draw = np.random.default_rng(0)
    p = 1 / (1 + np.exp(-draw.normal(-1, 1.2, (count, 3))))
    return p, (draw.random(p.shape) < p).astype(float)


def shifted(p, factor=1.0, shift=0.0):
    return 1 / (1 + np.exp(-factor * np.log(p / (1 - p)) - shift))


def test_observed_over_expected_counts_patients():
    # Two of four patients have it; the probabilities sum to 1. One patient has no label.
    p = np.tile([[0.4], [0.3], [0.2], [0.1], [0.9]], 3)
    y = np.tile([[1.0], [0.0], [1.0], [0.0], [np.nan]], 3)
    figures = task_calibration(predictions(p, y), NAMES)
    assert figures[NAMES[0]]["observed_to_expected"] == pytest.approx(2.0)
    assert figures[NAMES[0]]["positives"] == 2
    assert figures[NAMES[0]]["intercept"] > 0


def test_each_task_has_its_own_slope_intercept_and_ratio():
    p, y = drawn()
    wrong = np.stack([p[:, 0], shifted(p[:, 1], factor=2), shifted(p[:, 2], shift=-1)], axis=1)
    right, too_sure, too_low = task_calibration(predictions(wrong, y), NAMES).values()
    assert right["slope"] == pytest.approx(1, abs=0.05)
    assert right["observed_to_expected"] == pytest.approx(1, abs=0.05)
    assert right["calibration_error"] < 2 * right["noise_floor"]
    assert too_sure["slope"] == pytest.approx(0.5, abs=0.05)
    assert too_low["intercept"] == pytest.approx(1, abs=0.05)
    assert too_low["observed_to_expected"] > 1.25


def test_opposite_faults_of_two_tasks_do_not_cancel():
    p, y = drawn()
    wrong = np.stack([shifted(p[:, 0], shift=0.8), shifted(p[:, 1], shift=-0.8), p[:, 2]], axis=1)
    tested = predictions(wrong, y)
    assert abs(calibration(tested, NAMES)["intercept"]) < 0.1  # pooled: nothing to see
    summary = calibration_summary(task_calibration(tested, NAMES))
    assert summary["share_within"]["observed_to_expected"] == pytest.approx(1 / 3)


def test_a_model_that_knows_only_the_prevalence_is_not_well_calibrated():
    _, y = drawn(2000)
    prevalence = np.broadcast_to(y.mean(axis=0), y.shape)
    tested = predictions(prevalence, y)
    assert calibration(tested, NAMES)["calibration_error"] < 0.02
    summary = calibration_summary(task_calibration(tested, NAMES))
    assert summary["share_within"]["slope"] == 0
    assert np.isnan(summary["median"]["slope"])
    assert summary["share_within"]["observed_to_expected"] == 1


def test_the_summary_has_medians_over_tasks():
    by_task = {
        name: {"positives": 60, "slope": slope, "observed_to_expected": ratio}
        for name, slope, ratio in (("a", 0.7, 0.8), ("b", 1.0, 1.25), ("c", 1.2, 1.3))
    }
    assert calibration_summary(by_task) == {
        "median": {"slope": 1.0, "observed_to_expected": 1.25},
        "share_within": {
            "slope": pytest.approx(2 / 3),
            "observed_to_expected": pytest.approx(2 / 3),
        },
    }
    assert calibration_summary({}) == {}


def test_a_task_with_one_class_has_no_calibration():
    p, y = drawn(200)
    y[:, 1] = 1.0
    assert list(task_calibration(predictions(p, y), NAMES)) == [NAMES[0], NAMES[2]]
