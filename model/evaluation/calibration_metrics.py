"""Calibration of probabilities, coverage of sets and intervals, and the effect of recalibration."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.special import expit

from model.calibration.calibrate import prior_shift
from model.evaluation.bootstrap import Estimate, interval
from model.evaluation.metrics import SHORTEST_DAYS, Floats, calibration_error, log_odds
from model.evaluation.predictions import Predictions, pooled
from model.evaluation.task_calibration import calibration_intercept, calibration_slope
from schemas.tasks import Task

MIN_POSITIVES_FOR_CALIBRATION = 50


def calibration(predictions: Predictions, tasks: Sequence[str] | None = None) -> dict[str, float]:
    """Slope and intercept of a logistic recalibration, Brier skill and calibration error.

    Pooled over the tasks (None: those with at least MIN_POSITIVES_FOR_CALIBRATION positives). The
    noise floor is the calibration error that perfectly calibrated probabilities would show by
    chance.
    """
    if tasks is None:
        tasks = predictions.binary_tasks(MIN_POSITIVES_FOR_CALIBRATION)
    p, y, task = pooled(predictions, tasks)
    z = log_odds(p)
    numbers = np.unique(task)
    prevalence = np.array([y[task == t].mean() for t in numbers])
    reference = np.mean((y - prevalence[np.searchsorted(numbers, task)]) ** 2)
    draw = np.random.default_rng(0)
    floor = [calibration_error(p, (draw.random(len(p)) < p).astype(float)) for _ in range(100)]
    return {
        "slope": calibration_slope(z, y),
        "intercept": calibration_intercept(z, y),
        "brier_skill": float(1 - np.mean((p - y) ** 2) / reference),
        "calibration_error": calibration_error(p, y),
        "noise_floor": float(np.mean(floor)),
    }


def calibration_curve(predictions: Predictions, points: int = 20) -> dict[str, list[float]]:
    """Mean probability and observed rate in bins of equal mass, pooled as in `calibration`."""
    p, y, _ = pooled(predictions, predictions.binary_tasks(MIN_POSITIVES_FOR_CALIBRATION))
    parts = np.array_split(np.argsort(p), points)
    return {
        "predicted": [float(p[i].mean()) for i in parts],
        "observed": [float(y[i].mean()) for i in parts],
    }


def observed_to_expected(
    predictions: Predictions, tasks: Sequence[str], weight: Floats
) -> Estimate:
    """The number of charted diseases over the sum of the probabilities, over the tasks."""
    observed, expected = np.zeros(len(predictions.rows)), np.zeros(len(predictions.rows))
    for task in tasks:
        outcome = predictions.outcome[:, predictions.column(task)]
        known = ~np.isnan(outcome)
        observed += np.where(known, outcome, 0.0)
        expected += np.where(known, predictions.scores[task], 0.0)
    total = weight @ expected
    return interval((weight @ observed) / np.where(total > 0, total, np.nan))


def coverage(predictions: Predictions) -> dict[str, float]:
    """The share of patients whose set or interval holds the outcome, pooled as in `calibration`.

    `positives`, `negatives`: sets of patients with and without the disease; `undecided`: the share
    of sets with both answers; `length_of_stay`: intervals.
    """
    covered: dict[str, list[bool]] = {"positives": [], "negatives": [], "length_of_stay": []}
    sizes: list[int] = []
    binary = predictions.binary_tasks(MIN_POSITIVES_FOR_CALIBRATION)
    for i, task in enumerate(predictions.tasks):
        outcome = predictions.outcome[:, i]
        known = ~np.isnan(outcome)
        if task.name in binary:
            for fold in np.unique(predictions.fold):
                thresholds = predictions.facts[fold]["sets"][task.name]["thresholds"]
                rows = known & (predictions.fold == fold)
                p, y = predictions.scores[task.name][rows], outcome[rows] == 1
                if thresholds:
                    yes, no = p >= thresholds["yes"], 1 - p >= thresholds["no"]
                    covered["positives"] += yes[y].tolist()
                    covered["negatives"] += no[~y].tolist()
                    sizes += (yes.astype(int) + no).tolist()
        elif task.kind == "regression":
            _, low, high = predictions.scores[task.name][known].T
            days = np.maximum(outcome[known], SHORTEST_DAYS)
            covered["length_of_stay"] += ((low <= days) & (days <= high)).tolist()
    shares = {name: _share(values) for name, values in covered.items()}
    return shares | {"undecided": _share([size == 2 for size in sizes])}


def _share(values: Sequence[bool]) -> float:
    return float(np.mean(values)) if values else float("nan")


def recalibration_effect(
    predictions: Predictions, tasks: Sequence[str], patients: int, splits: int
) -> dict[str, Any]:
    """Calibration before and after a correction for the local prevalence by few patients.

    For each random split, `prior_shift` is fitted to `patients` patients (`site`), and the
    calibration is measured on the other patients. Each figure is the mean and the 95 % range over
    the splits.
    """
    binary = predictions.binary_tasks(0)
    outcome = predictions.outcome[:, [predictions.column(name) for name in binary]]
    z = log_odds(np.stack([predictions.scores[name] for name in binary], axis=1))
    sites, code, count = np.unique(predictions.site, return_inverse=True, return_counts=True)
    figures: dict[str, list[dict[str, float]]] = {"before": [], "after": []}
    draw = np.random.default_rng(0)
    for _ in range(splits):
        chosen = np.isin(code, draw.permutation(len(sites))[:patients])
        shift = prior_shift(z[chosen], outcome[chosen], 1 / count[code[chosen]])
        corrected = expit(z[~chosen] + shift)
        _cap_subsets(corrected, binary, predictions.tasks)
        others = predictions.select(~chosen)
        scores = others.scores | dict(zip(binary, corrected.T, strict=True))
        measurable = [t for t in tasks if np.nansum(others.outcome[:, others.column(t)])]
        figures["before"].append(calibration(others, measurable))
        figures["after"].append(calibration(replace(others, scores=scores), measurable))
    pairs = list(zip(figures["before"], figures["after"], strict=True))
    rises = [after["brier_skill"] > before["brier_skill"] for before, after in pairs]
    return {
        "patients": patients,
        "others": len(sites) - patients,
        "splits": splits,
        **{when: _mean_and_range(rows) for when, rows in figures.items()},
        "brier_skill_rises": float(np.mean(rises)),
    }


def _mean_and_range(figures: Sequence[dict[str, float]]) -> dict[str, Estimate]:
    ranges = {}
    for name in figures[0]:
        values = [f[name] for f in figures]
        low, high = np.quantile(values, [0.025, 0.975])
        ranges[name] = float(np.mean(values)), float(low), float(high)
    return ranges


def _cap_subsets(p: Floats, names: Sequence[str], tasks: Sequence[Task]) -> None:
    """Caps the probability of a subset task at that of its parent, as the graphs do."""
    for task in tasks:
        if task.subset_of is not None:
            child, parent = names.index(task.name), names.index(task.subset_of)
            p[:, child] = np.minimum(p[:, child], p[:, parent])
