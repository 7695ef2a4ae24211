"""Calibration of each task by itself, and its summary over tasks.

Figures that pool the tasks flatter a model: one that predicts every task's prevalence, and so
knows nothing about a patient, has a small pooled error.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from model.evaluation.metrics import Floats, calibration_error, log_odds
from model.evaluation.predictions import Predictions, pooled

# A slope or a ratio in this range counts as well calibrated: off by at most a quarter.
WELL_CALIBRATED = (0.8, 1.25)
_MIN_SPREAD = 1e-6  # of the log-odds; below, all patients have one probability and no slope
_DRAWS = 100  # of outcomes, for the noise floor


def task_calibration(predictions: Predictions, tasks: Sequence[str]) -> dict[str, dict[str, float]]:
    """The calibration of each binary task, over all labelled patients.

    `slope`: of a logistic regression of the outcome on the log-odds (1: as sure as it should be;
    below: too sure), NaN if all patients have one probability. `intercept`: the shift of the
    log-odds that makes the mean probability right. `observed_to_expected`: the number of patients
    with the disease over the sum of the probabilities. `calibration_error`: over ten bins of equal
    mass, and `noise_floor`: what calibrated probabilities would show by chance. Van Calster et al.
    2019. A task without patients of both classes is left out.
    """
    figures = {}
    for name in tasks:
        p, y, _ = pooled(predictions, [name])
        if not 0 < y.sum() < len(y):
            continue
        draw = np.random.default_rng(0)
        floor = [
            calibration_error(p, (draw.random(len(p)) < p).astype(float)) for _ in range(_DRAWS)
        ]
        figures[name] = {
            "positives": int(y.sum()),
            "slope": calibration_slope(log_odds(p), y),
            "intercept": calibration_intercept(log_odds(p), y),
            "observed_to_expected": float(y.sum() / p.sum()),
            "calibration_error": calibration_error(p, y),
            "noise_floor": float(np.mean(floor)),
        }
    return figures


def calibration_slope(z: Floats, outcome: Floats) -> float:
    """The slope of a logistic regression of outcomes on log-odds `z`; NaN if `z` is constant."""
    if np.ptp(z) < _MIN_SPREAD:
        return float("nan")
    fitted = LogisticRegression(C=1e6, max_iter=1000).fit(z[:, None], outcome)
    return float(fitted.coef_[0, 0])


def calibration_intercept(z: Floats, outcome: Floats) -> float:
    """Calibration in the large: the shift of the log-odds `z` that makes their mean rate right."""

    def excess(shift: float) -> float:
        return float(expit(z + shift).mean() - outcome.mean())

    return float(brentq(excess, -20, 20))


def calibration_summary(
    by_task: Mapping[str, Mapping[str, float]],
) -> dict[str, dict[str, float]]:
    """The median of each figure over the tasks, and shares of tasks that are well calibrated.

    `share_within`: the share of tasks whose slope, and whose ratio of observed to expected, lies
    in WELL_CALIBRATED. A task without a slope is not within. Empty without tasks.
    """
    if not by_task:
        return {}
    values = {
        name: np.array([figures[name] for figures in by_task.values()], dtype=np.float64)
        for name in next(iter(by_task.values()))
        if name != "positives"
    }
    low, high = WELL_CALIBRATED
    return {
        "median": {
            name: float("nan") if np.isnan(v).all() else float(np.nanmedian(v))
            for name, v in values.items()
        },
        "share_within": {
            name: float(np.mean((values[name] >= low) & (values[name] <= high)))
            for name in ("slope", "observed_to_expected")
        },
    }
